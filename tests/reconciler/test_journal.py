"""The journal and the clockwork of retries."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flannel_core.journal import Entry, Journal
from flannel_core.objects import Route
from flannel_core.reconciler.retries import HoldOff, Retries, backoff
from flannel_core.target import Failure

ROUTE = Route("10.5.2.0/24", "flannel.1")


def test_the_journal_keeps_the_newest_entries() -> None:
    times = iter(range(100))
    journal = Journal(capacity=3, clock=lambda: next(times))
    for n in range(5):
        journal.add("put", f"route {n}", "a lease")
    assert journal.entries() == [Entry(n, "put", f"route {n}", "a lease") for n in (2, 3, 4)]


async def test_a_great_start_is_a_few_lines_that_count_everything(world: Any) -> None:
    await world.settled(*range(2, 202))
    entries = world.journal.entries()
    assert len(entries) < 40
    assert sum(entry.count for entry in entries) == 2 + 3 * 200


@pytest.mark.parametrize("attempts", [1, 2, 7, 8, 9, 100, 10_000])
def test_backoff_stays_within_its_bounds(attempts: int) -> None:
    longest = min(60.0, 0.5 * 2 ** min(attempts - 1, 20))
    for seed in range(100):
        assert 0.8 * longest <= backoff(attempts, random.Random(seed)) <= longest


def test_only_a_first_failure_or_another_reason_is_news() -> None:
    retries = Retries(random.Random(1))
    assert retries.failed(ROUTE.identity, Failure(ROUTE, "down"), 0.0, None)
    assert not retries.failed(ROUTE.identity, Failure(ROUTE, "down"), 1.0, None)
    assert retries.failed(ROUTE.identity, Failure(ROUTE, "unreachable"), 2.0, None)
    retries.clear(ROUTE.identity)
    assert retries.failed(ROUTE.identity, Failure(ROUTE, "unreachable"), 3.0, None)


def test_five_repairs_in_a_minute_are_enough() -> None:
    hold_off = HoldOff()
    for at in (0.0, 20.0, 21.0, 22.0):
        hold_off.repaired(ROUTE.identity, at)
    assert hold_off.until(ROUTE.identity, 23.0) is None
    hold_off.repaired(ROUTE.identity, 23.0)
    assert hold_off.until(ROUTE.identity, 23.0) == 60.0
    assert hold_off.until(ROUTE.identity, 60.0) is None
    hold_off.repaired(ROUTE.identity, 60.0)
    assert hold_off.until(ROUTE.identity, 60.0) == 80.0


def test_repairs_of_long_ago_are_forgotten() -> None:
    hold_off = HoldOff()
    hold_off.repaired(ROUTE.identity, 0.0)
    hold_off.forget_old(59.0)
    assert len(hold_off) == 1
    hold_off.forget_old(60.0)
    assert len(hold_off) == 0
