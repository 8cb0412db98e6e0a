"""Whatever is wanted, lost, changed, refused and put in the way, in whatever order: in the end all is as wanted."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flannel_core.objects import Address, Identity, Link, Neighbour, Object, Route, Vxlan
from flannel_core.target import Changed

DEVICE = "flannel.1"
LINKS: list[Object] = [
    Link(DEVICE, Vxlan(1, "eth0", "192.0.2.1", port=8472), 1450),
    Link(DEVICE, Vxlan(1, "eth0", "192.0.2.1", port=8472), 1400),
    Link(DEVICE, Vxlan(1, "eth0", "192.0.2.1", port=4789), 1450),
]
OTHERS: list[Object] = [
    Address(DEVICE, "10.5.1.0/32"),
    *(Neighbour(DEVICE, "10.5.2.0", f"02:00:00:00:00:0{n}") for n in range(2)),
    *(Route("10.5.2.0/24", DEVICE, gateway=f"10.5.2.{n}", onlink=True) for n in range(2)),
    Route("10.5.2.0/24", "eth0", gateway="192.0.2.2"),
    Route("10.5.3.0/24", DEVICE, gateway="10.5.3.0", onlink=True),
    Route("10.5.4.0/24", "eth0", gateway="192.0.2.4"),
]

owners = st.sampled_from(["local", "peer 2", "peer 3"])
links, others = st.sampled_from(LINKS), st.sampled_from(OTHERS)
anything = st.one_of(links, others)
told = st.booleans()
steps = st.one_of(
    st.tuples(st.just("want"), owners, st.lists(anything, max_size=5)),
    st.tuples(st.just("unwant"), owners),
    st.tuples(st.just("lose"), anything, told),
    st.tuples(st.just("put"), anything, told),
    st.tuples(st.just("refuse"), anything),
    st.tuples(st.just("block"), st.sampled_from([item for item in OTHERS if isinstance(item, Route)])),
    st.tuples(st.just("unblock"), st.sampled_from([item for item in OTHERS if isinstance(item, Route)])),
    st.tuples(st.just("prune"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 20.0])),
    st.tuples(st.just("settle")),
    st.tuples(st.just("restart")),
)


class Model:
    """What should be wanted, said as simply as possible: for each identity the owners in the order they came."""

    def __init__(self) -> None:
        self.claims: dict[Identity, dict[str, Object]] = {}

    def want(self, owner: str, objects: list[Object]) -> None:
        wanted: dict[Identity, Object] = {}
        for item in objects:
            wanted.setdefault(item.identity, item)
        for identity, claims in self.claims.items():
            if identity not in wanted:
                claims.pop(owner, None)
        for identity, item in wanted.items():
            self.claims.setdefault(identity, {})[owner] = item

    def wanted(self) -> dict[Identity, Object]:
        return {identity: next(iter(claims.values())) for identity, claims in self.claims.items() if claims}


async def apply(world: Any, model: Model, step: tuple[Any, ...]) -> None:
    target = world.target
    match step:
        case ("want", owner, objects):
            model.want(owner, objects)
            world.reconciler.want(owner, objects, "a test")
        case ("unwant", owner):
            model.want(owner, [])
            world.reconciler.unwant(owner)
        case ("lose", item, tell):
            target.lose(item, tell=tell)
        case ("put", item, tell):
            device_there = item.on_device == "eth0" or ("link", DEVICE) in target.objects
            if item.identity not in target.foreign and (device_there or isinstance(item, Link)):
                target.put(item, tell=tell)
        case ("refuse", item):
            target.broken[item.identity] = "Invalid argument"
        case ("block", item):
            target.objects.pop(item.identity, None)
            target.foreign[item.identity] = item
            target.tell(Changed(item.identity, None))
        case ("unblock", item):
            if target.foreign.pop(item.identity, None):
                target.tell(Changed(item.identity, None))
        case ("prune", allowed):
            world.reconciler.pruning = allowed
        case ("wait", seconds):
            await asyncio.sleep(seconds)
        case ("settle",):
            await world.reconciler.settle()
        case ("restart",):
            await world.reconciler.close()
            world.start()
            for owner in ("local", "peer 2", "peer 3"):
                objects = [claims[owner] for claims in model.claims.values() if owner in claims]
                world.reconciler.want(owner, objects, "a test")
            # Who came first is not remembered over a restart.
            for identity, claims in model.claims.items():
                model.claims[identity] = {owner: claims[owner] for owner in sorted(claims)}


@given(st.lists(steps, max_size=30))
@settings(max_examples=300, deadline=None)
def test_all_is_as_wanted_in_the_end_and_nothing_foreign_was_touched(
    scenario: Any, script: list[tuple[Any, ...]]
) -> None:
    async def play(world: Any) -> None:
        model, target = Model(), world.target
        for step in script:
            await apply(world, model, step)
        foreign = dict(target.foreign)
        target.broken.clear()
        for _ in range(4):  # what was held off or backed off a device, then what lies on it
            await asyncio.sleep(61)
            world.reconciler.suspect()
            await world.reconciler.settle()

        wanted = model.wanted()
        device_there = ("link", DEVICE) in target.objects
        for identity, item in wanted.items():
            possible = identity not in foreign and (item.on_device == "eth0" or isinstance(item, Link) or device_there)
            assert (target.objects.get(identity) == item) == possible, item
        if world.reconciler.pruning:
            assert set(target.objects) <= set(wanted)
        assert target.foreign == foreign
        assert all(world.reconciler.state(owner).tried for owner in world.reconciler.owners())

        writes = world.reconciler.writes
        world.reconciler.suspect()
        await world.reconciler.settle()
        assert world.reconciler.writes == writes
        assert [c for c in await world.reconciler.plan() if c.held is None] == []
        await world.reconciler.close()

    scenario(play)
