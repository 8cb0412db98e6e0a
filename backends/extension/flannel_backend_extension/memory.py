"""What was run since the host booted: a file of JSON lines, for root alone.

A line is appended after each command. Who boots starts afresh, since whatever the commands made is gone as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.objects import Identity
from flannel_core.state_file import write_atomically

from .commands import PeerCommand, Startup

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Printed(msgspec.Struct, frozen=True):
    """What a PreStartupCommand of these words printed."""

    words: tuple[str, ...]
    output: str


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the four."""

    boot: str | None = None
    printed: Printed | None = None
    did: Startup | PeerCommand | None = None
    undid: tuple[str, ...] | None = None


class Memory:
    """``done`` is what was run and not undone, by identity. The file is read when somebody asks first, and written
    anew, without what was undone, in place of the first line added to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[Identity, Startup | PeerCommand] | None = None
        self._printed: Printed | None = None
        self._is_compact = False

    @property
    def done(self) -> dict[Identity, Startup | PeerCommand]:
        if self._done is None:
            self._done = {}
            self._recall(self._done)
        return self._done

    def output_of(self, words: tuple[str, ...]) -> str | None:
        """What PreStartupCommand printed in this boot, None if it was not run with these words."""
        self.done  # noqa: B018  reads the file
        return self._printed.output if self._printed and self._printed.words == words else None

    def printed(self, words: tuple[str, ...], output: str) -> None:
        """PreStartupCommand was run: whatever the others did before it may be undone by that, so they run again."""
        self.done.clear()
        self._printed = Printed(words, output)
        self._is_compact = False
        self._add(Line(printed=self._printed))

    def did(self, item: Startup | PeerCommand) -> None:
        self.done[item.identity] = item
        self._add(Line(did=item))

    def undid(self, item: Startup | PeerCommand) -> None:
        self.done.pop(item.identity, None)
        self._add(Line(undid=tuple(map(str, item.identity))))

    def _recall(self, done: dict[Identity, Startup | PeerCommand]) -> None:
        lines = self._lines()
        if next(lines, Line()).boot != _boot():
            return
        for line in lines:
            if line.printed is not None:
                self._printed = line.printed
            if line.did is not None:
                done[line.did.identity] = line.did
            if line.undid is not None:
                done.pop(line.undid, None)

    def _lines(self) -> Iterator[Line]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise FlannelError(f"{self.path}: what commands were run cannot be read: {error.strerror}") from error
        for number, line in enumerate(text.splitlines(), 1):
            try:
                yield msgspec.json.decode(line, type=Line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                log.warning("%s: line %d is torn or not ours, and is passed over", self.path, number)

    def _add(self, line: Line) -> None:
        """A full disk is no reason to run a command twice now; a later start may."""
        try:
            if not self._is_compact:
                lines = [Line(boot=_boot())]
                lines += [Line(printed=self._printed)] if self._printed else []
                lines += [Line(did=item) for item in self.done.values()]
                write_atomically(self.path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines), mode=0o600)
                self._is_compact = True
                return
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("%s: what was run is not remembered: %s", self.path, error.strerror)


def _boot() -> str:
    return BOOT_ID.read_text().strip()
