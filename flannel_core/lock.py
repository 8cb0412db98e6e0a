"""One agent per state directory, per device and beside no Go flanneld that does the same: each is named before
anything is touched."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from .errors import FlannelError
from .printable import printable

LOCK_FILE = "flanneld.lock"
DEFAULT_SUBNET_FILE = "/run/flannel/subnet.env"
"""Of Go flanneld's --subnet-file, and of ours."""
UCRED = struct.Struct("iII")
"""struct ucred of linux/socket.h: pid, uid, gid."""
CLAIM_BACKLOG = 1024
"""How many refused agents' connections wait on a claim, which nobody accepts; beyond that its holder goes unnamed."""


class AgentLock:
    """What one agent holds against every other, from ``with`` on until the process ends, however it ends.

    The state directory: flock(2) on DIR/flanneld.lock, which has our pid in it. The file stays; only ``flannelctl
    cleanup`` removes it, while it holds it.

    Devices: for each a listening Unix socket with the abstract name ``flannel-device-NAME``. Such names belong to the
    network namespace, as devices do, so agents with different state directories meet there. They are open to every
    user, so a claim counts only if root or our own user holds it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor = -1
        self._claims: dict[str, socket.socket] = {}

    def __enter__(self) -> Self:
        """Raises FlannelError naming the holder's pid and the directory, or why the file cannot be written."""
        self._descriptor = _lock(self.directory)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for device in list(self._claims):
            self.release_device(device)
        os.close(self._descriptor)

    def claim_device(self, device: str, *, exists: bool, ours: bool) -> None:
        """Make ``device`` ours to make and change. ``exists`` in the kernel, ``ours`` by the record of an earlier run.

        Raises FlannelError naming the agent that holds it; or a Go flanneld that runs here, if the device exists and
        is not ours (without one it is a stopped flanneld's, and taken over).
        """
        if device in self._claims:
            return
        if exists and not ours:
            for other in go_flannelds():
                raise FlannelError(
                    f"{other} runs in this network namespace, and {device} exists and is not this agent's; stop it "
                    f"first (the device is taken over), or give the networks different VNIs or backends"
                )
        if (claim := _claim(device)) is not None:
            self._claims[device] = claim

    def release_device(self, device: str) -> None:
        """Let another agent have it."""
        self._claims.pop(device).close()

    def refuse_go_flanneld(self, subnet_file: Path) -> None:
        """Raises FlannelError if a Go flanneld of this network namespace writes our subnet file. One that writes
        another serves another network, which is fine."""
        for other in go_flannelds():
            if other.writes(subnet_file):
                raise FlannelError(
                    f"{other} writes {subnet_file} too; stop it first (its lease and devices are taken over), or give "
                    f"this agent another --subnet-file"
                )


def _lock(directory: Path) -> int:
    path = directory / LOCK_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FlannelError(
            f"{path}: cannot be written ({error.strerror}); run as root, or name a writable directory with "
            f"--subnet-file DIR/subnet.env"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:  # it was removed before it was ours: the next one has its name
            os.close(descriptor)
            return _lock(directory)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = _pid_in(descriptor)
        os.close(descriptor)
        raise FlannelError(
            f"another flanneld (pid {holder}) uses {directory}; stop it, or give this one a state directory of its own "
            f"with --subnet-file DIR/subnet.env"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise FlannelError(f"{path}: cannot be locked and written ({error.strerror})") from error
    return descriptor


def user_of(directory: Path) -> str | None:
    """The pid, as text, of the agent that uses ``directory``; None if none does. Writes nothing. Raises FlannelError if
    that cannot be told."""
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FlannelError(f"{path}: cannot be read ({error.strerror}); run as root") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)


def _pid_in(descriptor: int) -> str:
    return printable(os.pread(descriptor, 32, 0).strip()) or "unknown"


def _claim(device: str) -> socket.socket | None:
    """The claim, or None if a user whose claims do not count holds the name."""
    address = f"\0flannel-device-{device}"
    for _ in range(10):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(address)
            claim.listen(CLAIM_BACKLOG)
            return claim
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise FlannelError(f"device {device}: cannot be claimed ({error.strerror})") from error
        try:
            pid, uid = _holder(address)
        except ConnectionRefusedError:
            # It ended just now, or is between bind and listen. Whoever stays there without listening is none of ours.
            time.sleep(0.01)
            continue
        if uid not in (None, 0, os.geteuid()):
            return None
        raise FlannelError(
            f"another flanneld (pid {pid or 'unknown'}) in this network namespace has the device {device}; stop it, or "
            f"give the networks different VNIs or backends"
        )
    return None


def _holder(address: str) -> tuple[int | None, int | None]:
    """Process id and user of who listens at ``address``. No pid: it is in a pid namespace that we do not see. Neither:
    so many ask that it cannot be told. Raises ConnectionRefusedError if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(address)
        except BlockingIOError:
            return None, None
        pid, uid, _ = UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid or None, uid


class Flanneld(msgspec.Struct, frozen=True):
    """A running flanneld of our network namespace, Go's or one of ours. ``command`` is its command line, made
    printable; ``subnet_file`` leads to its file through /proc, since it may have another root (a container's) than
    we."""

    pid: int
    command: str
    subnet_file: Path
    is_go: bool

    def __str__(self) -> str:
        return f"a {'Go ' if self.is_go else ''}flanneld (pid {self.pid}: {self.command})"

    def writes(self, subnet_file: Path) -> bool:
        """True if that is its --subnet-file."""
        ours, its = subnet_file.absolute(), self.subnet_file
        try:
            return ours.name == its.name and its.parent.samefile(ours.parent)
        except OSError:
            return False


def flannelds() -> Iterator[Flanneld]:
    """Every process named flanneld in this network namespace. One that ends while it is looked at, or that we may not
    look into, is left out."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if (process / "comm").read_bytes() != b"flanneld\n" or not (process / "ns/net").samefile(
                "/proc/self/ns/net"
            ):
                continue
            is_go = not (process / "exe").readlink().name.startswith("python")
            arguments = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
            environment = (process / "environ").read_bytes().split(b"\0")
            named = Path(_subnet_file(arguments, environment))
            subnet_file = process / "root" / named.relative_to("/") if named.is_absolute() else process / "cwd" / named
        except OSError:
            continue
        yield Flanneld(int(process.name), printable(" ".join(arguments), 200), subnet_file, is_go)


def go_flannelds() -> Iterator[Flanneld]:
    """Those of them that no Python runs."""
    return (other for other in flannelds() if other.is_go)


def _subnet_file(arguments: list[str], environment: list[bytes]) -> str:
    """A flanneld's --subnet-file: the option with one dash or two, else its variable, else the default."""
    found = ""
    for position, word in enumerate(arguments):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "subnet-file":
            found = value if equals else "".join(arguments[position + 1 : position + 2])
    prefix = b"FLANNELD_SUBNET_FILE="
    variable = next((entry.removeprefix(prefix) for entry in environment if entry.startswith(prefix)), b"")
    return found or os.fsdecode(variable) or DEFAULT_SUBNET_FILE
