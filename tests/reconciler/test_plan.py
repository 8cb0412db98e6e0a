"""``plan``: what a pass would do, without doing it."""

from __future__ import annotations

from typing import Any

import pytest

from flannel_core.errors import FlannelError
from flannel_core.objects import Link, OtherLink, Vxlan
from flannel_core.reconciler.diff import NO_PRUNING, deviations
from flannel_core.target import TargetUnavailable


async def lines(world: Any) -> list[tuple[str, str, str, str | None]]:
    return [(c.action, c.object.describe(), c.cause, c.held) for c in await world.reconciler.plan()]


async def test_a_plan_names_each_change_in_order_with_its_cause(world: Any) -> None:
    world.want_peer(2, revision=7)
    world.want_local()
    cause = "lease 10.5.2.0-24 revision 7"
    neighbour, fdb, route = (item.describe() for item in world.peer(2))
    assert await lines(world) == [
        ("create", world.link.describe(), "this host", None),
        ("create", world.address.describe(), "this host", None),
        ("create", neighbour, cause, None),
        ("create", fdb, cause, None),
        ("create", route, cause, None),
    ]


async def test_a_plan_touches_nothing_here_or_there(world: Any) -> None:
    await world.settled(2)
    world.target.lose(world.route(2), tell=False)
    world.want_peer(3)
    first = await lines(world)
    assert first == await lines(world)
    assert (world.reconciler.writes, world.target.batches) == (5, [])
    assert not world.reconciler.state("peer 3").tried
    assert world.reconciler.repairs == 0


async def test_a_plan_does_what_it_says(world: Any) -> None:
    await world.settled(2, 3)
    world.start()
    world.reconciler.pruning = True
    again = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1", port=4789), 1450)
    world.reconciler.want("local", [again, world.address], "this host")
    world.want_peer(2)
    planned = [("remove" if c.action == "remove" else "put", c.object) for c in await world.reconciler.plan()]
    await world.reconciler.settle()
    puts = [("put", item) for puts, _ in world.target.batches for item in puts]
    removes = [("remove", item) for _, removes in world.target.batches for item in removes]
    # What lay on the device that is made again goes with it.
    assert puts == [change for change in planned if change[0] == "put"]
    assert set(removes) <= set(planned)


async def test_the_plan_of_a_settled_host_is_empty(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    await world.reconciler.settle()
    assert await lines(world) == []


async def test_a_change_shows_what_stands_there_now(world: Any) -> None:
    await world.settled(2)
    other = world.route(2, via="10.5.66.0")
    world.target.put(other, tell=False)
    (change,) = await world.reconciler.plan()
    assert (change.action, change.object, change.previous) == ("change", world.route(2), other)


async def test_removals_are_last_and_held_until_pruning_is_allowed(world: Any) -> None:
    await world.settled(2)
    world.reconciler.unwant("peer 2")
    world.want_peer(3)
    planned = await world.reconciler.plan()
    assert [c.action for c in planned] == ["create"] * 3 + ["remove"] * 3
    assert planned[3].object == world.route(2)
    assert {c.held for c in planned[3:]} == {NO_PRUNING}
    world.reconciler.pruning = True
    assert {c.held for c in await world.reconciler.plan()} == {None}


async def test_what_failed_is_planned_as_held_with_the_reason(world: Any) -> None:
    world.target.foreign[world.route(2).identity] = world.route(2)
    await world.settled()
    world.want_peer(2)
    await world.reconciler.settle()
    assert await lines(world) == [
        ("create", world.route(2).describe(), "lease 10.5.2.0-24 revision 1", "not ours"),
    ]


async def test_a_device_of_another_type_holds_its_place_in_the_plan(world: Any) -> None:
    world.target.put(Link("flannel.1", OtherLink("bridge"), 1500), tell=False)
    world.want_local()
    planned = await world.reconciler.plan()
    assert [(c.object, bool(c.held)) for c in planned] == [(world.link, True), (world.address, True)]
    assert "rename it or delete it" in (planned[0].held or "")


async def test_a_target_that_cannot_be_read_is_an_error_that_names_it(world: Any) -> None:
    world.target.read_error = TargetUnavailable("no answer")
    with pytest.raises(FlannelError, match="memory: no answer"):
        await world.reconciler.plan()


def test_deviations_name_the_fields_that_are_wanted_otherwise() -> None:
    want = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450)
    have = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.9", port=8472), 1430, mac="02:00:00:00:00:01")
    assert deviations(want, have) == "local is 192.0.2.9 instead of 192.0.2.1, mtu is 1430 instead of 1450"
