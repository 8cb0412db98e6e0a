"""What host-gw wants, from values to values."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import msgspec
import pytest

from flannel_backend_host_gw.host_gw import HostGwBackend
from flannel_core.backend import Announcement, Node, NoOptions, Unreachable
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.objects import Route

CONFIG = parse_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}', "net-conf.json")
HOST = Host(
    interface="eth0",
    index=2,
    mtu=1400,
    mac="02:ff:ff:ff:ff:01",
    ipv4=ip_address("192.0.2.1"),
    ipv6=ip_address("2001:db8::1"),
    public_ipv4=ip_address("192.0.2.1"),
    public_ipv6=ip_address("2001:db8::1"),
    connected=(
        (ip_network("192.0.2.0/24"), "eth0"),
        (ip_network("192.0.2.128/25"), "eth1"),
        (ip_network("2001:db8::/64"), "eth0"),
    ),
)
NODE = Node(CONFIG, HOST, Announcement(1400))
BACKEND = HostGwBackend(NoOptions())


def lease(ipv4: str = "192.0.2.2", ipv6: str = "2001:db8::2") -> Lease:
    return Lease(
        "10.5.2.0-24",
        "host-gw",
        Endpoint(ip_network("10.5.2.0/24"), ip_address(ipv4)),
        Endpoint(ip_network("fc00:0:0:2::/64"), ip_address(ipv6)),
    )


def test_a_peer_is_a_route_through_its_address_in_each_family() -> None:
    assert list(BACKEND.peer(NODE, lease())) == [
        Route("10.5.2.0/24", "eth0", gateway="192.0.2.2"),
        Route("fc00:0:0:2::/64", "eth0", gateway="2001:db8::2"),
    ]


def test_the_host_itself_needs_nothing_and_pods_get_the_interfaces_mtu() -> None:
    assert list(BACKEND.local(NODE)) == []
    assert asyncio.run(BACKEND.prepare(HOST, None, dry_run=False)) == Announcement(1400)


def test_a_gateway_off_link_is_named_and_the_other_family_goes_on() -> None:
    off_link, route = BACKEND.peer(NODE, lease(ipv4="203.0.113.9"))
    assert isinstance(off_link, Unreachable)
    assert "203.0.113.9 is not on a network that eth0 is connected to" in off_link.reason
    assert route == Route("fc00:0:0:2::/64", "eth0", gateway="2001:db8::2")


def test_a_gateway_that_the_kernel_would_look_for_behind_another_interface_is_off_link_too() -> None:
    assert isinstance(next(iter(BACKEND.peer(NODE, lease(ipv4="192.0.2.200")))), Unreachable)


def test_a_host_behind_nat_is_refused_with_the_sentence_of_go() -> None:
    behind_nat = msgspec.structs.replace(HOST, public_ipv4=ip_address("203.0.113.1"))
    with pytest.raises(FlannelError, match=r"your PublicIP differs from interface IP.*192.0.2.1.*choose vxlan"):
        asyncio.run(BACKEND.prepare(behind_nat, None, dry_run=False))
