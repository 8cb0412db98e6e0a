"""What a host wants, what its routes are called, and the keys of Backend."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_backend_gce.compute import PERMISSIONS
from flannel_backend_gce.gce import Found, GceBackend
from flannel_backend_gce.gce_objects import GceRoute, Place, route_name
from flannel_backend_gce.options import GceOptions
from flannel_core.backend import Announcement, Node
from flannel_core.backend_options import decode_options
from flannel_core.config_errors import ConfigInvalid
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config

CONFIG = b'{"Network": "10.5.0.0/16", "IPv6Network": "fc00:5::/48", "EnableIPv6": true, "Backend": %s}'
INSTANCE = "projects/p/zones/z/instances/h1"
NETWORK = "projects/p/global/networks/default"


def options(backend: dict[str, object]) -> GceOptions:
    config = parse_config(CONFIG % json.dumps({"Type": "gce", **backend}).encode(), "net-conf.json")
    decoded = decode_options(config, GceBackend, "net-conf.json")
    assert isinstance(decoded, GceOptions)
    return decoded


def node(found: Found, *, lease: bool = True) -> Node:
    ipv4, ipv6 = ip_address("198.51.100.11"), ip_address("2001:db8:51::b")
    host = Host("eth0", 2, 1460, "02:00:00:00:00:01", ipv4, ipv6, ipv4, ipv6)
    held = Lease(
        "10.5.1.0-24",
        "",
        Endpoint(ip_network("10.5.1.0/24"), ipv4),
        Endpoint(ip_network("fc00:5:0:1::/64"), ipv6),
    )
    config = parse_config(CONFIG % b'{"Type": "gce"}', "net-conf.json")
    return Node(config, host, Announcement(1460, private=found), held if lease else None)


def wanted(found: Found) -> list[tuple[str, str, str, str]]:
    routes = list(GceBackend(GceOptions()).local(node(found)))
    assert all(isinstance(route, GceRoute) for route in routes)
    return [(route.name, route.project, route.network, route.hop) for route in routes if isinstance(route, GceRoute)]


def test_a_host_wants_a_route_to_its_instance_for_each_subnet() -> None:
    assert wanted(Found(INSTANCE, "p", NETWORK, 1460)) == [
        ("flannel-10-5-1-0-24", "p", NETWORK, INSTANCE),
        ("flannel-fc00-5-0-1---64", "p", NETWORK, INSTANCE),
    ]


def test_in_a_shared_vpc_it_wants_them_to_its_addresses() -> None:
    shared = "projects/owner/global/networks/shared"
    assert wanted(Found(INSTANCE, "owner", shared, 1460)) == [
        ("flannel-10-5-1-0-24", "owner", shared, "198.51.100.11"),
        ("flannel-fc00-5-0-1---64", "owner", shared, "2001:db8:51::b"),
    ]


def test_without_a_subnet_it_wants_nothing_and_a_peer_never_needs_anything() -> None:
    backend, found = GceBackend(GceOptions()), Found(INSTANCE, "p", NETWORK, 1460)
    assert list(backend.local(node(found, lease=False))) == []
    peer = node(found).lease
    assert peer
    assert list(backend.peer(node(found), peer)) == []


subnets = st.one_of(
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.integers(2**32, 2**128 - 1), st.integers(0, 128)),
)


@given(st.lists(subnets, unique=True, max_size=20))
def test_no_two_destinations_share_a_name_and_each_is_one_that_google_takes(found: list[object]) -> None:
    names = [route_name(str(subnet)) for subnet in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


def test_two_destinations_that_differ_by_a_double_colon_have_two_names() -> None:
    assert route_name("fc00:5::1:0/112") != route_name("fc00::5:1:0/112")


def test_a_route_is_known_by_project_and_name_and_recorded_by_its_place() -> None:
    ours, theirs = (GceRoute("example.com:p", NETWORK, "10.5.1.0/24", hop) for hop in (INSTANCE, "198.51.100.12"))
    assert ours.identity == theirs.identity
    assert not ours.satisfied_by(theirs)
    assert Place.parse(ours.record) == Place("example.com:p", INSTANCE)
    assert Place.parse("nothing") is None


@pytest.mark.parametrize(
    ("given_keys", "named"),
    [({"Endpoint": "compute.example"}, "https://compute.googleapis.com"), ({"CheckInterval": 0}, "CheckInterval")],
)
def test_a_wrong_key_is_named(given_keys: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        options(given_keys)


def test_the_readme_shows_the_permissions_that_errors_ask_for() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert "\n".join(PERMISSIONS) in readme
