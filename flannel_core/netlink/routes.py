"""Routes on the wire: RTM_*ROUTE, RTA_* and RTN_* of linux/rtnetlink.h."""

from __future__ import annotations

from collections.abc import Mapping
from socket import AF_INET, AF_INET6
from struct import Struct

import msgspec

from ..lease import Family, IPAddress
from ..objects import Route
from .message import (
    BYTE_ORDER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    MalformedMessage,
    Message,
    Request,
    address_bytes,
    address_text,
    attribute,
    attribute_u32,
    attributes,
    nested,
    u32,
    unpack_head,
)

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_METRICS = 8
RTA_MULTIPATH = 9
RTA_TABLE = 15
RTA_VIA = 18
RTAX_MTU = 2
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4
RT_SCOPE_NOWHERE = 255
RTPROT_KERNEL = 2
RTPROT_RA = 9

DEFAULT_IPV6_METRIC = 1024
"""IP6_RT_PRIO_USER of linux/ipv6_route.h: what the kernel makes of a route without a metric."""

TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
"""RTN_* by the words of ``ip route``."""
DEVICELESS = frozenset({"blackhole", "unreachable", "prohibit", "throw"})

_TYPE_NUMBERS = {name: number for number, name in TYPES.items()}
_FAMILIES: dict[Family, int] = {4: AF_INET, 6: AF_INET6}
# rtm_family, rtm_dst_len, rtm_src_len, rtm_tos, rtm_table, rtm_protocol, rtm_scope, rtm_type, rtm_flags
_RTMSG = Struct("=BBBBBBBBI")
_RTNEXTHOP = Struct("=HBBi")  # rtnh_len, rtnh_flags, rtnh_hops, rtnh_ifindex


class RouteRow(msgspec.Struct, frozen=True, gc=False):
    """A route with the index of its (first) device, 0 where it has none."""

    route: Route
    index: int


def dump(family: Family, *, table: int = 0, protocol: int = 0, index: int = 0) -> Request:
    """The routes of a family, where the kernel can (strict dumps) only those of a table, a protocol, a device.

    The kernel answers ENOENT for a table that it has not made yet.
    """
    body = _RTMSG.pack(_FAMILIES[family], 0, 0, 0, 0, protocol, 0, 0, 0)
    if table:
        body += attribute_u32(RTA_TABLE, table)
    if index:
        body += attribute_u32(RTA_OIF, index)
    return Request(RTM_GETROUTE, 0, body)


