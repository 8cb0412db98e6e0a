"""The program by itself: how it is started, what it makes of what is said to it, when it ends."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from flannel_backend_udp.messages import VERSION, Change, Done, Look, Release, Request, Settings, State, Stop, Take

PROGRAM = [sys.executable, "-m", "flannel_backend_udp.forwarder.main"]
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_FDS"] = "1"
os.execv(sys.argv[2], sys.argv[2:])
"""
LINES = int(os.environ.get("FLANNEL_FUZZ", "20000")) // 10
SEED = os.environ["FLANNEL_TEST_SEED"]
LATEST = 10.0
"""Seconds."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program, and kills it at last."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, **options: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, **options))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def running(path: Path, start: Start) -> subprocess.Popen[bytes]:
    """A forwarder, as systemd starts it: what listens at ``path`` is its descriptor 3."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        return start(sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), *PROGRAM, pass_fds=[listening.fileno()])


class Client:
    """Of one connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LATEST)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")

    def ask(self, request: Request | bytes) -> bytes:
        """The line that is the answer, empty at the end of the connection."""
        self.socket.sendall((request if isinstance(request, bytes) else msgspec.json.encode(request)) + b"\n")
        return self._lines.readline()

    def state(self) -> State:
        return msgspec.json.decode(self.ask(Look(by="test")), type=State)

    def error(self, request: Request | bytes) -> str:
        return msgspec.json.decode(self.ask(request), type=Done).error

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


def test_it_knows_the_peers_that_it_was_told(running: subprocess.Popen[bytes], path: Path) -> None:
    client = Client(path)
    state = client.state()
    assert (state.version, state.pid, state.settings, state.peers) == (VERSION, running.pid, None, {})
    assert client.error(Change({"10.5.2.0/24": "192.0.2.2", "10.5.3.0/24": "192.0.2.3"}, by="test")) == ""
    assert client.error(Change({"10.5.2.0/24": "192.0.2.9"}, ("10.5.3.0/24", "10.5.4.0/24"), by="test")) == ""
    assert client.state().peers == {"10.5.2.0/24": "192.0.2.9"}


def test_it_ends_when_it_is_told_to_or_nobody_is_there_to_give_it_something(path: Path, start: Start) -> None:
    for leave in (lambda client: client.ask(Stop(by="test")), lambda client: client.close()):
        process = start(*PROGRAM, str(path), "--detach", stdin=subprocess.DEVNULL)
        assert process.wait(LATEST) == 0, "what was started has detached itself, and listens"
        client = Client(path)
        pid = client.state().pid
        with os.fdopen(os.pidfd_open(pid)) as ended:
            leave(client)
            assert waits_for(ended.fileno())


def waits_for(pidfd: int) -> bool:
    """Whether the process ends."""
    import select

    return bool(select.select([pidfd], [], [], LATEST)[0])


def test_a_second_one_at_the_same_place_and_one_without_a_place_say_so(
    running: subprocess.Popen[bytes], path: Path
) -> None:
    client = Client(path)
    client.state()
    for words, said in (
        ([str(path)], f"{path}: another forwarder listens there"),
        ([], "systemd: it passed no socket (LISTEN_FDS): say where to listen"),
        (["/proc/nowhere/socket"], "/proc/nowhere/socket: No such file or directory"),
    ):
        ended = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=LATEST, check=False)
        assert (ended.returncode, ended.stderr) == (1, f"flannel-udp-forwarder: {said}\n")
    client.state()


def test_what_it_cannot_work_with_is_refused(running: subprocess.Popen[bytes], path: Path) -> None:
    client = Client(path)
    take = Take(Settings("flannel0", 1472, "192.0.2.1", 8285), by="test")
    assert "0 descriptors came with it" in client.error(take)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        socket.send_fds(client.socket, [msgspec.json.encode(take)], [plain.fileno(), plain.fileno()])
        assert client.error(b"") == "flannel0: Inappropriate ioctl for device"
    assert client.error(Release(by="test")) == ""
    assert "x/24" in client.error(Change({"x/24": "192.0.2.2"}, by="test"))
    assert client.state().peers == {}


def test_whoever_reads_no_answers_holds_up_nobody(running: subprocess.Popen[bytes], path: Path) -> None:
    client, deaf = Client(path), Client(path)
    subnets = {f"10.{number // 256}.{number % 256}.0/24": "192.0.2.2" for number in range(2000)}
    assert client.error(Change(subnets, by="test")) == ""
    deaf.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        deaf.socket.sendall(b'{"type":"Look","by":"deaf"}\n' * 100_000)
    assert len(client.state().peers) == 2000


def test_random_lines_are_answered_and_harm_nobody(running: subprocess.Popen[bytes], path: Path) -> None:
    print(f"FLANNEL_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    watching = Client(path)
    client = Client(path)
    look, change = b'{"type":"Look","by":"x"}', b'{"type":"Change","by":"x","put":{"10.5.2.0/24":"192.0.2.2"}}'
    valid = [look, change, b"{}", b"[" * 2000]
    for _ in range(LINES):
        line = bytearray(rng.choice(valid) if rng.random() < 0.9 else rng.randbytes(50))
        for _ in range(rng.randrange(3)):
            line[rng.randrange(len(line))] = rng.getrandbits(8)
        if b"Stop" not in line and b"\n" not in line:
            assert client.ask(bytes(line))
    client.close()
    assert watching.state().pid == running.pid
