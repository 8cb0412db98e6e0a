"""What ipip wants, from values to values."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from flannel_backend_ipip.ipip import IpipBackend, IpipOptions
from flannel_core.backend import Announcement, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.objects import Address, Ipip, Link, Route

CONFIG = parse_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "ipip"}}', "net-conf.json")
HOST = Host(
    interface="eth0",
    index=2,
    mtu=1500,
    mac="02:ff:ff:ff:ff:01",
    ipv4=ip_address("192.0.2.1"),
    public_ipv4=ip_address("192.0.2.1"),
    connected=((ip_network("192.0.2.0/24"), "eth0"),),
)


def lease(number: int = 2, public: str = "192.0.2.2") -> Lease:
    return Lease(f"10.5.{number}.0-24", "ipip", Endpoint(ip_network(f"10.5.{number}.0/24"), ip_address(public)))


def node(own: Lease | None = None, **changes: Any) -> Node:
    return Node(CONFIG, msgspec.structs.replace(HOST, **changes), Announcement(1480), own)


def ipip(*, direct_routing: bool = False) -> IpipBackend:
    return IpipBackend(IpipOptions(direct_routing))


def announced(**changes: Any) -> Announcement:
    return asyncio.run(ipip().prepare(msgspec.structs.replace(HOST, **changes), None, dry_run=False))


def test_a_host_has_one_device_from_its_own_address_and_a_full_length_address_on_it() -> None:
    tunnel = Link("flannel.ipip", Ipip("192.0.2.1"), 1480)
    assert list(ipip().local(node(lease(1)))) == [tunnel, Address("flannel.ipip", "10.5.1.0/32")]
    assert list(ipip().local(node())) == [tunnel]


def test_packets_leave_from_the_interfaces_own_address_whatever_peers_are_told() -> None:
    (tunnel,) = ipip().local(node(public_ipv4=ip_address("203.0.113.1")))
    assert tunnel == Link("flannel.ipip", Ipip("192.0.2.1"), 1480)


def test_a_peer_is_an_onlink_route_through_its_address() -> None:
    assert list(ipip().peer(node(), lease())) == [
        Route("10.5.2.0/24", "flannel.ipip", gateway="192.0.2.2", onlink=True),
    ]


def test_a_peer_on_the_same_network_is_routed_directly_if_asked_for_and_one_behind_a_router_is_not() -> None:
    direct = ipip(direct_routing=True)
    assert list(direct.peer(node(), lease())) == [Route("10.5.2.0/24", "eth0", gateway="192.0.2.2", onlink=True)]
    assert list(direct.peer(node(), lease(public="203.0.113.9"))) == [
        Route("10.5.2.0/24", "flannel.ipip", gateway="203.0.113.9", onlink=True),
    ]


def test_pods_get_what_is_left_beside_the_outer_header() -> None:
    assert announced() == Announcement(1480)


def test_an_interface_with_too_small_an_mtu_is_named() -> None:
    assert announced(mtu=88).mtu == 68
    with pytest.raises(FlannelError, match="eth0 has an MTU of 87; ipip needs 88"):
        announced(mtu=87)


@pytest.mark.parametrize(
    "families",
    [
        {"ipv6": ip_address("2001:db8::1"), "public_ipv6": ip_address("2001:db8::1")},
        {"ipv4": None, "public_ipv4": None, "public_ipv6": ip_address("2001:db8::1")},
    ],
    ids=["dual stack", "IPv6"],
)
def test_another_family_than_ipv4_is_refused_with_the_cure(families: dict[str, Any]) -> None:
    with pytest.raises(FlannelError, match="ipip carries IPv4 only: vxlan carries both"):
        announced(**families)
