"""What vxlan wants, from values to values."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from flannel_backend_vxlan.vxlan import VxlanBackend, VxlanData, VxlanOptions
from flannel_core.backend import Announcement, Node, Unreachable
from flannel_core.backend_options import decode_options
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import ConfigInvalid, NetworkConfig, parse_config
from flannel_core.objects import Address, FdbEntry, Link, Neighbour, Offload, OtherLink, Route, Sysctl, Vxlan

OURS = "02:00:00:00:00:01"
THEIRS = "02:00:00:00:00:02"


def config(**keys: Any) -> NetworkConfig:
    text = {"Network": "10.5.0.0/16", "IPv6Network": "fc00::/48", "EnableIPv6": True, **keys}
    return parse_config(msgspec.json.encode(text), "net-conf.json")


def host(**changes: Any) -> Host:
    known: dict[str, Any] = {
        "interface": "eth0",
        "index": 2,
        "mtu": 1500,
        "mac": "02:ff:ff:ff:ff:01",
        "ipv4": ip_address("192.0.2.1"),
        "ipv6": ip_address("2001:db8::1"),
        "public_ipv4": ip_address("192.0.2.1"),
        "public_ipv6": ip_address("2001:db8::1"),
        "connected": ((ip_network("192.0.2.0/24"), "eth0"),),
    }
    return Host(**{**known, **changes})


def lease(number: int = 2, mac: str = THEIRS, public: str = "192.0.2.2", **changes: Any) -> Lease:
    data = VxlanData(1, mac)
    known: dict[str, Any] = {
        "ipv4": Endpoint(ip_network(f"10.5.{number}.0/24"), ip_address(public), data),
        "ipv6": Endpoint(ip_network(f"fc00:0:0:{number}::/64"), ip_address(f"2001:db8::{number}"), data),
    }
    return Lease(f"10.5.{number}.0-24", "vxlan", **{**known, **changes})


def node(own: Lease | None = None, on: Host | None = None) -> Node:
    data = VxlanData(1, OURS)
    return Node(config(), on or host(), Announcement(1430, data, data), own)


def vxlan(**options: Any) -> VxlanBackend:
    return VxlanBackend(VxlanOptions(**options))


def test_a_host_has_one_device_per_family_and_a_full_length_address_on_it() -> None:
    assert list(vxlan().local(node(lease(1, OURS)))) == [
        Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450, OURS, txqueuelen=0),
        Sysctl("net/ipv6/conf/flannel.1/accept_ra", "0", device="flannel.1", optional=True),
        Address("flannel.1", "10.5.1.0/32"),
        Link("flannel-v6.1", Vxlan(1, "eth0", "2001:db8::1"), 1430, OURS, txqueuelen=0),
        Sysctl("net/ipv6/conf/flannel-v6.1/accept_ra", "0", device="flannel-v6.1", optional=True),
        Address("flannel-v6.1", "fc00:0:0:1::/128"),
    ]


def test_a_peer_is_a_neighbour_an_fdb_entry_and_an_onlink_route_in_each_family() -> None:
    assert list(vxlan().peer(node(), lease())) == [
        Neighbour("flannel.1", "10.5.2.0", THEIRS),
        FdbEntry("flannel.1", THEIRS, "192.0.2.2"),
        Route("10.5.2.0/24", "flannel.1", gateway="10.5.2.0", onlink=True),
        Neighbour("flannel-v6.1", "fc00:0:0:2::", THEIRS),
        FdbEntry("flannel-v6.1", THEIRS, "2001:db8::2"),
        Route("fc00:0:0:2::/64", "flannel-v6.1", gateway="fc00:0:0:2::", onlink=True),
    ]


def test_a_host_without_ipv6_has_one_device() -> None:
    links = [o for o in vxlan().local(node(on=host(public_ipv6=None))) if isinstance(o, Link)]
    assert [link.name for link in links] == ["flannel.1"]


def test_the_options_reach_the_device() -> None:
    backend = vxlan(vni=7, port=4789, gbp=True, learning=True, mtu=9000)
    link = next(o for o in backend.local(node()) if isinstance(o, Link))
    assert link == Link("flannel.7", Vxlan(7, "eth0", "192.0.2.1", 4789, True, True), 8950, OURS, txqueuelen=0)


@pytest.mark.parametrize(
    ("families", "mtu"),
    [({"public_ipv6": None}, 1450), ({"public_ipv4": None}, 1430), ({}, 1430)],
    ids=["ipv4", "ipv6", "dual stack"],
)
def test_pods_get_the_mtu_that_fits_every_family(families: dict[str, Any], mtu: int) -> None:
    assert asyncio.run(vxlan().prepare(host(**families), None, dry_run=False)).mtu == mtu


def test_a_peer_on_the_same_network_is_routed_directly_if_asked_for() -> None:
    planned = list(vxlan(direct_routing=True).peer(node(), lease(ipv6=None)))
    assert planned == [Route("10.5.2.0/24", "eth0", gateway="192.0.2.2")]


def test_a_peer_behind_a_router_goes_through_the_tunnel_all_the_same() -> None:
    planned = list(vxlan(direct_routing=True).peer(node(), lease(public="203.0.113.9", ipv6=None)))
    assert Route("10.5.2.0/24", "flannel.1", gateway="10.5.2.0", onlink=True) in planned


def test_a_peer_with_another_vni_is_named_and_not_programmed() -> None:
    theirs = lease(ipv6=None)
    assert theirs.ipv4 is not None
    theirs = lease(ipv4=msgspec.structs.replace(theirs.ipv4, data=VxlanData(9, THEIRS)), ipv6=None)
    assert list(vxlan().peer(node(), theirs)) == [
        Unreachable("its VNI is 9, ours is 1: give both the same Backend.VNI")
    ]


# --- checksum offload ---------------------------------------------------------------------------------------------


def offloads(choice: str, **changes: Any) -> list[Offload]:
    planned = vxlan(checksum_offload=choice).local(node(on=host(**changes)))
    return [item for item in planned if isinstance(item, Offload)]


OFF = [Offload(device, "tx-checksum-ip-generic", False) for device in ("flannel.1", "flannel-v6.1")]
ON = [msgspec.structs.replace(item, on=True) for item in OFF]


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({"kernel": (6, 18)}, []),
        ({"kernel": (5, 7)}, []),
        ({"kernel": (5, 6)}, OFF),
        ({"kernel": (4, 19)}, OFF),
        ({"kernel": None}, []),
        ({"kernel": (6, 18), "public_ipv4": ip_address("203.0.113.1")}, OFF[:1]),
        ({"kernel": (6, 18), "public_ipv6": ip_address("2001:db8:9::1")}, OFF[1:]),
        (
            {
                "kernel": (6, 18),
                "public_ipv4": ip_address("203.0.113.1"),
                "addresses": (ip_address("192.0.2.1"), ip_address("203.0.113.1")),
            },
            [],
        ),
    ],
    ids=[
        "new kernel",
        "5.7",
        "5.6",
        "4.19",
        "unknown kernel",
        "IPv4 behind NAT",
        "IPv6 behind NAT",
        "public address of another interface of the host",
    ],
)
def test_checksum_offload_is_switched_off_by_itself_only_where_checksums_would_be_wrong(
    changes: dict[str, Any], planned: list[Offload]
) -> None:
    assert offloads("auto", **changes) == planned


def test_checksum_offload_is_kept_as_it_is_asked_for_whatever_the_kernel() -> None:
    assert offloads("off", kernel=(6, 18)) == OFF
    assert offloads("on", kernel=(4, 19)) == ON


# --- the MAC ------------------------------------------------------------------------------------------------------


def announced_mac(on: Host, previous: Lease | None) -> str:
    mac: str = asyncio.run(vxlan().prepare(on, previous, dry_run=False)).ipv4_data.vtep_mac
    return mac


def test_the_mac_of_an_existing_device_is_kept() -> None:
    links = {"flannel.1": Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450, "8a:00:00:00:00:09")}
    assert announced_mac(host(links=links), lease(1, OURS)) == "8a:00:00:00:00:09"


def test_without_a_device_the_mac_that_peers_know_is_taken_again() -> None:
    assert announced_mac(host(), lease(1, OURS)) == OURS


def test_the_mac_of_a_device_of_another_type_is_nothing_to_us() -> None:
    links = {"flannel.1": Link("flannel.1", OtherLink("veth"), 1500, "8a:00:00:00:00:09")}
    assert announced_mac(host(links=links), lease(1, OURS)) == OURS


def test_a_new_mac_is_random_local_and_unicast() -> None:
    macs = {announced_mac(host(), None) for _ in range(50)}
    assert len(macs) == 50
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}


# --- what peers announce -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        (b'{"VNI":1,"VtepMAC":"8a:0b:0c:0d:0e:0f"}', "8a:0b:0c:0d:0e:0f"),
        (b'{"VtepMAC":"8A-0B-0C-0D-0E-0F"}', "8a:0b:0c:0d:0e:0f"),
    ],
)
def test_data_of_old_and_new_nodes_is_read(text: bytes, mac: str) -> None:
    assert msgspec.json.decode(text, type=VxlanData).vtep_mac == mac


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"null",
        b'{"VNI":1}',
        b'{"VtepMAC":"00:00:00:00:00:00"}',
        b'{"VtepMAC":"01:00:5e:00:00:01"}',
        b'{"VtepMAC":"ff:ff:ff:ff:ff:ff"}',
        b'{"VtepMAC":"8a:0b:0c:0d:0e"}',
        b'{"VtepMAC":7}',
        b'{"VNI":"1","VtepMAC":"8a:0b:0c:0d:0e:0f"}',
    ],
)
def test_data_that_names_no_unicast_mac_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=VxlanData)


def test_what_is_announced_is_what_go_writes() -> None:
    assert msgspec.json.encode(VxlanData(1, OURS)) == b'{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'


# --- options -------------------------------------------------------------------------------------------------------


def test_keys_are_matched_as_go_matches_them() -> None:
    backend = {"type": "VXLAN", "vni": 5, "PORT": 4789, "directrouting": True, "Learning": None}
    parsed = config(Backend=backend)
    assert decode_options(parsed, VxlanBackend, "F") == VxlanOptions(vni=5, port=4789, direct_routing=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("VNI", 1 << 24),
        ("VNI", -1),
        ("VNI", "1"),
        ("Port", 65536),
        ("MTU", 1e3),
        ("GBP", "true"),
        ("ChecksumOffload", "never"),
        ("ChecksumOffload", False),
    ],
)
def test_a_bad_key_is_named_with_its_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigInvalid, match=f"Backend.{key}"):
        decode_options(config(Backend={"Type": "vxlan", key: value}), VxlanBackend, "F")
