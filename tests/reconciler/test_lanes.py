"""Prompt and slow targets side by side."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from flannel_core.objects import Identity, Object
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.lanes import Lanes


class CloudRoute(Object, frozen=True):
    """What a cloud holds for this host."""

    kind: ClassVar[str] = "cloud route"

    table: str
    destination: str

    @property
    def identity(self) -> Identity:
        return (self.kind, self.table, self.destination)

    @property
    def record(self) -> str:
        return self.table


class Host:
    """A world whose reconciler has a cloud beside the kernel."""

    route = CloudRoute("rtb-1", "10.5.1.0/24")

    def __init__(self, world: Any) -> None:
        self.world = world
        self.kernel = world.target
        self.cloud = type(world.target)("cloud", {CloudRoute: 50}, poll_seconds=60.0)
        self.cloud.slow = True
        self.start()

    def start(self) -> None:
        self.owned = OwnedFile(self.world.directory / "owned.json")
        self.lanes = Lanes([self.kernel, self.cloud], self.owned, self.world.journal)

    def want(self, *objects: Object) -> None:
        records = self.lanes.records_of(objects)
        self.owned.record(["flannel.1"], ["10.5.0.0/16"], ["eth0"], records, {"cloudy": "{}"} if records else {})
        self.lanes.want("local", objects, "this host")

    def running(self) -> Any:
        return type(self.world.running())(self.lanes)


@pytest.fixture
def host(world: Any) -> Host:
    return Host(world)


async def test_a_repair_in_the_kernel_does_not_wait_for_a_cloud_that_hangs(host: Host) -> None:
    host.cloud.write_gate = asyncio.Event()
    host.want(host.world.link, host.world.address, host.route)
    async with host.running():
        await asyncio.sleep(1)
        assert host.kernel.has(host.world.link, host.world.address)
        assert not host.lanes.state("local").tried
        host.kernel.lose(host.world.address)
        await asyncio.sleep(1)
        assert host.kernel.has(host.world.address)
        host.cloud.write_gate.set()
        await asyncio.sleep(1)
        assert host.cloud.has(host.route)
        assert host.lanes.state("local").tried


async def test_one_pass_of_the_prompt_targets_leaves_the_slow_ones_alone(host: Host) -> None:
    host.want(host.world.link, host.route)
    await host.lanes.settle()
    assert host.kernel.has(host.world.link)
    assert host.cloud.reads == []
    await host.lanes.settle_all()
    assert host.cloud.has(host.route)
    assert host.lanes.writes == 2


async def test_a_cloud_that_does_not_answer_is_named_with_what_lives_there(host: Host) -> None:
    host.cloud.read_error = RuntimeError("503")
    host.want(host.world.link, host.route)
    await host.lanes.settle_all()
    (failure,) = host.lanes.state("local").failures
    assert failure.object == host.route
    assert "503" in failure.reason
    assert host.lanes.retry_in(host.route.identity) is not None
    assert host.kernel.has(host.world.link)


async def test_a_plan_covers_every_lane(host: Host) -> None:
    host.want(host.world.link, host.route)
    assert [change.object for change in await host.lanes.plan()] == [host.world.link, host.route]


async def test_what_is_no_longer_wanted_goes_from_its_lane(host: Host) -> None:
    host.want(host.world.link, host.route)
    await host.lanes.settle_all()
    host.lanes.pruning = True
    host.want(host.world.link)
    await host.lanes.settle_all()
    assert host.kernel.has(host.world.link)
    assert not host.cloud.has(host.route)


async def test_the_place_of_a_cloud_route_is_on_record_until_nothing_of_it_is_left_anywhere(host: Host) -> None:
    host.want(host.world.link, host.route)
    await host.lanes.settle_all()
    host.start()  # an agent of another backend, which is given the cloud to tidy up
    host.want(host.world.link)
    assert host.owned.owned.records == {"cloud": {"rtb-1"}}
    host.lanes.pruning = True
    host.cloud.broken[host.route.identity] = "403"
    await host.lanes.settle_all()
    assert host.owned.owned.records == {"cloud": {"rtb-1"}}, "its lane could not remove it"
    assert host.owned.owned.backends == {"cloudy": "{}"}
    host.cloud.broken.clear()
    async with host.running():
        await asyncio.sleep(150)
    assert not host.cloud.has(host.route)
    assert host.owned.owned.records == {}
    assert host.owned.owned.backends == {}


async def test_facts_come_with_what_an_owner_wants(host: Host) -> None:
    host.want(host.route)
    read = host.cloud.read

    async def read_with_facts(scope: Any) -> Any:
        return [type(actual)(actual.object, {"age": 3}) for actual in await read(scope)]

    host.cloud.read = read_with_facts
    await host.lanes.settle_all()
    host.lanes.suspect()
    await host.lanes.settle_all()
    assert host.lanes.state("local").facts == {"age": 3}


async def test_two_targets_that_hold_one_kind_are_refused_whatever_their_lanes(host: Host) -> None:
    other = type(host.cloud)("another cloud", {CloudRoute: 50})
    with pytest.raises(ValueError, match="both hold cloud route objects"):
        Lanes([host.kernel, host.cloud, other], host.owned, host.world.journal)
