"""What a lab has made, written down before it is made, so that a later command can remove what a crash left behind.

A process is known by the mark in its environment, which every process of a lab is started with and hands on to its
children: the id of a lab is random, so nothing else carries it. Processes are ended by pid, through a descriptor that
cannot come to mean another process.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flannel_core.state_file import write_atomically

from .network import NAMESPACES, ip_batch

LABS = Path("/run/flannel-lab")
"""A directory per lab, with its record, its store and its hosts' state directories."""
MARK = "FLANNEL_LAB"
"""The variable that marks the processes of a lab; its value is the lab's id."""
FILE_NAME = "record.json"
LOOKS, LOOK_SECONDS = 2, 0.03
"""How often in a row none of the lab's processes has to be seen: one that just becomes another program (``ip netns
exec``) shows no environment, and with it no mark, for a moment."""
END_SECONDS = 10.0
"""How long SIGKILL may take to end a process."""


class Record(msgspec.Struct):
    """``id`` is in every name the lab makes. ``pid`` and ``started`` (clock ticks since boot, field 22 of
    /proc/PID/stat) tell whether the process that made it still runs. ``kept``: it is meant to stay."""

    id: str
    pid: int
    started: int
    namespaces: list[str] = []
    kept: bool = False

    @property
    def directory(self) -> Path:
        return LABS / self.id

    @property
    def in_use(self) -> bool:
        """The process that made the lab still runs and will clean up itself."""
        return not self.kept and start_time(self.pid) == self.started

    def save(self) -> None:
        write_atomically(self.directory / FILE_NAME, msgspec.json.encode(self), directory_mode=0o700)


def new_record(identifier: str) -> Record:
    """The record of a lab of this process, not saved yet."""
    return Record(identifier, os.getpid(), start_time(os.getpid()) or 0)


def records() -> list[Record]:
    """All labs that left a record. A directory without a readable one had nothing made for it yet."""
    found = []
    for path in sorted(LABS.glob(f"*/{FILE_NAME}")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if record.id == path.parent.name:
            found.append(record)
    return found


def remove(record: Record) -> list[str]:
    """End the lab's processes, delete its namespaces and its directory. Returns what is left and why, in sentences."""
    end_all(record.id)
    there = [name for name in record.namespaces if (NAMESPACES / name).exists()]
    left = [
        f"pid {pid} is not the lab's and still inside {name}; end it yourself"
        for name in there
        for pid in inmates(name)
    ]
    ip_batch(f"netns del {name}" for name in there)
    shutil.rmtree(record.directory)
    return left


def end_all(identifier: str) -> None:
    """SIGKILL every process that carries the lab's mark, and wait until they have ended."""
    deadline = time.monotonic() + END_SECONDS
    unseen = 0
    while unseen < LOOKS and time.monotonic() < deadline:
        if unseen:
            time.sleep(LOOK_SECONDS)
        unseen += 1
        for pid in _pids():
            with _pinned(pid) as descriptor:
                if descriptor is not None and _carries_mark(pid, identifier):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
                    unseen = 0


def inmates(namespace: str) -> list[int]:
    """The pids of the processes inside a named network namespace."""
    inode = (NAMESPACES / namespace).stat().st_ino
    found = []
    for pid in _pids():
        try:
            if Path(f"/proc/{pid}/ns/net").stat().st_ino == inode:
                found.append(pid)
        except OSError:
            continue
    return found


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or only its exit status."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


@contextmanager
def _pinned(pid: int) -> Iterator[int | None]:
    """A descriptor of the process that has this pid now; None if there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _carries_mark(pid: int, identifier: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK}={identifier}".encode() in environment.split(b"\0")
