"""The sockets by themselves, and the host's tables that are read through them."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import ip_address
from typing import Any

import pytest

from flannel_core.errors import FlannelError
from flannel_core.netlink import links, routes, tables
from flannel_core.netlink import socket as netlink
from flannel_core.netlink.message import NLM_F_DUMP_INTR, Message
from flannel_core.netlink.socket import NetlinkError, NetlinkSocket
from flannel_core.objects import Route, Vxlan


def test_what_the_kernel_says_besides_the_error_number_is_kept(host: Any) -> None:
    def refused() -> NetlinkError:
        with NetlinkSocket() as kernel, pytest.raises(NetlinkError) as caught:
            kernel.request(routes.create(Route("10.5.3.0/24", "eth0", gateway="203.0.113.1"), 2))
        return caught.value

    error = host.call(refused)
    assert error.text == "Nexthop has invalid gateway"
    assert str(error) == "Network is unreachable (Nexthop has invalid gateway)"


def test_errors_are_matched_to_their_requests(host: Any) -> None:
    index = next(row.index for row in host.call(tables.read_links) if row.name == "eth0")
    bad = {0, 100, 198, 199}
    wanted = [
        Route(
            f"10.5.{number // 64}.{number % 64 * 4}/30", "eth0", gateway="203.0.113.1" if number in bad else "192.0.2.3"
        )
        for number in range(netlink.BATCH)
    ]

    def write() -> set[int]:
        with NetlinkSocket() as kernel:
            return set(kernel.write([routes.create(route, index) for route in wanted]))

    assert host.call(write) == bad


def test_an_empty_write_asks_the_kernel_nothing(host: Any) -> None:
    def write() -> dict[int, NetlinkError]:
        with NetlinkSocket() as kernel:
            return kernel.write([])

    assert host.call(write) == {}


def test_a_dump_that_was_interrupted_is_read_again(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, rounds = netlink.messages, []

    def interrupted(datagram: bytes) -> list[Message]:
        found = list(real(datagram))
        if any(message.type == 3 for message in found):
            rounds.append(1)
            if len(rounds) < 3:
                found[-1] = Message(3, NLM_F_DUMP_INTR, found[-1].sequence, 0, found[-1].body)
        return found

    monkeypatch.setattr(netlink, "messages", interrupted)

    def names() -> list[str]:
        with NetlinkSocket() as kernel:
            return [links.decode_name(message)[2] for message in kernel.dump(links.dump())]

    assert sorted(host.call(names)) == ["cable", "eth0", "lo"]
    assert len(rounds) == 3


def test_answers_that_do_not_fit_the_buffer_leave_the_outcome_unknown(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "RECEIVE_BUFFER_BYTES", 4096)

    def write() -> dict[int, NetlinkError]:
        with NetlinkSocket() as kernel:
            return kernel.write([links.delete(999)] * netlink.BATCH)

    failed = host.call(write)
    assert len(failed) == netlink.BATCH
    assert {error.number for error in failed.values()} == {errno.ENODEV, errno.ENOBUFS}


def test_links_are_read_with_what_only_the_kernel_decides(host: Any) -> None:
    host.ip("link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 gbp learning")
    rows = {row.name: row for row in host.call(tables.read_links)}
    assert list(rows) == ["lo", "cable", "eth0", "flannel.1"]
    assert rows["lo"].flags & links.IFF_LOOPBACK
    assert (rows["eth0"].mtu, rows["eth0"].flags & links.IFF_UP) == (1500, links.IFF_UP)
    assert rows["eth0"].mac in host.ip("link show eth0")
    assert rows["flannel.1"].link.info == Vxlan(1, "eth0", "192.0.2.1", port=8472, learning=True, gbp=True)
    assert not rows["flannel.1"].link.up


def test_addresses_are_read_with_scope_and_flags(host: Any) -> None:
    host.ip("address add 2001:db8::5/64 dev eth0 nodad preferred_lft 0")
    found = {str(row.address): row for row in host.call(tables.read_addresses)}
    assert (found["192.0.2.1"].prefixlen, found["192.0.2.1"].scope) == (24, 0)
    assert found["127.0.0.1"].scope == 254
    assert found["2001:db8::5"].flags & 0x20  # IFA_F_DEPRECATED


def test_routes_of_the_main_table_are_read(host: Any) -> None:
    host.ip("route add default via 192.0.2.254 metric 50")
    host.ip("route add 10.5.3.0/24 via 192.0.2.3 table 100")
    host.ip("-6 route add default via 2001:db8::fe")
    four = {row.route.destination: row for row in host.call(tables.read_routes, 4)}
    assert set(four) == {"0.0.0.0/0", "192.0.2.0/24"}
    default = four["0.0.0.0/0"].route
    assert (default.gateway, default.device, default.metric) == ("192.0.2.254", "eth0", 50)
    six = {row.route.destination: row.route for row in host.call(tables.read_routes, 6)}
    assert six["::/0"].gateway == "2001:db8::fe"
    assert six["::/0"].metric is None


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_without_routes_has_an_empty_table(empty: Any, family: int) -> None:
    assert empty.call(tables.read_routes, family) == []


@pytest.mark.parametrize(
    ("address", "source"), [("198.51.100.7", "192.0.2.1"), ("2001:db8:1::7", "2001:db8::1"), ("192.0.2.9", "192.0.2.1")]
)
def test_the_way_to_an_address_tells_the_source_that_is_used(host: Any, address: str, source: str) -> None:
    host.ip("route add default via 192.0.2.254")
    host.ip("-6 route add default via 2001:db8::fe")
    row = host.call(tables.route_to, ip_address(address))
    assert (row.route.device, row.route.source) == ("eth0", source)


def test_an_address_without_a_way_to_it_is_an_error(host: Any) -> None:
    with pytest.raises(NetlinkError) as caught:
        host.call(tables.route_to, ip_address("198.51.100.7"))
    assert caught.value.number == errno.ENETUNREACH


@pytest.mark.parametrize(
    "command",
    [
        "address add 192.0.2.7/24 dev eth0",
        "link set eth0 mtu 1400",
        "link set cable down",
        "route add 198.51.100.0/24 dev eth0",
        "route add default via 192.0.2.254",
        "-6 route add default via 2001:db8::fe",
    ],
)
def test_a_change_of_the_host_is_told_once(host: Any, command: str) -> None:
    async def scenario() -> None:
        changes = tables.watch_host()
        host.ip("route add 203.0.113.0/24 via 192.0.2.3 proto bgp")  # a routing daemon's: none of its business
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not waiting.done()
        host.ip(command)
        await asyncio.wait_for(waiting, 5)

    host.run(scenario())


def test_a_sandbox_without_netlink_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        def __init__(self, *arguments: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(netlink.socket, "socket", Forbidden)
    with pytest.raises(FlannelError, match="has to allow AF_NETLINK"):
        NetlinkSocket()
