"""``run``: what changes behind our back, what fails, and what never ends."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from flannel_core.objects import Route
from flannel_core.target import Changed, Target, TargetUnavailable, Unknown


async def test_a_deleted_route_comes_back_within_milliseconds(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        world.target.lose(world.route(2), by="netlink port 4711")
        await asyncio.sleep(0.01)
        assert world.target.has(world.route(2))
    entry = world.journal.entries()[-1]
    assert (entry.action, entry.object) == ("repair", world.route(2).describe())
    assert (entry.cause, entry.by) == ("lease 10.5.2.0-24 revision 1", "netlink port 4711")
    assert world.reconciler.repairs == 1
    assert world.target.reads == []


async def test_who_did_it_is_who_was_named_the_first_time_it_was_said(world: Any) -> None:
    await world.settled(2)
    neighbour = world.peer(2)[0]
    async with world.running():
        world.target.lose(neighbour, by="ip (pid 4711)")
        world.target.tell(Changed(neighbour.identity, None))  # the kernel itself, once more
        await asyncio.sleep(0.01)
        assert world.target.has(neighbour)
    entry = world.journal.entries()[-1]
    assert (entry.action, entry.object, entry.by) == ("repair", neighbour.describe(), "ip (pid 4711)")
    assert world.journal.tally.repairs == {"neighbour": 1}
    assert sum(world.journal.tally.passes.counts) == 3  # settled, the first of the run, the repair


async def test_a_changed_object_is_set_right(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        world.target.put(world.route(2, via="10.5.66.0"))
        await asyncio.sleep(0.01)
        assert world.target.has(world.route(2))
    assert world.actions()[-1] == ("repair", world.route(2).describe())


async def test_what_somebody_puts_on_our_device_is_removed(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    async with world.running():
        world.target.put(world.route(9))
        await asyncio.sleep(0.01)
        assert not world.target.has(world.route(9))


async def test_a_deleted_device_comes_back_with_all_that_lay_on_it(world: Any) -> None:
    await world.settled(2, 3)
    async with world.running():
        world.target.lose(world.link)
        await asyncio.sleep(0.01)
        assert world.target.has(world.link, world.address, *world.peer(2), *world.peer(3))
    assert world.reconciler.repairs == 8
    assert world.target.reads[0] == frozenset({"flannel.1"})


async def test_a_device_told_gone_by_name_is_read_with_all_that_lay_on_it(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        world.target.lose(world.link, tell=False)
        world.target.tell(Changed(world.link.identity, None))
        await asyncio.sleep(0.01)
        assert world.target.has(world.link, world.address, *world.peer(2))


async def test_news_that_is_none_costs_nothing(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        await asyncio.sleep(0.01)
        world.target.tell(Changed(world.route(2).identity, world.route(2)))
        world.target.tell(Changed(("route", "unheard", "of"), None))
        await asyncio.sleep(0.01)
        assert not world.reconciler._reader.heard
    assert (world.target.reads, world.target.batches) == ([], [])


async def test_a_burst_is_one_pass(world: Any) -> None:
    await world.settled(*range(2, 52))
    async with world.running():
        for n in range(2, 52):
            world.target.lose(world.route(n))
        await asyncio.sleep(0.01)
    assert [len(puts) for puts, _ in world.target.batches] == [50]


async def test_an_event_during_a_write_is_not_lost(world: Any) -> None:
    await world.settled()

    def once() -> None:
        if world.target.has(world.route(2)):
            world.target.during_write = lambda: None
            world.target.lose(world.route(2))

    world.target.during_write = once
    async with world.running():
        world.want_peer(2)
        await asyncio.sleep(0.1)
        assert world.target.has(world.route(2))


async def test_late_news_of_our_own_writes_changes_nothing(world: Any) -> None:
    await world.settled(2)
    route = world.route(2)
    async with world.running():
        world.target.tell(Changed(route.identity, None))
        world.target.tell(Changed(route.identity, route))
        await asyncio.sleep(0.01)
    assert (world.reconciler.repairs, world.target.batches) == (0, [])


async def test_what_vanished_in_silence_is_found_by_the_slow_full_read(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        world.target.lose(world.route(2), tell=False)
        await asyncio.sleep(50)
        assert not world.target.has(world.route(2))
        await asyncio.sleep(17)
        assert world.target.has(world.route(2))
    assert world.target.reads == [None]


async def test_a_doubtful_device_is_read_and_nothing_else(world: Any) -> None:
    world.reconciler.want("other", [world.plain_route(7)], "a lease")
    await world.settled(2)
    async with world.running():
        world.target.lose(world.route(2), world.plain_route(7), tell=False)
        world.target.tell(Unknown(frozenset({"eth0"})))
        await asyncio.sleep(0.01)
        assert world.target.reads == [frozenset({"eth0"})]
        assert world.target.has(world.plain_route(7))
        assert not world.target.has(world.route(2))


async def test_a_target_that_lost_track_is_read_in_full(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        world.target.lose(world.route(2), tell=False)
        world.target.tell(Unknown(None, "ENOBUFS"))
        await asyncio.sleep(0.01)
        assert world.target.has(world.route(2))


async def test_a_target_that_cannot_tell_is_polled(world: Any) -> None:
    settings = world.sysctl_target()
    world.start(settings)
    world.reconciler.want("settings", [world.sysctl], "this host")
    await world.settled()
    async with world.running():
        settings.lose(world.sysctl, tell=False)
        await asyncio.sleep(2.3)
        assert settings.has(world.sysctl)
    assert (settings.watches, world.target.watches) == (0, 1)


async def test_an_event_on_a_device_does_not_disturb_the_settings_of_it(world: Any) -> None:
    settings = world.sysctl_target()
    world.start(settings)
    world.reconciler.want("settings", [world.sysctl], "this host")
    await world.settled()
    async with world.running():
        world.target.tell(Unknown(frozenset({"flannel.1"})))
        await asyncio.sleep(0.1)
    assert world.reconciler.writes == 3


async def test_what_fails_is_tried_again_ever_more_rarely_but_at_least_once_a_minute(world: Any) -> None:
    world.target.broken[world.route(2).identity] = "Network is unreachable"
    world.want_local()
    world.want_peer(2)
    async with world.running():
        await asyncio.sleep(300)
        times = [at for at, item in world.target.attempts if item == world.route(2)]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        for gap, longest in zip(gaps, (0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60), strict=False):
            assert 0.8 * longest - 0.3 <= gap <= longest
        assert len(gaps) >= 9
        world.target.broken.clear()
        await asyncio.sleep(60)
        assert world.target.has(world.route(2))
    assert [action for action, text in world.actions() if text == world.route(2).describe()] == ["failed", "put"]


async def test_a_thousand_failures_are_not_a_thousand_passes(world: Any) -> None:
    world.want_local()
    for n in range(1000):
        route = Route(f"10.{n >> 8}.{n & 255}.0/24", "eth0", gateway="192.0.2.2")
        world.target.broken[route.identity] = "Network is unreachable"
        world.reconciler.want(f"peer {n}", [route], f"lease {n}")
    async with world.running():
        await asyncio.sleep(60)
    assert len(world.target.batches) < 150
    assert len(world.target.attempts) < 10_000


async def test_a_foreign_route_is_named_left_alone_and_replaced_as_soon_as_it_goes(world: Any) -> None:
    route = world.route(2)
    world.target.foreign[route.identity] = route
    world.want_local()
    world.want_peer(2)
    async with world.running():
        await asyncio.sleep(100)
        assert world.reconciler.state("peer 2").failures[0].foreign
        assert world.target.has(*world.peer(2)[:2])
        del world.target.foreign[route.identity]
        world.target.tell(Changed(route.identity, None))
        await asyncio.sleep(0.01)
        assert world.target.has(route)
    assert world.reconciler.failures() == []


async def test_what_failed_on_a_device_is_tried_again_as_soon_as_something_happens_to_it(world: Any) -> None:
    route = world.plain_route(7)
    world.target.broken[route.identity] = "Network is down"
    world.reconciler.want("other", [route], "a lease")
    async with world.running():
        await asyncio.sleep(100)
        world.target.broken.clear()
        world.target.tell(Unknown(frozenset({"eth0"}), "link up"))
        await asyncio.sleep(0.01)
        assert world.target.has(route)


async def test_an_object_that_something_else_keeps_changing_is_held_off(world: Any) -> None:
    await world.settled(2, 3)
    async with world.running():
        for _ in range(100):
            world.target.lose(world.route(2))
            await asyncio.sleep(0.1)
        assert world.reconciler.repairs == 5
        (failure,) = world.reconciler.state("peer 2").failures
        assert failure.reason == "something else keeps changing it"
        assert 0 < world.reconciler.retry_in(world.route(2).identity) <= 60
        world.target.lose(world.route(3))
        await asyncio.sleep(0.1)
        assert world.target.has(world.route(3))
        await asyncio.sleep(61)
        assert world.target.has(world.route(2))
        assert world.reconciler.failures() == []


async def test_an_unwanted_object_that_keeps_coming_back_is_held_off_too(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    async with world.running():
        for _ in range(100):
            world.target.put(world.route(9))
            await asyncio.sleep(0.1)
        assert len(world.target.batches) == 5
        await asyncio.sleep(61)
        assert not world.target.has(world.route(9))


async def test_a_lease_that_comes_and_goes_is_no_fight(world: Any) -> None:
    await world.settled()
    world.reconciler.pruning = True
    async with world.running():
        for _ in range(20):
            world.want_peer(2)
            await asyncio.sleep(0.1)
            assert world.target.has(world.route(2))
            world.reconciler.unwant("peer 2")
            await asyncio.sleep(0.1)
            assert not world.target.has(world.route(2))
    assert "failed" not in dict(world.actions())


async def test_an_object_set_right_by_others_while_it_is_held_off_is_no_failure(world: Any) -> None:
    await world.settled(2)
    async with world.running():
        for _ in range(10):
            world.target.lose(world.route(2))
            await asyncio.sleep(0.1)
        assert world.reconciler.failures()
        world.target.put(world.route(2))
        await asyncio.sleep(0.1)
        assert world.reconciler.failures() == []


@pytest.mark.parametrize("death", [RuntimeError("socket closed"), None], ids=["an error", "an end"])
async def test_a_watch_that_dies_is_opened_again_and_everything_read(world: Any, death: Exception | None) -> None:
    await world.settled(2)
    async with world.running():
        await asyncio.sleep(0.01)
        world.target.tell(death)
        await asyncio.sleep(0.01)
        world.target.lose(world.route(2), tell=False)
        await asyncio.sleep(0.6)
        assert world.target.has(world.route(2))
        world.target.lose(world.route(2))
        await asyncio.sleep(0.01)
        assert world.target.has(world.route(2))
    assert world.target.watches == 2


async def test_a_target_without_a_watch_is_not_asked_for_one(world: Any) -> None:
    class Mute(type(world.target)):  # type: ignore[misc]
        watch = Target.watch

    world.target = Mute()
    world.start()
    world.want_local()
    async with world.running():
        await asyncio.sleep(30)
    assert world.target.reads == [None, frozenset({"flannel.1"})]


async def test_a_target_that_cannot_be_read_is_named_and_holds_up_no_other(world: Any) -> None:
    settings = world.sysctl_target()
    settings.read_error = TargetUnavailable("the settings cannot be read: no /proc")
    world.start(settings)
    world.reconciler.want("settings", [world.sysctl], "this host")
    world.want_local()
    async with world.running():
        await asyncio.sleep(10)
        assert world.target.has(world.link, world.address)
        state = world.reconciler.state("settings")
        assert (state.tried, state.failures[0].reason) == (True, "the settings cannot be read: no /proc")
        assert state.failures == tuple(world.reconciler.failures())
        assert world.reconciler.retry_in(world.sysctl.identity) > 0
        assert settings.batches == []
        assert len(settings.reads) < 8
        settings.read_error = None
        await asyncio.sleep(20)
        assert settings.has(world.sysctl)
        assert world.reconciler.failures() == []
    assert [text for action, text in world.actions() if action == "failed"] == ["target settings"]


async def test_nothing_is_removed_from_a_target_that_cannot_be_read(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    async with world.running():
        world.target.read_error = TargetUnavailable("the kernel does not answer")
        world.target.tell(Unknown(None))
        await asyncio.sleep(0.1)
        world.reconciler.unwant("peer 2")
        await asyncio.sleep(10)
        assert world.target.has(*world.peer(2))
        world.target.read_error = None
        await asyncio.sleep(20)
        assert not world.target.has(world.route(2))


async def test_a_target_that_cannot_be_written_is_read_again_first(world: Any) -> None:
    await world.settled(2)
    world.target.write_error = OSError(105, "No buffer space available")
    async with world.running():
        world.want_peer(3)
        await asyncio.sleep(0.2)
        assert len(world.reconciler.state("peer 3").failures) == 3
        world.target.write_error = None
        await asyncio.sleep(5)
        assert world.target.has(*world.peer(3))
        assert world.reconciler.failures() == []


async def test_a_failing_object_and_nothing_else_to_do_is_no_busy_loop(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    world.target.broken[world.route(2).identity] = "Operation not permitted"
    async with world.running():
        world.reconciler.unwant("peer 2")
        await asyncio.sleep(10)
        world.reconciler.pruning = False
        passes = 0
        settle = world.reconciler.settle

        async def counted() -> None:
            nonlocal passes
            passes += 1
            await settle()

        world.reconciler.settle = counted
        await asyncio.sleep(3600)
        assert passes < 200
    assert world.reconciler.failures() == []


async def test_a_device_that_fails_noisily_is_not_tried_without_end(world: Any) -> None:
    world.target.broken[world.link.identity] = "Invalid argument"
    world.target.during_write = lambda: world.target.tell(Unknown(frozenset({"flannel.1"})))
    world.want_local()
    async with world.running():
        await asyncio.sleep(10)
    assert len(world.target.attempts) <= 22


async def test_what_became_ours_while_running_is_known_to_the_watch_and_read(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    async with world.running():
        await asyncio.sleep(0.01)
        world.owned.record(networks=["10.7.0.0/16"], devices=["flannel.7"])
        world.want_peer(3)
        await asyncio.sleep(0.01)
    assert "flannel.7" in world.target.scope.devices
    assert world.route(3).identity in world.target.scope.wanted
    assert None in world.target.reads
