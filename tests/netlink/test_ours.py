"""The rules of what is ours, as a table."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.netlink.addresses import AddressRow
from flannel_core.netlink.ours import Ours
from flannel_core.objects import FdbEntry, Neighbour, Route
from flannel_core.target import Scope

OURS = Ours(
    Scope(devices=frozenset({"flannel.1"}), external=frozenset({"eth0"}), networks=("10.5.0.0/16", "fc00::/48"))
)


@pytest.mark.parametrize(
    ("route", "ours"),
    [
        (Route("10.5.2.0/24", "eth0"), True),
        (Route("10.5.2.0/24", "eth1"), True),
        (Route("fc00:0:0:2::/64", "eth0"), True),
        (Route("10.5.0.0/16", None, type="throw"), True),
        (Route("10.5.2.0/24", "eth0", table=100), True),
        (Route("10.0.0.0/8", "eth0"), False),
        (Route("10.6.2.0/24", "eth0"), False),
        (Route("fc01::/64", "eth0"), False),
        (Route("10.5.2.0/24", "eth0", protocol=3), False),
        (Route("10.99.2.0/24", "flannel.1", protocol=3), True),
        (Route("10.99.2.0/24", "flannel.1", protocol=4, table=100), False),
        (Route("10.5.1.0/24", "flannel.1", protocol=2), False),
        (Route("fe80::/64", "flannel.1", protocol=9), False),
    ],
)
def test_routes(route: Route, ours: bool) -> None:
    assert OURS.route(route) is ours


@pytest.mark.parametrize(
    ("address", "device", "ours"),
    [
        ("10.5.1.0/32", "flannel.1", True),
        ("10.5.1.0/24", "flannel.1", True),
        ("10.99.1.0/32", "flannel.1", True),
        ("10.99.1.0/24", "flannel.1", False),
        ("10.5.1.0/32", "eth0", False),
        ("10.5.1.0/32", "eth1", False),
        ("169.254.1.1/32", "flannel.1", False),
        ("fc00:0:0:1::/128", "flannel.1", True),
        ("fd00::1/128", "flannel.1", False),
        ("fe80::1/64", "flannel.1", False),
    ],
)
def test_addresses(address: str, device: str, ours: bool) -> None:
    host, _, length = address.partition("/")
    assert OURS.address(AddressRow(7, ip_address(host), int(length), 0, 0), device) is ours


def test_a_device_that_is_external_too_keeps_its_addresses() -> None:
    both = Ours(Scope(devices=frozenset({"eth0"}), external=frozenset({"eth0"}), networks=("10.5.0.0/16",)))
    assert not both.address(AddressRow(2, ip_address("10.5.1.0"), 32, 0, 0), "eth0")


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        (Neighbour("flannel.1", "10.5.2.0", "8a:00:00:00:00:02"), True),
        (Neighbour("eth0", "10.5.2.0", "8a:00:00:00:00:02"), False),
        (FdbEntry("flannel.1", "8a:00:00:00:00:02", "192.0.2.2"), True),
        (FdbEntry("flannel.1", "00:00:00:00:00:00", "192.0.2.2"), False),
        (FdbEntry("flannel.1", "01:00:5e:00:00:01", "192.0.2.2"), False),
        (FdbEntry("flannel.1", "", "192.0.2.2"), False),
        (FdbEntry("eth0", "8a:00:00:00:00:02", "192.0.2.2"), False),
    ],
)
def test_neighbours_and_forwarding_entries(entry: Neighbour | FdbEntry, ours: bool) -> None:
    assert OURS.neighbour(entry) is ours


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_inside_a_network_is_what_ipaddress_calls_a_subnet(
    outer: int, length: int, inner: int, inner_length: int
) -> None:
    network = ip_network((outer, length), strict=False)
    subnet = ip_network((inner if inner & 1 else outer ^ (inner & 0xFFF), inner_length), strict=False)
    ours = Ours(Scope(networks=(str(network),)))
    assert ours.inside(subnet.network_address.packed, subnet.prefixlen) is subnet.subnet_of(network)  # type: ignore[arg-type]