def lookup(address: IPAddress) -> Request:
    """Which way packets to ``address`` take."""
    head = _RTMSG.pack(_FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return Request(RTM_GETROUTE, 0, head + attribute(RTA_DST, address.packed))


def create(route: Route, index: int) -> Request:
    """Fails with EEXIST where a route of this identity stands, whosever it is. EXCL matters twice: IPv6 would join a
    foreign route as one more next hop without it."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _encode(route, index))


def replace(route: Route, index: int) -> Request:
    """Overwrites whatever has this identity: only for what is ours."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _encode(route, index))


def delete(route: Route, index: int) -> Request:
    """Carries protocol, type, table, metric and device, so that no other route of this destination is hit. The gateway
    is left out: IPv6 would take one next hop out of several with it."""
    address, _, length = route.destination.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    metric = route.metric
    if metric is None and family == AF_INET6:
        metric = DEFAULT_IPV6_METRIC
    head = _RTMSG.pack(
        family,
        int(length),
        0,
        route.tos,
        route.table if route.table < 256 else 0,
        route.protocol,
        RT_SCOPE_NOWHERE,
        _TYPE_NUMBERS[route.type],
        0,
    )
    body = head + attribute(RTA_DST, address_bytes(address))
    if route.table > 255:
        body += attribute_u32(RTA_TABLE, route.table)
    if metric is not None:
        body += attribute_u32(RTA_PRIORITY, metric)
    if index:
        body += attribute_u32(RTA_OIF, index)
    return Request(RTM_DELROUTE, 0, body)


def decode(message: Message, names: Mapping[int, str], *, clones: bool = False) -> RouteRow | None:
    """An RTM_NEWROUTE or RTM_DELROUTE. None for what is no route of IPv4 or IPv6, or a mere cache entry (unless
    ``clones``: the answer to ``lookup`` is one).

    A device that ``names`` lacks is called ``if7``. The next hops beyond the first are only counted. Raises
    MalformedMessage.
    """
    body = message.body
    family, length, _, tos, table, protocol, scope, kind, flags = unpack_head(_RTMSG, body)
    if family not in (AF_INET, AF_INET6) or (flags & RTM_F_CLONED and not clones):
        return None
    bits = 32 if family == AF_INET else 128
    if length > bits:
        raise MalformedMessage(f"a prefix of {length} bits in an address of {bits}")
    found = attributes(body, _RTMSG.size)
    metric = u32(found[RTA_PRIORITY]) if RTA_PRIORITY in found else None
    if metric == 0 or (metric == DEFAULT_IPV6_METRIC and family == AF_INET6):
        metric = None
    index = u32(found[RTA_OIF]) if RTA_OIF in found else 0
    hops = 1
    paths = found
    if RTA_MULTIPATH in found:
        hops, index, hop_flags, paths = _first_hop(found[RTA_MULTIPATH])
        flags |= hop_flags
    gateway = None
    if RTA_GATEWAY in paths:
        gateway = address_text(paths[RTA_GATEWAY])
    elif RTA_VIA in paths:
        gateway = address_text(paths[RTA_VIA][2:])
    name = TYPES.get(kind, str(kind))
    if name in DEVICELESS:
        index = 0  # IPv6 hangs them on lo
    destination = found.get(RTA_DST)
    if destination is None:
        destination = bytes(bits // 8)
    elif len(destination) * 8 != bits:
        raise MalformedMessage(f"a destination of {len(destination)} bytes")
    mtu = None
    if RTA_METRICS in found:
        metrics = attributes(found[RTA_METRICS])
        mtu = u32(metrics[RTAX_MTU]) if RTAX_MTU in metrics else None
    route = Route(
        destination=f"{address_text(destination)}/{length}",
        device=(names.get(index) or f"if{index}") if index else None,
        gateway=gateway,
        onlink=bool(flags & RTNH_F_ONLINK),
        source=address_text(found[RTA_PREFSRC]) if RTA_PREFSRC in found else None,
        scope=scope,
        type=name,
        table=u32(found[RTA_TABLE]) if RTA_TABLE in found else table,
        metric=metric,
        tos=tos,
        mtu=mtu,
        protocol=protocol,
        nexthops=hops,
    )
    return RouteRow(route, index)


def describe(route: Route) -> str:
    """The route in the words of ``ip route``, fit to be typed after ``ip route del``."""
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.destination)
    if route.tos:
        words += ["tos", hex(route.tos)]
    if route.gateway:
        words += ["via", route.gateway]
    if route.device:
        words += ["dev", route.device]
    if route.table != 254:
        words += ["table", str(route.table)]
    words += ["proto", _PROTOCOLS.get(route.protocol, str(route.protocol))]
    if route.scope:
        words += ["scope", _SCOPES.get(route.scope, str(route.scope))]
    if route.metric is not None:
        words += ["metric", str(route.metric)]
    return " ".join(words)


def _encode(route: Route, index: int) -> bytes:
    address, _, length = route.destination.partition("/")
    six = ":" in address
    table = route.table
    body = _RTMSG.pack(
        AF_INET6 if six else AF_INET,
        int(length),
        0,
        route.tos,
        table if table < 256 else 0,
        route.protocol,
        route.scope,
        _TYPE_NUMBERS[route.type],
        RTNH_F_ONLINK if route.onlink else 0,
    ) + attribute(RTA_DST, address_bytes(address))
    gateway = route.gateway
    if gateway is not None:
        if (":" in gateway) == six:
            body += attribute(RTA_GATEWAY, address_bytes(gateway))
        else:  # struct rtvia: a gateway of the other family
            other = AF_INET if six else AF_INET6
            body += attribute(RTA_VIA, other.to_bytes(2, BYTE_ORDER) + address_bytes(gateway))
    if index:
        body += attribute_u32(RTA_OIF, index)
    if table > 255:
        body += attribute_u32(RTA_TABLE, table)
    if route.metric is not None:
        body += attribute_u32(RTA_PRIORITY, route.metric)
    if route.source is not None:
        body += attribute(RTA_PREFSRC, address_bytes(route.source))
    if route.mtu is not None:
        body += nested(RTA_METRICS, attribute_u32(RTAX_MTU, route.mtu))
    return body


def _first_hop(multipath: bytes) -> tuple[int, int, int, dict[int, bytes]]:
    """How many next hops there are; index, flags and attributes of the first."""
    position, hops = 0, 0
    index, flags, first = 0, 0, b""
    while position < len(multipath):
        if len(multipath) - position < _RTNEXTHOP.size:
            raise MalformedMessage("a next hop is cut off")
        length, hop_flags, _, hop_index = _RTNEXTHOP.unpack_from(multipath, position)
        if length < _RTNEXTHOP.size or position + length > len(multipath):
            raise MalformedMessage(f"a next hop claims {length} bytes of {len(multipath) - position}")
        if hops == 0:
            index, flags, first = hop_index, hop_flags, multipath[position + _RTNEXTHOP.size : position + length]
        hops += 1
        position += (length + 3) & ~3
    return hops, index, flags, attributes(first)


_PROTOCOLS = {
    # RTPROT_* by the names of iproute2's rt_protos
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    9: "ra",
    16: "dhcp",
    186: "bgp",
    188: "ospf",
}
_SCOPES = {200: "site", 253: "link", 254: "host", 255: "nowhere"}
