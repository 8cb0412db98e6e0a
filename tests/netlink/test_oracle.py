"""pyroute2 as the oracle: it reads what we pack, and we read what it packs."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from flannel_core.netlink import addresses, links, neighbours, routes
from flannel_core.netlink.message import Message, Request, messages, pack
from flannel_core.objects import Address, FdbEntry, Link, Neighbour, OtherLink, Route, Vxlan

INDEX = 7
NAMES = {INDEX: "flannel.1", 2: "eth0"}


def theirs(kind: type[nlmsg], request: Request) -> dict[str, Any]:
    """A request as pyroute2 reads it, the attributes by name."""
    parsed = kind(pack(request, 1, 5))
    parsed.decode()
    return {**parsed, "attrs": dict(parsed["attrs"])}


def ours(kind: type[nlmsg], fields: dict[str, Any], attributes: list[tuple[str, Any]]) -> Message:
    """A message that pyroute2 packed."""
    packed = kind()
    for name, value in fields.items():
        packed[name] = value
    packed["attrs"] = attributes
    packed.encode()
    (message,) = messages(bytes(packed.data))
    return message


macs = st.binary(min_size=6, max_size=6).map(lambda value: value.hex(":"))
# Addresses whose text is the same in inet_ntop and ipaddress: not those that embed an IPv4 one.
ipv4 = st.integers(0x01000000, 0xDFFFFFFF).map(IPv4Address)
ipv6 = st.integers(0x2000 << 112, (0x3FFF << 112) + 2**112 - 1).map(IPv6Address)
networks = st.one_of(
    st.tuples(ipv4, st.integers(0, 32)).map(lambda pair: str(IPv4Network(pair, strict=False))),
    st.tuples(ipv6, st.integers(0, 128)).map(lambda pair: str(IPv6Network(pair, strict=False))),
)


def same_family(network: str) -> st.SearchStrategy[str]:
    return (ipv6 if ":" in network else ipv4).map(str)


@st.composite
def unicast_routes(draw: st.DrawFn) -> Route:
    destination = draw(networks)
    six = ":" in destination
    return Route(
        destination=destination,
        device="flannel.1",
        gateway=draw(st.none() | same_family(destination)),
        onlink=draw(st.booleans()),
        source=draw(st.none() | same_family(destination)),
        scope=draw(st.sampled_from([0, 200, 253, 254])),
        table=draw(st.integers(1, 2**32 - 1)),
        metric=draw(st.none() | st.integers(1, 2**32 - 1).filter(lambda metric: not (six and metric == 1024))),
        tos=draw(st.integers(0, 255)),
        mtu=draw(st.none() | st.integers(68, 65535)),
        protocol=draw(st.integers(0, 255)),
    )


@st.composite
def deviceless_routes(draw: st.DrawFn) -> Route:
    kind = draw(st.sampled_from(sorted(routes.DEVICELESS)))
    return Route(destination=draw(networks), device=None, type=kind)


all_routes = st.one_of(unicast_routes(), deviceless_routes())


def decoded_route(message: Message) -> Route:
    row = routes.decode(message, NAMES)
    assert row is not None
    return row.route


@given(all_routes)
def test_pyroute2_reads_a_route_that_we_pack(route: Route) -> None:
    for request in (
        routes.create(route, INDEX if route.device else 0),
        routes.replace(route, INDEX if route.device else 0),
    ):
        read = theirs(rtmsg, request)
        attributes = read["attrs"]
        network, _, length = route.destination.partition("/")
        assert read["family"] == (socket.AF_INET6 if ":" in network else socket.AF_INET)
        assert (read["dst_len"], attributes["RTA_DST"]) == (int(length), network)
        assert attributes.get("RTA_GATEWAY") == route.gateway
        assert attributes.get("RTA_OIF") == (INDEX if route.device else None)
        assert attributes.get("RTA_TABLE", read["table"]) == route.table
        assert attributes.get("RTA_PRIORITY") == route.metric
        assert attributes.get("RTA_PREFSRC") == route.source
        assert bool(read["flags"] & 4) == route.onlink
        assert (read["proto"], read["scope"], read["tos"]) == (route.protocol, route.scope, route.tos)
        assert read["type"] == next(number for number, name in routes.TYPES.items() if name == route.type)
        metrics = attributes.get("RTA_METRICS")
        assert (metrics.get_attr("RTAX_MTU") if metrics else None) == route.mtu


@given(all_routes)
def test_a_deletion_names_protocol_table_metric_and_device(route: Route) -> None:
    read = theirs(rtmsg, routes.delete(route, INDEX if route.device else 0))
    network, _, length = route.destination.partition("/")
    attributes = read["attrs"]
    assert (read["dst_len"], attributes["RTA_DST"]) == (int(length), network)
    assert read["proto"] == route.protocol
    assert attributes.get("RTA_TABLE", read["table"]) == route.table
    assert attributes.get("RTA_PRIORITY") == (route.metric or (1024 if ":" in network else None))
    assert attributes.get("RTA_OIF") == (INDEX if route.device else None)
    assert "RTA_GATEWAY" not in attributes


@given(all_routes)
def test_we_read_a_route_that_pyroute2_packs(route: Route) -> None:
    network, _, length = route.destination.partition("/")
    attributes: list[tuple[str, Any]] = [("RTA_DST", network), ("RTA_TABLE", route.table)]
    if route.device:
        attributes.append(("RTA_OIF", INDEX))
    if route.gateway:
        attributes.append(("RTA_GATEWAY", route.gateway))
    if route.source:
        attributes.append(("RTA_PREFSRC", route.source))
    if route.mtu:
        attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", route.mtu)]}))
    if route.metric is not None or ":" in network:  # IPv6 dumps always name it
        attributes.append(("RTA_PRIORITY", route.metric or 1024))
    fields = {
        "family": socket.AF_INET6 if ":" in network else socket.AF_INET,
        "dst_len": int(length),
        "table": 252,  # RT_TABLE_COMPAT
        "proto": route.protocol,
        "scope": route.scope,
        "tos": route.tos,
        "flags": 4 if route.onlink else 0,
        "type": next(number for number, name in routes.TYPES.items() if name == route.type),
    }
    assert decoded_route(ours(rtmsg, fields, attributes)) == route


@given(all_routes)
def test_a_route_survives_packing_and_reading(route: Route) -> None:
    request = routes.create(route, INDEX if route.device else 0)
    assert decoded_route(Message(request.type, 0, 0, 0, request.body)) == route


@pytest.mark.parametrize(("family", "destination"), [(socket.AF_INET, "10.5.3.0"), (socket.AF_INET6, "fc00:3::")])
def test_of_several_next_hops_the_first_is_read_and_all_are_counted(family: int, destination: str) -> None:
    gateways = ["192.0.2.9", "192.0.2.10"] if family == socket.AF_INET else ["2001:db8::9", "2001:db8::10"]
    hops = [
        {"oif": index, "hops": 0, "flags": flags, "attrs": [("RTA_GATEWAY", gateway)]}
        for index, flags, gateway in zip((2, INDEX), (4, 0), gateways, strict=True)
    ]
    message = ours(
        rtmsg,
        {"family": family, "dst_len": 24, "table": 254, "type": 1, "proto": 4},
        [("RTA_DST", destination), ("RTA_MULTIPATH", hops)],
    )
    route = decoded_route(message)
    assert (route.device, route.gateway, route.onlink, route.nexthops) == ("eth0", gateways[0], True, 2)


def test_an_ipv4_route_through_an_ipv6_gateway_keeps_it() -> None:
    route = Route(destination="10.5.3.0/24", device="flannel.1", gateway="fe80::1")
    request = routes.create(route, INDEX)
    assert theirs(rtmsg, request)["attrs"]["RTA_VIA"] == {"family": socket.AF_INET6, "addr": "fe80::1"}
    assert decoded_route(Message(request.type, 0, 0, 0, request.body)) == route


@given(networks)
def test_pyroute2_reads_an_address_that_we_pack(network: str) -> None:
    read = theirs(ifaddrmsg, addresses.create(Address("flannel.1", network), INDEX))
    host, _, length = network.partition("/")
    assert (read["prefixlen"], read["index"], read["scope"]) == (int(length), INDEX, 0)
    assert read["attrs"]["IFA_LOCAL"] == read["attrs"]["IFA_ADDRESS"] == host
    assert read["flags"] == (addresses.IFA_F_NODAD if ":" in host else 0)


@given(networks, st.integers(0, 0xFFFF))
def test_we_read_an_address_that_pyroute2_packs(network: str, flags: int) -> None:
    host, _, length = network.partition("/")
    fields = {
        "family": socket.AF_INET6 if ":" in host else socket.AF_INET,
        "prefixlen": int(length),
        "index": INDEX,
        "scope": 253,
        "flags": flags & 0xFF,
    }
    row = addresses.decode(ours(ifaddrmsg, fields, [("IFA_ADDRESS", host), ("IFA_FLAGS", flags)]))
    assert addresses.as_object(row, "flannel.1") == Address("flannel.1", network)
    assert (row.scope, row.flags) == (253, flags)


def test_the_local_address_of_a_point_to_point_link_is_ours() -> None:
    fields = {"family": socket.AF_INET, "prefixlen": 32, "index": INDEX}
    row = addresses.decode(ours(ifaddrmsg, fields, [("IFA_ADDRESS", "10.0.0.2"), ("IFA_LOCAL", "10.0.0.1")]))
    assert str(row.address) == "10.0.0.1"


@given(st.one_of(ipv4, ipv6).map(str), macs)
def test_neighbours_agree_in_both_directions(address: str, mac: str) -> None:
    entry = Neighbour("flannel.1", address, mac)
    request = neighbours.create(entry, INDEX)
    read = theirs(ndmsg, request)
    assert (read["ifindex"], read["state"], read["flags"]) == (INDEX, neighbours.NUD_PERMANENT, 0)
    assert (read["attrs"]["NDA_DST"], read["attrs"]["NDA_LLADDR"]) == (address, mac)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    fields = {"family": family, "ifindex": INDEX, "state": neighbours.NUD_PERMANENT}
    packed = ours(ndmsg, fields, [("NDA_DST", address), ("NDA_LLADDR", mac)])
    assert neighbours.decode(packed, NAMES) == entry
    assert neighbours.decode(packed, {}) is None


@given(st.one_of(ipv4, ipv6).map(str), macs)
def test_forwarding_entries_agree_in_both_directions(remote: str, mac: str) -> None:
    entry = FdbEntry("flannel.1", mac, remote)
    read = theirs(ndmsg, neighbours.create(entry, INDEX))
    assert (read["family"], read["flags"]) == (neighbours.AF_BRIDGE, neighbours.NTF_SELF)
    assert (read["attrs"]["NDA_DST"], read["attrs"]["NDA_LLADDR"]) == (remote, mac)
    gone = theirs(ndmsg, neighbours.delete(entry, INDEX))
    assert gone["attrs"] == {"NDA_LLADDR": mac}
    fields = {"family": neighbours.AF_BRIDGE, "ifindex": INDEX, "state": 0x80, "flags": 2}
    packed = ours(ndmsg, fields, [("NDA_LLADDR", mac), ("NDA_DST", remote)])
    assert neighbours.decode(packed, NAMES) == entry


def test_a_remote_with_a_port_of_its_own_is_not_the_wanted_one() -> None:
    fields = {"family": neighbours.AF_BRIDGE, "ifindex": INDEX, "state": 0x80, "flags": 2}
    packed = ours(ndmsg, fields, [("NDA_LLADDR", "8a:00:00:00:00:02"), ("NDA_DST", "192.0.2.2"), ("NDA_PORT", 9999)])
    entry = neighbours.decode(packed, NAMES)
    assert isinstance(entry, FdbEntry)
    assert entry.remote == "192.0.2.2 port 9999"


@st.composite
def vxlans(draw: st.DrawFn) -> Link:
    return Link(
        name="flannel.1",
        info=Vxlan(
            vni=draw(st.integers(0, 2**24 - 1)),
            underlay="eth0",
            local=str(draw(st.one_of(ipv4, ipv6))),
            port=draw(st.integers(1, 65535)),
            learning=draw(st.booleans()),
            gbp=draw(st.booleans()),
        ),
        mtu=draw(st.integers(68, 65535)),
        mac=draw(macs),
        txqueuelen=draw(st.integers(0, 2**32 - 1)),
        up=draw(st.booleans()),
    )


@given(vxlans())
def test_pyroute2_reads_a_vxlan_device_that_we_pack(link: Link) -> None:
    info = link.info
    assert isinstance(info, Vxlan)
    read = theirs(ifinfmsg, links.create(link, {"eth0": 2}.__getitem__))
    attributes = read["attrs"]
    assert (attributes["IFLA_IFNAME"], attributes["IFLA_MTU"], attributes["IFLA_ADDRESS"]) == (
        link.name,
        link.mtu,
        link.mac,
    )
    assert attributes["IFLA_TXQLEN"] == link.txqueuelen
    assert (read["flags"] & 1, read["change"]) == (link.up, 1)
    assert attributes["IFLA_LINKINFO"].get_attr("IFLA_INFO_KIND") == "vxlan"
    data = attributes["IFLA_LINKINFO"].get_attr("IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_VXLAN_ID"), data.get_attr("IFLA_VXLAN_LINK")) == (info.vni, 2)
    assert info.local in (data.get_attr("IFLA_VXLAN_LOCAL"), data.get_attr("IFLA_VXLAN_LOCAL6"))
    assert data.get_attr("IFLA_VXLAN_PORT") == info.port
    assert data.get_attr("IFLA_VXLAN_LEARNING") == info.learning
    assert (data.get_attr("IFLA_VXLAN_GBP") is not None) == info.gbp


@given(vxlans())
def test_we_read_a_vxlan_device_that_pyroute2_packs(link: Link) -> None:
    info = link.info
    assert isinstance(info, Vxlan)
    data: list[tuple[str, Any]] = [
        ("IFLA_VXLAN_ID", info.vni),
        ("IFLA_VXLAN_LINK", 2),
        ("IFLA_VXLAN_LOCAL6" if ":" in info.local else "IFLA_VXLAN_LOCAL", info.local),
        ("IFLA_VXLAN_LEARNING", int(info.learning)),
        ("IFLA_VXLAN_PORT", info.port),
    ]
    if info.gbp:
        data.append(("IFLA_VXLAN_GBP", True))
    attributes: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", link.name),
        ("IFLA_MTU", link.mtu),
        ("IFLA_ADDRESS", link.mac),
        ("IFLA_TXQLEN", link.txqueuelen),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]}),
    ]
    row = links.decode(ours(ifinfmsg, {"index": INDEX, "flags": int(link.up)}, attributes), NAMES)
    assert (row.index, row.name, row.mac, row.mtu, row.link) == (INDEX, link.name, link.mac, link.mtu, link)


def test_a_link_without_a_kind_is_hardware() -> None:
    row = links.decode(ours(ifinfmsg, {"index": 2, "flags": 1}, [("IFLA_IFNAME", "eth0"), ("IFLA_MTU", 1500)]), NAMES)
    assert row.link.info == OtherLink("")
    assert row.mac == ""


def test_only_what_differs_is_sent_to_a_device_that_stays() -> None:
    have = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1", port=8472), 1450, mac="8a:00:00:00:00:01")
    want = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.7"), 1400)
    of_vxlan, of_link = (theirs(ifinfmsg, request) for request in links.change(want, have, INDEX, {}.__getitem__))
    assert (of_vxlan["index"], of_vxlan["change"], set(of_vxlan["attrs"])) == (INDEX, 0, {"IFLA_LINKINFO"})
    data = of_vxlan["attrs"]["IFLA_LINKINFO"].get_attr("IFLA_INFO_DATA")
    assert dict(data["attrs"]) == {"IFLA_VXLAN_LOCAL": "192.0.2.7"}
    assert (of_link["index"], of_link["attrs"]) == (INDEX, {"IFLA_MTU": 1400})
