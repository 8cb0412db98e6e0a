"""What was done to this host, when, why and on whose account: the last of it, in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

Action = Literal["put", "change", "remove", "repair", "failed"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One line. ``time`` is Unix time in seconds, ``object`` what it was done to, ``cause`` what asked for it (a lease
    and its revision) or, of a failure, the reason. ``by`` names who made a repair necessary, as far as is known."""

    time: float
    action: Action
    object: str
    cause: str = ""
    by: str = ""


class Journal:
    """A ring: the newest ``capacity`` entries are kept."""

    def __init__(self, capacity: int = 1000, clock: Callable[[], float] = time.time) -> None:
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self._clock = clock

    def add(self, action: Action, object: str, cause: str = "", by: str = "") -> None:
        self._entries.append(Entry(self._clock(), action, object, cause, by))

    def entries(self) -> list[Entry]:
        """Oldest first."""
        return list(self._entries)
