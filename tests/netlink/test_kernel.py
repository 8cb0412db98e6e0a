"""The kernel target on a real kernel, in namespaces: what it reads, writes and leaves alone."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from flannel_core.netlink import tables
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Address, FdbEntry, Link, Neighbour, Object, OtherLink, Route, Vxlan
from flannel_core.target import Failure, Put, Scope, TargetUnavailable

DEVICE = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450, mac="8a:00:00:00:00:01", txqueuelen=0)
DEVICE6 = Link("flannel-v6.1", Vxlan(1, "eth0", "2001:db8::1"), 1430, mac="8a:00:00:00:00:06")
PEER = [
    Neighbour("flannel.1", "10.5.2.0", "8a:00:00:00:00:02"),
    FdbEntry("flannel.1", "8a:00:00:00:00:02", "192.0.2.2"),
    Route("10.5.2.0/24", "flannel.1", gateway="10.5.2.0", onlink=True),
]
PEER6 = [
    Neighbour("flannel-v6.1", "fc00:0:0:2::", "8a:00:00:00:00:62"),
    FdbEntry("flannel-v6.1", "8a:00:00:00:00:62", "2001:db8::2"),
    Route("fc00:0:0:2::/64", "flannel-v6.1", gateway="fc00:0:0:2::", onlink=True),
]
EVERYTHING = [
    DEVICE,
    DEVICE6,
    Address("flannel.1", "10.5.1.0/32"),
    Address("flannel-v6.1", "fc00:0:0:1::/128"),
    *PEER,
    *PEER6,
]
SCOPE = Scope(
    devices=frozenset({"flannel.1", "flannel-v6.1"}),
    networks=("10.5.0.0/16", "fc00::/48"),
    external=frozenset({"eth0"}),
)
HOST_GW = Route("10.5.3.0/24", "eth0", gateway="192.0.2.3")


@asynccontextmanager
async def opened() -> AsyncIterator[KernelTarget]:
    target = KernelTarget()
    await target.open()
    try:
        yield target
    finally:
        await target.close()


def write(host: Any, puts: list[Put] | list[Object], removes: list[Object] | None = None) -> list[Failure]:
    """Write in a namespace; objects are created. The stages one after the other, as the reconciler does."""

    async def written() -> list[Failure]:
        async with opened() as target:
            failures: list[Failure] = []
            asked = [item if isinstance(item, Put) else Put(item) for item in puts]
            for stage in sorted(set(target.stages.values())):
                batch = [put for put in asked if target.stages[type(put.object)] == stage]
                failures += await target.write(batch, [])
            failures += await target.write([], removes or [])
            return failures

    return host.run(written())


def read(host: Any, scope: Scope = SCOPE) -> dict[object, Object]:
    async def found() -> dict[object, Object]:
        async with opened() as target:
            return {actual.object.identity: actual.object for actual in await target.read(scope)}

    return host.run(found())


def index_of(host: Any, name: str) -> int:
    return next(row.index for row in host.call(tables.read_links) if row.name == name)


def test_what_is_written_is_what_is_read(host: Any) -> None:
    assert write(host, EVERYTHING) == []
    found = read(host)
    assert set(found) == {item.identity for item in EVERYTHING}
    for item in EVERYTHING:
        assert item.satisfied_by(found[item.identity]), (item, found[item.identity])
        if not isinstance(item, Link):
            assert found[item.identity] == item


@pytest.mark.parametrize(
    "item",
    [
        Route("10.5.4.0/24", "eth0", gateway="192.0.2.9", onlink=False, source="192.0.2.1", metric=77, mtu=1400, tos=4),
        Route("10.5.4.0/24", "eth0", scope=253, table=5000),
        Route("fc00:0:0:4::/64", "eth0", gateway="2001:db8::9", source="2001:db8::1", metric=77, mtu=1400),
        Route("fc00:0:0:4::/64", "eth0", table=5000),
        Route("10.5.0.0/16", None, type="throw"),
        Route("10.5.4.0/24", None, type="blackhole"),
        Route("fc00:0:0:4::/64", None, type="unreachable"),
        Route("fc00:0:0:4::/64", None, type="blackhole", metric=4000),
        Route("10.5.4.0/24", "eth0", gateway="203.0.113.7", onlink=True),
        Route("10.5.4.0/24", "eth0", gateway="fe80::1"),
    ],
    ids=Route.describe,
)
def test_every_kind_of_route_comes_back_as_it_was_written(host: Any, item: Route) -> None:
    assert write(host, [item]) == []
    assert read(host) == {item.identity: item}
    assert write(host, [Put(item, previous=item)]) == []
    assert write(host, [], [item]) == []
    assert read(host) == {}


def test_everything_can_be_removed_twice(host: Any) -> None:
    assert write(host, EVERYTHING) == []
    for _ in range(2):
        assert write(host, [], [*reversed(EVERYTHING)]) == []
        assert read(host) == {}
    things = [item for item in EVERYTHING if not isinstance(item, Link)]
    assert write(host, [DEVICE, DEVICE6], [*things]) == []


def test_what_others_have_is_not_ours(host: Any) -> None:
    assert write(host, EVERYTHING) == []
    before = read(host)
    host.ip("address add 10.5.9.1/24 dev eth0")  # inside Network, but not on a device of ours
    host.ip("address add 198.51.100.1/24 dev flannel.1")  # outside Network, and no /32
    host.ip("route add 10.5.7.0/24 via 192.0.2.7 dev eth0 proto static")
    host.ip("route add 203.0.113.0/24 via 192.0.2.7 dev eth0 proto 76")  # our number, outside Network
    host.ip("neighbour add 192.0.2.7 lladdr 8a:00:00:00:00:77 dev eth0 nud permanent")
    host.ip("neighbour add 10.5.7.0 lladdr 8a:00:00:00:00:77 dev flannel.1 nud stale")
    host.command("bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.7 self permanent")
    host.command("bridge fdb add 8a:00:00:00:00:78 dev flannel.1 dst 192.0.2.7 self dynamic")
    assert read(host) == before


def test_what_a_bridge_knows_of_our_device_is_the_bridges(host: Any) -> None:
    write(host, [DEVICE, *PEER[1:2]])
    host.ip("link add br0 type bridge")
    host.ip("link set flannel.1 master br0")
    assert "master br0 permanent" in host.command("bridge fdb show dev flannel.1")
    assert set(read(host)) == {DEVICE.identity, PEER[1].identity}


def test_leftovers_on_our_devices_are_ours_whoever_made_them(host: Any) -> None:
    write(host, [DEVICE, DEVICE6])
    host.ip("address add 10.99.1.0/32 dev flannel.1")  # of an earlier Network
    host.ip("route add 10.99.2.0/24 via 10.99.2.0 dev flannel.1 onlink")
    host.ip("-6 route add fd00:99::/64 dev flannel-v6.1 proto static")
    found = read(host)
    assert ("address", "flannel.1", "10.99.1.0/32") in found
    boot = found["route", 254, "10.99.2.0/24", 0, None]
    static = found["route", 254, "fd00:99::/64", 0, None]
    assert isinstance(boot, Route)
    assert isinstance(static, Route)
    assert (boot.protocol, static.protocol) == (3, 4)


def test_only_reads_what_lies_on_those_devices(host: Any) -> None:
    throw = Route("10.5.0.0/16", None, type="throw")
    write(host, [*EVERYTHING, HOST_GW, throw])
    assert set(read(host, msgspec.structs.replace(SCOPE, only=frozenset({"eth0"})))) == {HOST_GW.identity}
    on_v6 = {item.identity for item in EVERYTHING if item.on_device == "flannel-v6.1"}
    assert set(read(host, msgspec.structs.replace(SCOPE, only=frozenset({"flannel-v6.1"})))) == on_v6
    assert read(host, msgspec.structs.replace(SCOPE, only=frozenset({"flannel.99"}))) == {}


@pytest.mark.parametrize(
    ("foreign", "wanted"),
    [
        ("10.5.3.0/24 via 192.0.2.9 dev eth0 proto static", HOST_GW),
        ("10.5.3.0/24 via 192.0.2.9 dev eth0 proto boot", HOST_GW),
        ("10.5.3.0/24 dev eth0 proto kernel scope link", HOST_GW),
        ("10.5.3.0/24 via 192.0.2.3 dev eth0 proto bgp", HOST_GW),
        (
            "fc00:0:0:3::/64 via 2001:db8::9 dev eth0 proto static",
            Route("fc00:0:0:3::/64", "eth0", gateway="2001:db8::3"),
        ),
        ("10.5.3.0/24 via 192.0.2.9 dev eth0 proto 55 metric 9", msgspec.structs.replace(HOST_GW, metric=9)),
        ("blackhole 10.5.3.0/24 proto static", HOST_GW),
    ],
)
def test_a_foreign_route_is_named_and_untouched(host: Any, foreign: str, wanted: Route) -> None:
    host.ip(f"route add {foreign}")
    family = "-6 " if ":" in wanted.destination else ""
    before = host.ip(f"{family}route show")
    (failure,) = write(host, [wanted])
    assert failure.foreign
    assert failure.object == wanted
    assert foreign in failure.reason
    assert host.ip(f"{family}route show") == before
    named = failure.reason.split("`")[1].removeprefix("ip ")
    host.ip(named)  # the cure that the reason names
    assert write(host, [wanted]) == []


@pytest.mark.parametrize(
    ("boot", "wanted"),
    [
        ("10.5.3.0/24 via 192.0.2.3 dev eth0", HOST_GW),
        (
            "fc00:0:0:3::/64 via 2001:db8::3 dev eth0 proto boot",
            Route("fc00:0:0:3::/64", "eth0", gateway="2001:db8::3"),
        ),
    ],
)
def test_a_route_of_go_flannel_that_equals_ours_is_adopted(host: Any, boot: str, wanted: Route) -> None:
    host.ip(f"route add {boot}")
    assert read(host) == {}
    assert write(host, [wanted]) == []
    assert read(host) == {wanted.identity: wanted}
    shown = host.ip(f"{'-6 ' if ':' in boot else ''}route show {wanted.destination}")
    assert "proto 76" in shown
    assert len(shown.splitlines()) == 1


def test_our_own_route_that_stands_already_is_no_failure(host: Any) -> None:
    assert write(host, [HOST_GW]) == []
    assert write(host, [HOST_GW]) == []


def test_a_deletion_spares_a_foreign_route_of_the_same_destination(host: Any) -> None:
    host.ip("route add 10.5.3.0/24 via 192.0.2.3 dev eth0 proto static")
    host.ip("-6 route add fc00:0:0:3::/64 via 2001:db8::3 dev eth0 proto static")
    mine = [HOST_GW, Route("fc00:0:0:3::/64", "eth0", gateway="2001:db8::3")]
    assert write(host, [], [*mine]) == []
    assert "10.5.3.0/24 via 192.0.2.3" in host.ip("route show proto static")
    assert "fc00:0:0:3::/64 via 2001:db8::3" in host.ip("-6 route show proto static")


def test_a_multipath_route_of_ours_becomes_one_with_a_single_next_hop(host: Any) -> None:
    host.ip("route add 10.5.3.0/24 proto 76 nexthop via 192.0.2.8 dev eth0 nexthop via 192.0.2.9 dev eth0")
    host.ip("-6 route add fc00:0:0:3::/64 proto 76 nexthop via 2001:db8::8 dev eth0 nexthop via 2001:db8::9 dev eth0")
    wanted: list[Object] = [HOST_GW, Route("fc00:0:0:3::/64", "eth0", gateway="2001:db8::3")]
    found = read(host)
    assert [found[item.identity].nexthops for item in wanted] == [2, 2]  # type: ignore[attr-defined]
    assert write(host, [Put(item, previous=found[item.identity]) for item in wanted]) == []
    assert read(host) == {item.identity: item for item in wanted}


def test_a_multipath_route_of_ours_is_removed_whole(host: Any) -> None:
    host.ip("-6 route add fc00:0:0:3::/64 proto 76 nexthop via 2001:db8::8 dev eth0 nexthop via 2001:db8::9 dev eth0")
    assert write(host, [], [*read(host).values()]) == []
    assert "fc00:0:0:3::" not in host.ip("-6 route show")


@pytest.mark.parametrize(
    "changed",
    [
        {"mtu": 1300},
        {"mac": "8a:00:00:00:00:99"},
        {"txqueuelen": 500},
        {"info": Vxlan(1, "eth0", "192.0.2.77")},
        {"info": Vxlan(1, "eth0", "192.0.2.1", learning=True)},
        {"info": Vxlan(1, "eth1", "192.0.2.1"), "mtu": 1400},
    ],
    ids=str,
)
def test_a_device_is_changed_in_place(host: Any, changed: dict[str, Any]) -> None:
    host.ip("link add eth1 type veth peer name cable1")
    write(host, EVERYTHING)
    index = index_of(host, "flannel.1")
    wanted = msgspec.structs.replace(DEVICE, **changed)
    previous = read(host)[DEVICE.identity]
    assert write(host, [Put(wanted, previous)]) == []
    assert wanted.satisfied_by(read(host)[DEVICE.identity])
    assert index_of(host, "flannel.1") == index


def test_a_device_that_is_down_comes_up_in_place(host: Any) -> None:
    write(host, [DEVICE])
    host.ip("link set flannel.1 down")
    down = read(host)[DEVICE.identity]
    assert not DEVICE.satisfied_by(down)
    assert write(host, [Put(DEVICE, down)]) == []
    assert DEVICE.satisfied_by(read(host)[DEVICE.identity])


@pytest.mark.parametrize(
    "info",
    [
        Vxlan(2, "eth0", "192.0.2.1"),
        Vxlan(1, "eth0", "192.0.2.1", port=4789),
        Vxlan(1, "eth0", "192.0.2.1", gbp=True),
        Vxlan(1, "eth0", "2001:db8::1"),
    ],
    ids=Vxlan.describe,
)
def test_a_device_that_cannot_be_changed_is_made_again_with_its_mac(host: Any, info: Vxlan) -> None:
    write(host, [DEVICE])
    index = index_of(host, "flannel.1")
    wanted = Link("flannel.1", info, 1400)
    assert write(host, [Put(wanted, read(host)[DEVICE.identity])]) == []
    found = read(host)[DEVICE.identity]
    assert isinstance(found, Link)
    assert wanted.satisfied_by(found)
    assert found.mac == DEVICE.mac
    assert index_of(host, "flannel.1") != index


def test_a_device_that_cannot_be_made_again_is_not_deleted(host: Any) -> None:
    write(host, [DEVICE])
    previous = read(host)[DEVICE.identity]
    (failure,) = write(host, [Put(Link("flannel.1", Vxlan(2, "eth9", "192.0.2.1"), 1400), previous)])
    assert failure.reason == "there is no device eth9"
    assert read(host)[DEVICE.identity] == previous


@pytest.mark.parametrize("known", [True, False], ids=["read before", "not read before"])
def test_a_device_of_our_name_but_another_type_is_named_and_untouched(host: Any, known: bool) -> None:
    host.ip("link add flannel.1 type bridge")
    found = read(host)[DEVICE.identity]
    assert isinstance(found, Link)
    assert found.info == OtherLink("bridge")
    index = index_of(host, "flannel.1")
    (failure,) = write(host, [Put(DEVICE, found if known else None)])
    assert failure.foreign
    assert "bridge" in failure.reason
    assert "`ip link del flannel.1`" in failure.reason
    (failure,) = write(host, [], [DEVICE])
    assert failure.foreign
    (failure,) = write(host, [], [found])
    assert failure.foreign
    assert index_of(host, "flannel.1") == index


def test_another_device_with_our_vni_is_named(host: Any) -> None:
    host.ip("link add other type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472")
    (failure,) = write(host, [DEVICE])
    assert failure.foreign
    assert "the device other has the same VNI" in failure.reason


@pytest.mark.parametrize("wanted", [set(), {("link", "other")}], ids=["ours and unwanted", "wanted as well"])
def test_another_device_of_ours_with_our_vni_makes_way_if_nothing_wants_it(host: Any, wanted: set[Any]) -> None:
    host.ip("link add other type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472")
    scope = Scope(devices=frozenset({"flannel.1", "other"}), wanted={DEVICE.identity, *wanted})

    async def written() -> list[Failure]:
        async with opened() as target:
            target.scope = scope
            return await target.write([Put(DEVICE)], [])

    failures = host.run(written())
    assert [failure.foreign for failure in failures] == [True] * bool(wanted)
    names = {row.name for row in host.call(tables.read_links)}
    assert ("other" in names, "flannel.1" in names) == (bool(wanted), not wanted)


def test_a_udp_port_that_is_taken_is_named(host: Any) -> None:
    def take() -> socket.socket:
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("0.0.0.0", 8472))
        return taken

    with host.call(take):
        (failure,) = write(host, [DEVICE])
    assert "UDP port 8472 is in use" in failure.reason
    assert write(host, [DEVICE]) == []


def test_an_mtu_beyond_the_underlay_is_clamped_at_creation_and_refused_with_a_reason_later(host: Any) -> None:
    wanted = msgspec.structs.replace(DEVICE, mtu=1480)
    assert write(host, [wanted]) == []
    found = read(host)[DEVICE.identity]
    assert isinstance(found, Link)
    assert found.mtu == 1450
    (failure,) = write(host, [Put(wanted, found)])
    assert "MTU of 1480" in failure.reason
    assert "eth0's MTU less 50" in failure.reason


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Link("flannel.1", Vxlan(1, "eth9", "192.0.2.1"), 1450), "there is no device eth9"),
        (Route("10.5.3.0/24", "eth9", gateway="192.0.2.3"), "there is no device eth9"),
        (Route("10.5.3.0/24", "eth0", gateway="203.0.113.3"), "the gateway 203.0.113.3 is not on-link at eth0"),
        (Route("fc00:0:0:3::/64", "eth0", gateway="fd00::3"), "the gateway fd00::3 is not on-link at eth0"),
        (Route("10.5.3.0/24", "down0"), "the device down0 is down"),
        (Neighbour("eth9", "10.5.2.0", "8a:00:00:00:00:02"), "there is no device eth9"),
        (Neighbour("eth0", "not an address", "8a:00:00:00:00:02"), "it cannot be written"),
        (FdbEntry("eth0", "not a MAC", "192.0.2.2"), "it cannot be written"),
        (Route("10.5.3.0/24", "eth0", metric=2**40), "it cannot be written"),
        (Address("eth0", "10.5.1.0/99"), "the kernel refuses it"),
        (Address("off0", "fc00::1/128"), "IPv6 is off at off0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_fails_says_why_and_the_rest_is_written(host: Any, item: Object, reason: str) -> None:
    host.ip("link add down0 type veth peer name down1")
    host.ip("link add off0 type veth peer name off1")
    host.ip("link set off0 up")
    host.command("sysctl -qw net.ipv6.conf.off0.disable_ipv6=1")
    (failure,) = write(host, [item, DEVICE if not isinstance(item, Link) else DEVICE6, HOST_GW])
    assert failure.object == item
    assert reason in failure.reason
    assert not failure.foreign
    assert "eth0" in host.ip("route show proto 76")


def test_without_the_capability_the_reason_names_it(host: Any) -> None:
    script = """
