"""What the agent counts while it runs, for the metrics and nothing else. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

PASS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. A repair of one route takes about a millisecond, a start among 10,000 peers about a second."""


class Durations:
    """How many took how long: ``counts`` has one number for each of ``bounds``, the greatest seconds that still count
    there, and one for what took longer."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Tally:
    """Since the start: ``repairs`` are objects put back, by kind, ``passes`` the reconciler's passes."""

    def __init__(self) -> None:
        self.repairs: Counter[str] = Counter()
        self.passes = Durations(PASS_BOUNDS)
