"""When a lease is to be renewed."""

from __future__ import annotations

import math
import time


class RenewalTimer:
    """Goes off ``margin`` seconds before the expiry.

    Counted in seconds since the boot, the time in which the host slept among them: etcd's clock runs on meanwhile, and
    a wall clock that is set back must not make us late.
    """

    def __init__(self, margin: float) -> None:
        self.etcd_lease: int | None = None
        self._margin = margin
        self._due = math.inf

    def set(self, etcd_lease: int, expires: float | None) -> None:
        """``expires`` in Unix time; None: never."""
        self.etcd_lease = etcd_lease
        self._due = math.inf if expires is None else _since_boot() + expires - time.time() - self._margin

    def is_due(self) -> bool:
        return _since_boot() >= self._due


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
