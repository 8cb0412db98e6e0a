"""When to try again what failed, and when to stop fighting over an object that something else keeps changing. Pure.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection

import msgspec

from ..objects import Identity, Object
from ..target import Failure

FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0
TOGETHER = 0.25
"""What is due within this time is tried in one go, so that a thousand failures are not a thousand passes."""
REPAIRS = 5
WINDOW = 60.0
"""An object is put back at most REPAIRS times in any WINDOW seconds."""


def backoff(attempts: int, rng: random.Random) -> float:
    """Seconds to wait after that many failed attempts (1, 2, ...): doubling from FIRST_DELAY, a fifth of it by chance,
    never above LONGEST_DELAY."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts - 1, 16)) * rng.uniform(0.8, 1.0)


class Trouble(msgspec.Struct, gc=False):
    """A failure, how often it happened in a row, when last, and when it is tried again (infinity: after an event)."""

    failure: Failure
    attempts: int
    tried_at: float
    retry_at: float


class Retries:
    """What failed, each object by itself."""

    def __init__(self, rng: random.Random) -> None:
        self._troubles: dict[Identity, Trouble] = {}
        self._rng = rng

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._troubles

    def get(self, identity: Identity) -> Trouble | None:
        return self._troubles.get(identity)

    def failures(self) -> list[Failure]:
        return [trouble.failure for trouble in self._troubles.values()]

    def failed(self, identity: Identity, failure: Failure, now: float, retry_at: float | None) -> bool:
        """Remember ``failure``; ``retry_at`` None: by backoff. True if it is news: the first, or for another reason."""
        before = self._troubles.get(identity)
        attempts = before.attempts + 1 if before else 1
        if retry_at is None:
            retry_at = now + backoff(attempts, self._rng)
        self._troubles[identity] = Trouble(failure, attempts, now, retry_at)
        return before is None or before.failure.reason != failure.reason

    def clear(self, identity: Identity) -> None:
        self._troubles.pop(identity, None)

    def hasten(self, identity: Identity, now: float) -> None:
        """Try again soon, though not sooner after the last try than FIRST_DELAY: what made us think so may be the echo
        of that very try."""
        trouble = self._troubles[identity]
        trouble.retry_at = min(trouble.retry_at, max(now, trouble.tried_at + FIRST_DELAY))

    def on_devices(self, devices: Collection[str]) -> list[tuple[Identity, Object]]:
        """What failed on these devices."""
        if not devices:
            return []
        failed = ((identity, trouble.failure.object) for identity, trouble in self._troubles.items())
        return [(identity, item) for identity, item in failed if item.on_device in devices]

    def due(self, now: float) -> list[Identity]:
        return [identity for identity, trouble in self._troubles.items() if trouble.retry_at <= now + TOGETHER]

    def next_due(self) -> float:
        """When the next one is due; infinity if none is."""
        return min((trouble.retry_at for trouble in self._troubles.values()), default=math.inf)


class HoldOff:
    """Counts repairs: what was put back REPAIRS times within WINDOW has to wait until that is no longer so."""

    def __init__(self) -> None:
        self._repairs: dict[Identity, tuple[float, ...]] = {}

    def __len__(self) -> int:
        """How many objects were repaired lately."""
        return len(self._repairs)

    def repaired(self, identity: Identity, now: float) -> None:
        self._repairs[identity] = (*self._repairs.get(identity, ())[-REPAIRS + 1 :], now)

    def until(self, identity: Identity, now: float) -> float | None:
        """When it may be put back again; None: now."""
        times = self._repairs.get(identity, ())
        if len(times) < REPAIRS or times[0] + WINDOW <= now:
            return None
        return times[0] + WINDOW

    def forget(self, identity: Identity) -> None:
        """Something else is wanted there now: what happened before is no sign of a fight."""
        self._repairs.pop(identity, None)

    def forget_old(self, now: float) -> None:
        self._repairs = {identity: times for identity, times in self._repairs.items() if times[-1] + WINDOW > now}
