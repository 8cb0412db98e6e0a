"""What a watch of the kernel target hears, and what it says instead where the kernel is silent."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from flannel_core.netlink import kernel
from flannel_core.netlink.callers import Callers
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.netlink.message import MalformedMessage, Message
from flannel_core.netlink.ours import Ours
from flannel_core.netlink.socket import RTNLGRP_IPV4_ROUTE, NetlinkSocket, NotificationsLost, NotificationSocket
from flannel_core.netlink.watcher import translate
from flannel_core.netlink.writer import Writer
from flannel_core.objects import Address, FdbEntry, Identity, Link, Neighbour, Object, Route, Vxlan
from flannel_core.target import Changed, Put, Scope, Unknown

DEVICE = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450, mac="8a:00:00:00:00:01")
ADDRESS = Address("flannel.1", "10.5.1.0/32")
NEIGHBOUR = Neighbour("flannel.1", "10.5.2.0", "8a:00:00:00:00:02")
FDB = FdbEntry("flannel.1", "8a:00:00:00:00:02", "192.0.2.2")
ROUTE = Route("10.5.2.0/24", "flannel.1", gateway="10.5.2.0", onlink=True)
ROUTE6 = Route("fc00:0:0:3::/64", "eth0", gateway="2001:db8::3")
HOST_GW = Route("10.5.3.0/24", "eth0", gateway="192.0.2.3")
ALL: list[Object] = [DEVICE, ADDRESS, NEIGHBOUR, FDB, ROUTE, ROUTE6, HOST_GW]
SCOPE = Scope(
    devices=frozenset({"flannel.1"}),
    networks=("10.5.0.0/16", "fc00::/48"),
    external=frozenset({"eth0"}),
    wanted=frozenset(item.identity for item in ALL),
)


def _metric(change: Changed) -> object:
    """Of a mark; nothing else that these tests make has a metric."""
    return change.identity[4] if change.identity[0] == "route" else None


class Ear:
    """A watch, and what it has heard."""

    def __init__(self, target: KernelTarget, host: Any) -> None:
        self.host = host
        self.target = target
        self.watch = target.watch(SCOPE)
        self.marks = 0

    async def until(self, enough: Callable[[Changed | Unknown], bool]) -> list[Changed | Unknown]:
        heard = []
        async with asyncio.timeout(5):
            async for change in self.watch:
                heard.append(change)
                if enough(change):
                    break
        return heard

    async def mark(self) -> list[Changed | Unknown]:
        """All that was heard up to now. Two marks are waited for: what is unclear comes at the end of a burst."""
        heard = []
        for _ in range(2):
            self.marks += 1
            self.host.ip(f"route add 10.5.255.0/24 dev eth0 proto 76 metric {self.marks}")
            heard += await self.until(lambda change: isinstance(change, Changed) and _metric(change) == self.marks)
        return [change for change in heard if not (isinstance(change, Changed) and _metric(change))]


def listening(
    host: Any, do: Callable[[Ear], AsyncIterator[Any] | Any], present: list[Object] | None = None
) -> list[Changed | Unknown]:
    """What is heard of what ``do`` does, with ``present`` standing and its echoes heard already."""

    async def scenario() -> list[Changed | Unknown]:
        target = KernelTarget()
        await target.open()
        for item in ALL if present is None else present:
            assert await target.write([Put(item)], []) == []
        ear = Ear(target, host)
        await ear.mark()
        result = do(ear)
        if asyncio.iscoroutine(result):
            await result
        heard = await ear.mark()
        await target.close()
        return heard

    return host.run(scenario())


def gone(heard: list[Changed | Unknown]) -> set[Identity]:
    return {change.identity for change in heard if isinstance(change, Changed) and change.object is None}


def unclear(heard: list[Changed | Unknown]) -> set[str]:
    """The devices that are to be read again."""
    return {device for change in heard if isinstance(change, Unknown) for device in change.devices or ()}


@pytest.mark.parametrize(
    ("command", "item"),
    [
        ("ip route del 10.5.2.0/24", ROUTE),
        ("ip route flush dev flannel.1", ROUTE),
        ("ip route del 10.5.3.0/24", HOST_GW),
        ("ip -6 route del fc00:0:0:3::/64", ROUTE6),
        ("ip neighbour del 10.5.2.0 dev flannel.1", NEIGHBOUR),
        ("bridge fdb del 8a:00:00:00:00:02 dev flannel.1 self", FDB),
    ],
)
def test_what_somebody_deletes_is_told(host: Any, command: str, item: Object) -> None:
    assert gone(listening(host, lambda ear: host.command(command))) == {item.identity}


@pytest.mark.parametrize(
    ("command", "now"),
    [
        (
            "ip route replace 10.5.2.0/24 via 10.5.2.9 dev flannel.1 onlink proto static",
            msgspec.structs.replace(ROUTE, gateway="10.5.2.9", protocol=4),
        ),
        (
            "ip neighbour replace 10.5.2.0 lladdr 8a:00:00:00:00:77 dev flannel.1 nud permanent",
            msgspec.structs.replace(NEIGHBOUR, mac="8a:00:00:00:00:77"),
        ),
        (
            "bridge fdb replace 8a:00:00:00:00:02 dev flannel.1 dst 192.0.2.77 self permanent",
            msgspec.structs.replace(FDB, remote="192.0.2.77"),
        ),
        (
            "ip -6 route replace fc00:0:0:3::/64 via 2001:db8::77 dev eth0 proto 76",
            msgspec.structs.replace(ROUTE6, gateway="2001:db8::77"),
        ),
    ],
)
def test_what_somebody_changes_is_told_as_it_is_now(host: Any, command: str, now: Object) -> None:
    heard = listening(host, lambda ear: host.command(command))
    assert [(change.identity, change.object) for change in heard if isinstance(change, Changed)] == [
        (now.identity, now)
    ]


def callers(heard: list[Changed | Unknown]) -> list[str]:
    """Who did what was heard, in the order it was heard."""
    return [change.by for change in heard if isinstance(change, Changed)]


def test_of_a_program_that_has_ended_its_port_is_told(host: Any) -> None:
    (by,) = callers(listening(host, lambda ear: host.ip("route del 10.5.2.0/24")))
    assert re.fullmatch(r"netlink port \d+, gone", by)


@pytest.mark.parametrize(
    ("line", "item"),
    [
        ("route del 10.5.2.0/24", ROUTE),
        ("route del fc00:0:0:3::/64", ROUTE6),
        ("neighbour del 10.5.2.0 dev flannel.1", NEIGHBOUR),
        ("neighbour replace 10.5.2.0 lladdr 8a:00:00:00:00:77 dev flannel.1 nud permanent", NEIGHBOUR),
        ("address del 10.5.1.0/32 dev flannel.1", ADDRESS),
    ],
)
def test_a_program_that_still_runs_is_named(host: Any, line: str, item: Object) -> None:
    command = ["ip", "netns", "exec", host.name, "ip", "-batch", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        words, answers = program.stdin, program.stdout
        assert words is not None
        assert answers is not None

        def do(ear: Ear) -> None:
            # The answer to the second line says that the first was carried out; ip waits for a third.
            words.write(f"{line}\nroute get 192.0.2.9\n")
            words.flush()
            answers.readline()

        heard = listening(host, do)
    changes = [change for change in heard if isinstance(change, Changed) and change.identity == item.identity]
    assert changes[0].by == f"ip (pid {program.pid})"


def test_a_port_that_is_no_process_id_is_named_by_who_holds_the_socket(host: Any) -> None:
    def do(ear: Ear) -> None:
        with NetlinkSocket() as first, NetlinkSocket() as second:
            port = max(first.port, second.port)
            assert port != os.getpid()
            assert Callers().name(port).endswith(f" (pid {os.getpid()})")
        assert Callers().name(port) == f"netlink port {port}, gone"

    listening(host, do)


def test_what_the_kernel_did_by_itself_is_nobodys(host: Any) -> None:
    heard = listening(host, lambda ear: host.ip("link del flannel.1"))
    assert FDB.identity in gone(heard)
    assert set(callers(heard)) == {""}


def test_a_neighbour_that_is_not_permanent_any_more_is_gone(host: Any) -> None:
    command = "neighbour replace 10.5.2.0 lladdr 8a:00:00:00:00:02 dev flannel.1 nud stale"
    assert gone(listening(host, lambda ear: host.ip(command))) == {NEIGHBOUR.identity}


@pytest.mark.parametrize(
    "command",
    [
        "link set flannel.1 down",
        "link set flannel.1 mtu 1300",
        "link set flannel.1 address 8a:00:00:00:00:99",
        "address del 10.5.1.0/32 dev flannel.1",
        "address add 10.5.1.9/32 dev flannel.1",
    ],
)
def test_what_may_take_routes_along_in_silence_makes_the_device_unclear(host: Any, command: str) -> None:
    assert unclear(listening(host, lambda ear: host.ip(command))) == {"flannel.1"}


def test_a_device_that_is_deleted_is_unclear(host: Any) -> None:
    assert "flannel.1" in unclear(listening(host, lambda ear: host.ip("link del flannel.1")))


def test_a_link_local_address_disturbs_nobody(host: Any) -> None:
    command = "address add fe80::77/64 dev flannel.1 scope link nodad"
    assert listening(host, lambda ear: host.ip(command)) == []


def test_routes_that_a_link_took_down_in_silence_are_missing_at_the_next_read(host: Any) -> None:
    async def scenario() -> set[Identity]:
        target = KernelTarget()
        await target.open()
        for item in ALL:
            await target.write([Put(item)], [])
        host.ip("link set flannel.1 down")
        host.ip("link set flannel.1 up")
        found = await target.read(msgspec.structs.replace(SCOPE, only=frozenset({"flannel.1"})))
        await target.close()
        return {actual.object.identity for actual in found}

    assert host.run(scenario()) == {DEVICE.identity, ADDRESS.identity, FDB.identity}


def test_a_device_that_is_renamed_is_unclear(host: Any) -> None:
    def rename(ear: Ear) -> None:
        host.ip("link set flannel.1 down")
        host.ip("link set flannel.1 name other")

    assert "flannel.1" in unclear(listening(host, rename))


@pytest.mark.parametrize("command", ["address add 192.0.2.77/24 dev eth0", "link set cable down"])
def test_events_of_the_external_device_make_it_unclear(host: Any, command: str) -> None:
    def do(ear: Ear) -> None:
        host.ip(command)
        host.ip("link set cable up")

    assert unclear(listening(host, do, [HOST_GW])) == {"eth0"}


def test_a_device_that_somebody_makes_under_our_name_is_told(host: Any) -> None:
    assert "flannel.1" in unclear(listening(host, lambda ear: host.ip("link add flannel.1 type bridge"), []))


@pytest.mark.parametrize(
    "command",
    [
        "link add br0 type bridge",
        "address add 198.51.100.1/24 dev lo",
        "route add 203.0.113.0/24 via 192.0.2.9 dev eth0",
        "route add 10.5.77.0/24 via 192.0.2.9 dev eth0 proto static",
        "neighbour add 192.0.2.9 lladdr 8a:00:00:00:00:09 dev eth0 nud permanent",
    ],
)
def test_what_is_not_ours_is_not_heard(host: Any, command: str) -> None:
    assert listening(host, lambda ear: host.ip(command)) == []


def test_our_own_routes_are_not_echoed(host: Any) -> None:
    async def write_and_remove(ear: Ear) -> None:
        assert await ear.target.write([Put(HOST_GW), Put(ROUTE6)], []) == []
        assert await ear.target.write([], [HOST_GW, ROUTE6]) == []

    assert listening(host, write_and_remove, [DEVICE]) == []


def test_a_foreign_route_that_leaves_a_wanted_place_is_told(host: Any) -> None:
    def come_and_go(ear: Ear) -> None:
        host.ip("route add 10.5.3.0/24 via 192.0.2.9 dev eth0 proto static")
        host.ip("route del 10.5.3.0/24")

    assert listening(host, come_and_go, []) == [Changed(HOST_GW.identity, None, by=ANYONE)]


def test_a_foreign_route_that_overwrites_ours_is_told_as_a_loss(host: Any) -> None:
    heard = listening(host, lambda ear: host.ip("route replace 10.5.3.0/24 via 192.0.2.9 dev eth0 proto static"))
    assert gone(heard) == {HOST_GW.identity}


def test_a_next_hop_appended_to_ours_makes_the_device_unclear(host: Any) -> None:
    command = "-6 route append fc00:0:0:3::/64 via 2001:db8::9 dev eth0 proto 76"
    assert unclear(listening(host, lambda ear: host.ip(command))) == {"eth0"}


def test_a_scope_set_during_a_watch_counts_at_once(host: Any) -> None:
    def widen(ear: Ear) -> None:
        ear.target.scope = msgspec.structs.replace(SCOPE, networks=("10.5.0.0/16", "10.99.0.0/16"))
        host.ip("route add 10.99.1.0/24 via 192.0.2.9 dev eth0 proto 76")

    (change,) = listening(host, widen, [])
    assert change.identity == ("route", 254, "10.99.1.0/24", 0, None)  # type: ignore[union-attr]


def test_the_watch_hears_from_the_moment_of_the_call(host: Any) -> None:
    async def scenario() -> Changed | Unknown:
        target = KernelTarget()
        watch = target.watch(SCOPE)
        host.ip("route add 10.5.3.0/24 via 192.0.2.3 dev eth0 proto 76")
        async with asyncio.timeout(5):
            return await anext(watch)

    change = host.run(scenario())
    assert change == Changed(HOST_GW.identity, HOST_GW, by=ANYONE)


def test_too_many_notifications_are_lost_and_said_to_be(host: Any) -> None:
    async def scenario() -> str:
        notifications = NotificationSocket([RTNLGRP_IPV4_ROUTE], receive_buffer=4096)
        lines = "\n".join(f"route add 10.5.{number}.0/24 via 192.0.2.3 dev eth0" for number in range(200))
        host.command("ip -batch -", lines)
        async with asyncio.timeout(5):
            try:
                while True:
                    await notifications.receive()
            except NotificationsLost as lost:
                host.ip("route del 10.5.0.0/24")
                assert await notifications.receive()  # and it goes on
                return str(lost)

    assert "dropped" in host.run(scenario())


MANY = [Neighbour("flannel.1", f"10.5.{number // 250}.{number % 250}", FDB.mac) for number in range(5000)]


def test_what_somebody_does_while_thousands_are_written_is_told_afterwards_and_nothing_is_lost(host: Any) -> None:
    async def flood(ear: Ear) -> None:
        ear.target.scope = msgspec.structs.replace(SCOPE, wanted=frozenset(item.identity for item in MANY))
        for part in (MANY[:2500], MANY[2500:]):
            assert await ear.target.write([Put(item) for item in part], []) == []
            host.ip(f"neigh del {part[7].address} dev flannel.1")

    heard = listening(host, flood, [DEVICE])
    assert {change.identity for change in heard if isinstance(change, Changed)} == {item.identity for item in MANY}
    assert gone(heard) == {MANY[7].identity, MANY[2507].identity}
    assert unclear(heard) == set()


def test_however_long_we_write_others_are_heard(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "writes_much", True)
    monkeypatch.setattr(kernel, "MOST_HELD_BACK_SECONDS", 0.1)
    (change,) = listening(host, lambda _: host.ip("route del 10.5.2.0/24"))
    assert change == Changed(ROUTE.identity, None, by=ANYONE)


def test_a_watch_that_lost_something_asks_for_a_full_read(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "NotificationSocket", lambda groups: NotificationSocket(groups, receive_buffer=4096))
    lines = "\n".join(f"route add 10.5.{number}.0/24 via 192.0.2.3 dev eth0 proto 76" for number in range(200))

    async def flood(ear: Ear) -> None:
        host.command("ip -batch -", lines)
        await ear.until(lambda change: isinstance(change, Unknown) and change.devices is None)

    assert listening(host, flood, []) == []  # what was older than the gap is not told after it


def test_a_notification_that_does_not_parse_is_refused_not_guessed() -> None:
    with pytest.raises(MalformedMessage):
        list(translate([Message(24, 0, 0, 0, b"\x02\x18")], Ours(SCOPE), {}, 4711, str))


class _Anyone(str):
    """Equal to any netlink port."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith("netlink port ")


ANYONE = _Anyone()
