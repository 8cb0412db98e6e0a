"""One pass: what is written, in which order, and what is left alone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from flannel_core.objects import Address, Link, OtherLink, Route, Sysctl, Vxlan
from flannel_core.target import Failure


async def test_the_first_pass_makes_everything_in_the_order_of_its_stages(world: Any) -> None:
    settings = world.sysctl_target()
    world.start(settings)
    world.want_peer(2)
    world.reconciler.want("local", [world.address, world.sysctl, world.link], "this host")
    order: list[str] = []
    world.target.during_write = lambda: order.append(world.target.batches[-1][0][0].kind)
    settings.during_write = lambda: order.append("sysctl")
    await world.reconciler.settle()
    assert order == ["link", "sysctl", "address", "neighbour", "route"]
    assert world.target.has(world.link, world.address, *world.peer(2))
    assert world.reconciler.writes == 6


async def test_each_stage_is_one_batch(world: Any) -> None:
    world.want_local()
    for n in range(2, 50):
        world.want_peer(n)
    await world.reconciler.settle()
    assert [len(puts) for puts, _ in world.target.batches] == [1, 1, 96, 48]


async def test_a_restart_on_an_unchanged_host_writes_nothing(world: Any) -> None:
    await world.settled(2, 3)
    world.start()
    world.want_local()
    world.want_peer(2)
    world.want_peer(3)
    world.reconciler.pruning = True
    await world.reconciler.settle()
    assert (world.reconciler.writes, world.target.batches) == (0, [])
    assert world.reconciler.state("peer 2").tried


async def test_a_second_pass_reads_and_writes_nothing(world: Any) -> None:
    await world.settled(2)
    await world.reconciler.settle()
    assert (world.target.reads, world.target.batches) == ([], [])


async def test_a_changed_peer_costs_its_own_change_only(world: Any) -> None:
    await world.settled(2, 3)
    neighbour, fdb, _ = world.peer(2)
    moved = world.route(2, via="10.5.99.0")
    world.reconciler.want("peer 2", [neighbour, fdb, moved], "lease 10.5.2.0-24 revision 7")
    await world.reconciler.settle()
    assert world.target.batches == [([moved], [])]
    assert world.journal.entries()[-1].action == "change"
    assert world.journal.entries()[-1].cause == "lease 10.5.2.0-24 revision 7"


async def test_a_device_that_has_to_be_made_again_gets_everything_back_in_the_same_pass(world: Any) -> None:
    await world.settled(2, 3)
    again = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1", port=4789), 1450)
    world.reconciler.want("local", [again, world.address], "this host")
    await world.reconciler.settle()
    assert world.target.has(again, world.address, *world.peer(2), *world.peer(3))
    assert world.reconciler.repairs == 0


async def test_a_device_changed_in_place_keeps_what_lies_on_it(world: Any) -> None:
    await world.settled(2)
    smaller = Link("flannel.1", world.link.info, 1400)
    world.reconciler.want("local", [smaller, world.address], "this host")
    await world.reconciler.settle()
    assert world.target.batches == [([smaller], [])]
    assert world.target.reads == [frozenset({"flannel.1"})]


async def test_a_setting_that_vanished_with_its_device_follows_in_the_same_pass(world: Any) -> None:
    settings = world.sysctl_target()
    world.start(settings)
    world.reconciler.want("settings", [world.sysctl], "this host")
    await world.settled(2)
    again = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1", port=4789), 1450)

    def once() -> None:
        settings.objects.clear()
        world.target.during_write = lambda: None

    world.target.during_write = once
    world.reconciler.want("local", [again, world.address], "this host")
    await world.reconciler.settle()
    assert settings.has(world.sysctl)


async def test_a_device_that_the_kernel_makes_otherwise_is_named_and_not_written_again_at_once(world: Any) -> None:
    world.target.kept_as[world.link.identity] = Link("flannel.1", world.link.info, 1430)
    world.want_local()
    world.want_peer(2)
    await world.reconciler.settle()
    await world.reconciler.settle()
    assert [f.reason for f in world.reconciler.failures()] == ["it was written, but mtu is 1430 instead of 1450"]
    assert len([item for _, item in world.target.attempts if item == world.link]) == 1
    assert world.target.has(*world.peer(2))


async def test_what_lies_on_a_missing_device_waits_for_it_and_says_so(world: Any) -> None:
    world.target.broken[world.link.identity] = "Operation not supported"
    world.want_local()
    world.want_peer(2)
    await world.reconciler.settle()
    state = world.reconciler.state("peer 2")
    assert state.tried
    assert {f.reason for f in state.failures} == {"flannel.1 has to be made first: Operation not supported"}
    assert world.reconciler.retry_in(world.route(2).identity) is None
    assert world.target.batches == [([world.link], [])]
    world.target.broken.clear()
    await asyncio.sleep(1)
    await world.reconciler.settle()
    assert world.reconciler.failures() == []
    assert world.target.has(*world.peer(2))


async def test_what_waits_for_a_device_follows_when_somebody_else_makes_it(world: Any) -> None:
    world.target.broken[world.link.identity] = "Operation not supported"
    world.want_local()
    await world.reconciler.settle()
    world.target.put(world.link, tell=False)
    world.reconciler.suspect()
    await world.reconciler.settle()
    assert world.target.has(world.link, world.address)
    assert world.reconciler.failures() == []


async def test_one_failing_object_holds_up_no_other(world: Any) -> None:
    world.target.broken[world.route(2).identity] = "Network is unreachable"
    world.want_local()
    world.want_peer(2)
    world.want_peer(3)
    await world.reconciler.settle()
    assert world.reconciler.state("peer 2").failures == (Failure(world.route(2), "Network is unreachable"),)
    assert world.reconciler.state("peer 3").failures == ()
    assert world.target.has(*world.peer(3), *world.peer(2)[:2])
    assert 0 < world.reconciler.retry_in(world.route(2).identity) <= 0.5


async def test_wanted_is_tried_only_after_a_pass(world: Any) -> None:
    world.want_local()
    assert not world.reconciler.state("local").tried
    await world.reconciler.settle()
    assert world.reconciler.state("local").tried
    world.reconciler.want("local", [world.link, Address("flannel.1", "10.5.9.0/32")], "this host")
    assert not world.reconciler.state("local").tried


async def test_nothing_is_removed_before_pruning_is_allowed(world: Any) -> None:
    await world.settled(2, 3)
    world.start()
    world.want_local()
    world.want_peer(2)
    await world.reconciler.settle()
    assert world.target.has(*world.peer(3))
    world.reconciler.pruning = True
    await world.reconciler.settle()
    assert world.target.has(world.link, world.address, *world.peer(2))
    assert not any(world.target.has(item) for item in world.peer(3))
    assert world.journal.entries()[-1].cause == "nothing wants it any more"


async def test_removals_come_after_puts_and_go_down_the_stages(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    world.reconciler.unwant("peer 2")
    world.reconciler.unwant("local")
    new = Link("flannel.2", Vxlan(2, "eth0", "192.0.2.1"), 1450)
    world.owned.record(devices=["flannel.2"])
    world.reconciler.want("other", [new], "this host")
    await world.reconciler.settle()
    puts = [batch[0][0].kind for batch in world.target.batches if batch[0]]
    removed = [item.kind for batch in world.target.batches for item in batch[1]]
    assert puts == ["link"]
    assert removed == ["route", "neighbour", "fdb", "address", "link"]
    assert all(not batch[1] for batch in world.target.batches[: len(puts)])


async def test_a_new_device_takes_the_vni_of_the_old_one_in_one_pass(world: Any) -> None:
    await world.settled(2)
    world.reconciler.pruning = True
    new = Link("flannel.new", Vxlan(1, "eth0", "192.0.2.1"), 1450)
    world.owned.record(devices=["flannel.new"])
    address, route = Address("flannel.new", "10.5.1.0/32"), Route("10.5.2.0/24", "flannel.new")
    world.reconciler.want("local", [new, address], "this host")
    world.reconciler.want("peer 2", [route], "lease 10.5.2.0-24 revision 2")
    await world.reconciler.settle()
    assert world.reconciler.failures() == []
    assert list(world.target.objects.values()) == [new, address, route]
    assert "failed" not in dict(world.actions())


async def test_what_could_not_be_removed_is_named_though_other_things_went_on(world: Any) -> None:
    await world.settled(2, 3, 4)
    world.reconciler.pruning = True
    world.target.broken = {world.route(n).identity: "Operation not permitted" for n in (2, 9)}
    world.reconciler.unwant("peer 2")
    world.reconciler.unwant("peer 3")
    world.want_peer(9)
    await world.reconciler.settle()
    assert {f.object for f in world.reconciler.failures()} == {world.route(2), world.route(9)}
    assert 0 < world.reconciler.retry_in(world.route(2).identity) <= 0.5
    assert not world.target.has(world.route(3))
    world.target.broken.clear()
    await asyncio.sleep(1)
    await world.reconciler.settle()
    assert world.reconciler.failures() == []
    assert not world.target.has(world.route(2))


async def test_a_device_wanted_otherwise_while_it_is_written_is_made_so_by_the_next_pass(world: Any) -> None:
    smaller = Link("flannel.1", world.link.info, 1400)

    def once() -> None:
        world.target.during_write = lambda: None
        world.reconciler.want("local", [smaller, world.address], "this host")

    world.target.during_write = once
    world.want_local()
    await world.reconciler.settle()
    await world.reconciler.settle()
    assert world.target.has(smaller, world.address)
    assert world.reconciler.failures() == []
    assert world.reconciler.state("local").tried


@pytest.mark.parametrize(
    "bystander",
    [
        Link("flannel.1", OtherLink("bridge"), 1500),
        Link("flannel.77", Vxlan(77, "eth0", "192.0.2.1"), 1450),
        Sysctl("net/ipv4/ip_forward", "1"),
    ],
    ids=["a device of another type", "a device that is not on record", "a setting"],
)
async def test_what_is_not_ours_to_remove_stays(world: Any, bystander: Any) -> None:
    settings = world.sysctl_target()
    world.start(settings)
    place = settings if isinstance(bystander, Sysctl) else world.target
    place.put(bystander, tell=False)
    world.reconciler.pruning = True
    await world.reconciler.settle()
    assert place.has(bystander)
    assert world.reconciler.writes == 0


async def test_a_device_of_our_name_and_another_type_is_in_the_way(world: Any) -> None:
    bridge = Link("flannel.1", OtherLink("bridge"), 1500)
    world.target.put(bridge, tell=False)
    world.want_local()
    world.reconciler.pruning = True
    await world.reconciler.settle()
    assert world.target.has(bridge)
    failures = {f.object: f for f in world.reconciler.failures()}
    assert failures[world.link].foreign
    assert failures[world.address].reason == "flannel.1 has to be made first: File exists"


async def test_an_owner_that_comes_and_goes_within_a_pass_leaves_nothing(world: Any) -> None:
    await world.settled()
    world.reconciler.pruning = True
    world.target.during_write = lambda: world.reconciler.unwant("peer 2")
    world.want_peer(2)
    await world.reconciler.settle()
    world.target.during_write = lambda: None
    await world.reconciler.settle()
    assert list(world.target.objects.values()) == [world.link, world.address]


async def test_what_is_wanted_while_a_pass_writes_is_done_by_the_next(world: Any) -> None:
    moved = world.route(2, via="10.5.99.0")
    await world.settled()
    world.target.during_write = lambda: world.reconciler.want("peer 2", [*world.peer(2)[:2], moved], "revision 2")
    world.want_peer(2)
    await world.reconciler.settle()
    await world.reconciler.settle()
    assert world.target.has(moved)
    assert world.reconciler.state("peer 2").tried


async def test_a_pass_cancelled_in_the_middle_of_a_write_is_made_good(world: Any) -> None:
    await world.settled()
    world.want_peer(2)
    world.target.write_gate = asyncio.Event()
    interrupted = asyncio.create_task(world.reconciler.settle())
    await asyncio.sleep(1)
    interrupted.cancel()
    await asyncio.gather(interrupted, return_exceptions=True)
    world.target.write_gate = None
    await world.reconciler.settle()
    assert world.target.has(*world.peer(2))
    assert world.reconciler.failures() == []


async def test_an_object_of_a_kind_that_no_target_holds_is_named(world: Any) -> None:
    world.reconciler.want("local", [world.link, Sysctl("net/ipv4/ip_forward", "1")], "this host")
    await world.reconciler.settle()
    assert [f.reason for f in world.reconciler.failures()] == ["no target of this agent holds sysctl objects"]
    assert world.target.has(world.link)


def test_two_targets_for_one_kind_are_a_mistake_of_the_program(world: Any) -> None:
    with pytest.raises(ValueError, match="both hold"):
        world.start(world.sysctl_target(), world.sysctl_target())


async def test_a_great_batch_is_told_in_a_few_lines(world: Any) -> None:
    world.want_local()
    for n in range(2, 202):
        world.want_peer(n)
    await world.reconciler.settle()
    assert ("put", "390 more objects") in world.actions()
    assert len(world.actions()) < 40


async def test_fifteen_thousand_objects_are_compared_in_well_under_a_tenth_of_a_second(world: Any) -> None:
    world.want_local()
    wanted = {
        n: [
            world.peer(n)[0],
            world.peer(n)[1],
            Route(f"10.{n >> 8}.{n & 255}.0/24", "flannel.1", gateway=f"10.{n >> 8}.{n & 255}.0", onlink=True),
        ]
        for n in range(5000)
    }
    for n, objects in wanted.items():
        world.reconciler.want(f"peer {n}", objects, f"lease {n}")
    await world.reconciler.settle()
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        world.reconciler.suspect()
        await world.reconciler.settle()
        best = min(best, time.process_time() - began)
    assert best < 0.1


async def test_removals_that_are_allowed_during_a_pass_are_made_in_the_next(world: Any) -> None:
    await world.settled(2, 3)
    world.start()
    world.want_local()
    world.want_peer(2)
    world.want_peer(4)

    def allow() -> None:
        world.reconciler.pruning = True

    world.target.during_write = allow
    await world.reconciler.settle()
    await world.reconciler.settle()
    assert world.target.has(*world.peer(2), *world.peer(4))
    assert not any(world.target.has(item) for item in world.peer(3))
