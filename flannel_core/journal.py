"""What was done to this host, when, why and on whose account: the newest of it in memory, more of it on disk.

The file is ``journal.jsonl`` in the state directory, one :class:`Entry` a line as JSON, oldest first. It is appended to
and never synced: it outlives the agent, however that ends. A full one becomes ``journal.jsonl.1``, in place of the one
before.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from .klog import StateLog
from .printable import printable
from .tally import Tally

log = logging.getLogger(__name__)

Action = Literal["put", "change", "remove", "repair", "failed", "lost"]

NAME = "journal.jsonl"
OLDER = "journal.jsonl.1"
LARGEST_FILE = 1 << 20
"""Bytes; there are two at most."""
BATCH = 100
"""Entries written at once: together less than a file may hold, however long each of them is."""
LONGEST_TEXT = 500
"""Characters of one text in an entry."""
TAIL = 512 << 10
"""Bytes looked through at a start for what belongs into memory."""
BATCH_SECONDS = 0.1
"""What is done within it is written together."""
RETRY_SECONDS = 5.0
"""When to try again what could not be written."""

_ENCODER = msgspec.json.Encoder()


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One line. ``time`` is Unix time in seconds, ``object`` what it was done to, ``cause`` what asked for it (a lease
    and its revision) or, of a failure, the reason. ``by`` names who made a repair necessary, as far as is known.
    ``count`` is of how many objects it speaks. ``lost``: so many entries are not in the file."""

    time: float
    action: Action
    object: str
    cause: str = ""
    by: str = ""
    count: int = 1


_DECODER = msgspec.json.Decoder(Entry)


class Journal:
    """The newest ``capacity`` entries, and the file in ``directory`` (None: there is none), whose entries of earlier
    runs are among them. With a directory it is to be used from a running event loop.

    A file that cannot be written is said once, tried again, and harms nothing; what it misses for good is counted in
    ``lost``, and in the file itself once that can be written.
    """

    def __init__(
        self, directory: Path | None = None, capacity: int = 1000, clock: Callable[[], float] = time.time
    ) -> None:
        self.tally = Tally()
        self.capacity = capacity
        self.added = 0
        """The entries of this run, also those that ``entries`` no longer has."""
        self.lost = 0
        """The entries of this run that never reached the file."""
        self.trouble: str | None = None
        """Why the file cannot be written."""
        self._directory = directory
        self._entries: deque[Entry] = deque(maxlen=capacity)
        if directory is not None:
            self._entries.extend(decode(_tail_of(directory))[0])
        self._clock = clock
        self._said = StateLog(log)
        self._unwritten = 0
        self._untold = 0
        self._writing: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()

    def add(self, action: Action, object: str, cause: str = "", by: str = "", *, count: int = 1) -> None:
        object, cause, by = (printable(text, LONGEST_TEXT) for text in (object, cause, by))
        self._entries.append(Entry(self._clock(), action, object, cause, by, count))
        self.added += 1
        self._news.set()
        self._news = asyncio.Event()
        if self._directory is None:
            return
        if self._unwritten == self.capacity:
            self.lost += 1
            self._untold += 1
        else:
            self._unwritten += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._write)

    def entries(self) -> list[Entry]:
        """Oldest first."""
        return list(self._entries)

    async def after(self, position: int) -> list[Entry]:
        """Those that came after ``position``, a former value of ``added``; waits for one. Those that came and are no
        longer kept are one entry ``lost``."""
        while self.added <= position:
            await self._news.wait()
        fresh = self.added - position
        kept = min(fresh, len(self._entries))
        newest = list(islice(self._entries, len(self._entries) - kept, None))
        return [_lost(self._clock(), fresh - kept, "they came too fast"), *newest] if kept < fresh else newest

    def text(self) -> bytes:
        """All that is known, as lines, oldest first: what the files hold, and what they lack."""
        self._write()
        found = read(self._directory) if self._directory is not None else b""
        lacking = self._unwritten if self._directory is not None else len(self._entries)
        return found + lines(list(islice(self._entries, len(self._entries) - lacking, None)))

    def close(self) -> None:
        """Write what is not written yet."""
        self._write()
        if self._writing is not None:
            self._writing.cancel()
            log.warning("%s; %d entries of it are lost", self.trouble, self._unwritten)

    def _write(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._directory is None or not self._unwritten:
            return
        path = self._directory / NAME
        try:
            while self._unwritten:
                self._write_batch(path)
        except OSError as error:
            self.trouble = f"{path}: the journal cannot be written: {error.strerror}"
            self._said.say("file", logging.WARNING, f"{self.trouble}; the newest {self.capacity} entries wait for it")
            self._writing = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._write)
        else:
            self.trouble = None
            self._said.over("file", f"{path}: the journal is written again")

    def _write_batch(self, path: Path) -> None:
        start = len(self._entries) - self._unwritten
        batch = list(islice(self._entries, start, start + BATCH))
        lost = [_lost(self._clock(), self._untold, self.trouble or "")] if self._untold else []
        _append(path, lines([*lost, *batch]))
        self._untold = 0
        self._unwritten -= len(batch)


def _lost(now: float, count: int, cause: str) -> Entry:
    return Entry(now, "lost", f"{count} entries", cause, count=count)


def lines(entries: Sequence[Entry]) -> bytes:
    """As the file has them."""
    return _ENCODER.encode_lines(entries) if entries else b""


def decode(text: bytes) -> tuple[list[Entry], int]:
    """The entries, and how many lines are none: torn by a crash, or not written by a journal."""
    entries, unreadable = [], 0
    for line in text.split(b"\n"):
        if line:
            try:
                entries.append(_DECODER.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                unreadable += 1
    return entries, unreadable


def read(directory: Path) -> bytes:
    """The lines of both files, oldest first; empty where there are none. Raises OSError."""
    return b"".join(_whole(_contents(directory / name)) for name in (OLDER, NAME))


def _tail_of(directory: Path) -> bytes:
    """The newest lines, as many as matter at a start."""
    try:
        newer = _whole(_contents(directory / NAME, TAIL))
        return _whole(_contents(directory / OLDER, TAIL - len(newer))) + newer if len(newer) < TAIL else newer
    except OSError as error:
        log.warning("%s: the journal of earlier runs cannot be read: %s", directory / NAME, error.strerror)
        return b""


def _contents(path: Path, most: int | None = None) -> bytes:
    """Of the last ``most`` bytes the whole lines."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if most is None or size <= most:
                return file.read()
            file.seek(size - most)
            return file.read().partition(b"\n")[2]
    except FileNotFoundError:
        return b""


def _whole(text: bytes) -> bytes:
    """``text`` with its last line ended, which a crash may have torn."""
    return text if text.endswith(b"\n") or not text else text + b"\n"


def _append(path: Path, text: bytes) -> None:
    """All of it or nothing. Raises OSError."""
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        if size + len(text) > LARGEST_FILE:
            path.replace(path.with_name(OLDER))
            os.close(descriptor)
            descriptor, size = _open(path), 0
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        if os.write(descriptor, text) < len(text):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