import asyncio
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Link, Route, Vxlan
from flannel_core.target import Put
async def main():
    target = KernelTarget()
    await target.open()
    for item in (Route("10.5.3.0/24", "eth0"), Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450)):
        for failure in await target.write([Put(item)], []):
            print(failure.reason)
asyncio.run(main())
"""
    said = host.command(f"setpriv --bounding-set -net_admin --inh-caps -net_admin {sys.executable} -", input=script)
    assert [line.count("CAP_NET_ADMIN") for line in said.splitlines()] == [1, 1]


def test_of_five_thousand_routes_only_the_bad_one_fails(host: Any) -> None:
    write(host, [DEVICE])
    wanted = [
        Route(f"10.{5 + number // 250}.{number % 250}.0/24", "flannel.1", gateway=f"10.5.{number % 250}.0", onlink=True)
        for number in range(5000)
    ]
    wanted[2500] = msgspec.structs.replace(wanted[2500], device="eth0", onlink=False, gateway="203.0.113.1")
    (failure,) = write(host, [*wanted])
    assert failure.object == wanted[2500]
    found = read(host)
    assert {item.identity for item in wanted if item is not wanted[2500]} == set(found) - {DEVICE.identity}
    assert write(host, [], [*wanted]) == []
    assert set(read(host)) == {DEVICE.identity}


def test_the_event_loop_runs_while_thousands_are_written(host: Any) -> None:
    write(host, [DEVICE])

    async def turns() -> int:
        count = 0

        async def tick() -> None:
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async with opened() as target:
            assert await target.write([Put(item) for item in neighbours(2000)], []) == []
        ticking.cancel()
        return count

    assert host.run(turns()) >= 10


def test_a_great_write_that_is_cancelled_ends_soon_and_the_next_one_is_answered(host: Any) -> None:
    write(host, [DEVICE])

    async def written() -> int:
        async with opened() as target:
            great = asyncio.create_task(target.write([Put(item) for item in neighbours(20_000)], []))
            await asyncio.sleep(0.01)
            great.cancel()
            with pytest.raises(asyncio.CancelledError):
                await great
            so_far = len(host.ip("neigh show dev flannel.1").splitlines())
            (failure,) = await target.write([Put(Route("10.5.9.0/24", "eth0", gateway="203.0.113.1"))], [])
            assert "not on-link" in failure.reason
            assert len(host.ip("neigh show dev flannel.1").splitlines()) == so_far
            return so_far

    assert host.run(written()) < 20_000


def neighbours(count: int) -> list[Neighbour]:
    return [Neighbour("flannel.1", f"10.6.{n // 250}.{n % 250}", "8a:00:00:00:00:02") for n in range(count)]


def test_when_thousands_fail_each_gets_its_own_reason(host: Any) -> None:
    wanted = [
        Route(f"10.5.{number // 64}.{number % 64 * 4}/30", "eth0", gateway="203.0.113.1") for number in range(2000)
    ]
    failures = write(host, [*wanted])
    assert {failure.object.identity for failure in failures} == {item.identity for item in wanted}
    assert all("not on-link" in failure.reason for failure in failures)


def test_thousands_of_go_routes_are_adopted_at_once(host: Any) -> None:
    wanted = [Route(f"10.5.{number // 64}.{number % 64 * 4}/30", "eth0", gateway="192.0.2.3") for number in range(2000)]
    host.command("ip -batch -", "\n".join(f"route add {item.destination} via 192.0.2.3 dev eth0" for item in wanted))
    assert write(host, [*wanted]) == []
    assert len(host.ip("route show proto 76").splitlines()) == 2000


def test_a_peer_that_moved_is_followed(host: Any) -> None:
    write(host, EVERYTHING)
    before = read(host)
    moved = [
        Neighbour("flannel.1", "10.5.2.0", "8a:00:00:00:00:22"),
        FdbEntry("flannel.1", "8a:00:00:00:00:02", "192.0.2.22"),
        msgspec.structs.replace(PEER[2], gateway="10.5.2.1", mtu=1400),
    ]
    assert write(host, [Put(item, before[item.identity]) for item in moved]) == []
    after = read(host)
    assert [after[item.identity] for item in moved] == moved


def test_a_passing_guess_of_the_kernel_gives_way(host: Any) -> None:
    write(host, [DEVICE])
    host.ip("neighbour add 10.5.2.0 lladdr 8a:00:00:00:00:55 dev flannel.1 nud stale")
    host.command("bridge fdb add 8a:00:00:00:00:02 dev flannel.1 dst 192.0.2.55 self dynamic")
    assert write(host, PEER[:2]) == []
    found = read(host)
    assert [found[item.identity] for item in PEER[:2]] == PEER[:2]


def test_a_permanent_entry_that_nobody_read_is_in_the_way(host: Any) -> None:
    write(host, [DEVICE])
    host.ip("neighbour add 10.5.2.0 lladdr 8a:00:00:00:00:55 dev flannel.1 nud permanent")
    (failure,) = write(host, PEER[:1])
    assert failure.foreign
    assert "8a:00:00:00:00:55" in failure.reason


def test_an_ipv6_address_is_usable_at_once(host: Any) -> None:
    write(host, [DEVICE6, Address("flannel-v6.1", "fc00:0:0:1::/128")])
    assert "tentative" not in host.ip("-6 address show dev flannel-v6.1 scope global")


def test_two_namespaces_do_not_see_each_other(host: Any, new_namespace: Callable[[], Any]) -> None:
    other = new_namespace()
    other.ip("link add eth0 type veth peer name cable")
    other.ip("link set eth0 up")
    write(host, EVERYTHING)
    assert read(other) == {}
    assert write(other, [], [*EVERYTHING]) == []
    assert set(read(host)) == {item.identity for item in EVERYTHING}


def test_a_host_without_anything_is_read_as_empty(empty: Any) -> None:
    assert read(empty) == {}


def test_a_closed_target_says_so_without_a_traceback(host: Any) -> None:
    async def late() -> None:
        await KernelTarget().write([Put(HOST_GW)], [])

    with pytest.raises(TargetUnavailable, match="closed"):
        host.run(late())
