"""What links of each kind have of their own, IFLA_INFO_DATA: linux/if_link.h, linux/if_tunnel.h, linux/if_tun.h."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..objects import Ipip, LinkInfo, OtherLink, Tun, Vxlan, Wireguard
from .message import (
    BYTE_ORDER,
    address_bytes,
    address_text,
    attribute,
    attribute_u8,
    attribute_u32,
    u8,
    u16,
    u16_network,
    u32,
)

IFLA_VXLAN_ID = 1
IFLA_VXLAN_LINK = 3
IFLA_VXLAN_LOCAL = 4
IFLA_VXLAN_LEARNING = 7
IFLA_VXLAN_PORT = 15
IFLA_VXLAN_LOCAL6 = 17
IFLA_VXLAN_GBP = 23

IFLA_IPTUN_LOCAL = 2
IFLA_IPTUN_REMOTE = 3
IFLA_IPTUN_TTL = 4
IFLA_IPTUN_PMTUDISC = 10
IFLA_IPTUN_ENCAP_TYPE = 15
IFLA_IPTUN_ENCAP_FLAGS = 16
IFLA_IPTUN_ENCAP_SPORT = 17
IFLA_IPTUN_ENCAP_DPORT = 18
TUNNEL_ENCAP_NONE = 0
TUNNEL_ENCAP_FOU = 1
TUNNEL_ENCAP_FLAG_CSUM = 1

IFLA_TUN_OWNER = 1
IFLA_TUN_TYPE = 3
IFF_TUN = 0x0001

Attributes = Mapping[int, bytes]
Indexes = Callable[[str], int]
"""A device's index by its name; raises MissingDevice of ``links``."""
Names = Mapping[int, str]


class Codec(NamedTuple):
    """``create`` gives the attributes of a new link, ``change`` those that turn another one into it in place, none if
    it needs no change; ``decode`` reads them and raises MalformedMessage."""

    create: Callable[[Any, Indexes], list[bytes]]
    change: Callable[[Any, Any, Indexes], list[bytes]]
    decode: Callable[[Attributes, Names], LinkInfo]


# --- vxlan ----------------------------------------------------------------------------------------------------------


def _create_vxlan(info: Vxlan, indexes: Indexes) -> list[bytes]:
    data = [
        attribute_u32(IFLA_VXLAN_ID, info.vni),
        attribute_u8(IFLA_VXLAN_LEARNING, info.learning),
        *_vxlan_lower(info, None, indexes),
        attribute(IFLA_VXLAN_PORT, info.port.to_bytes(2, "big")),
    ]
    if info.gbp:
        data.append(attribute(IFLA_VXLAN_GBP, b""))
    return data


def _change_vxlan(want: Vxlan, have: Vxlan, indexes: Indexes) -> list[bytes]:
    data = _vxlan_lower(want, have, indexes)
    if want.learning != have.learning:
        data.append(attribute_u8(IFLA_VXLAN_LEARNING, want.learning))
    return data


def _vxlan_lower(want: Vxlan, have: Vxlan | None, indexes: Indexes) -> list[bytes]:
    """Underlay and local address, where they differ from ``have``."""
    data = []
    if have is None or want.underlay != have.underlay:
        data.append(attribute_u32(IFLA_VXLAN_LINK, indexes(want.underlay)))
    if have is None or want.local != have.local:
        kind = IFLA_VXLAN_LOCAL6 if ":" in want.local else IFLA_VXLAN_LOCAL
        data.append(attribute(kind, address_bytes(want.local)))
    return data


def _decode_vxlan(data: Attributes, names: Names) -> Vxlan:
    local = data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6)
    underlay = u32(data[IFLA_VXLAN_LINK]) if IFLA_VXLAN_LINK in data else 0
    return Vxlan(
        vni=u32(data[IFLA_VXLAN_ID]) if IFLA_VXLAN_ID in data else 0,
        underlay=names.get(underlay, f"if{underlay}") if underlay else "",
        local=address_text(local) if local else "",
        port=u16_network(data[IFLA_VXLAN_PORT]) if IFLA_VXLAN_PORT in data else 0,
        learning=bool(u8(data[IFLA_VXLAN_LEARNING])) if IFLA_VXLAN_LEARNING in data else False,
        gbp=IFLA_VXLAN_GBP in data,
    )


# --- ipip -----------------------------------------------------------------------------------------------------------


def _create_ipip(info: Ipip, indexes: Indexes) -> list[bytes]:
    """All of it each time, for a change as well: the kernel takes what is left out for 0 (ipip_netlink_parms of
    net/ipv4/ipip.c)."""
    port = (info.fou_port or 0).to_bytes(2, "big")
    none = info.fou_port is None
    encapsulation, flags = (TUNNEL_ENCAP_NONE, 0) if none else (TUNNEL_ENCAP_FOU, TUNNEL_ENCAP_FLAG_CSUM)
    return [
        attribute(IFLA_IPTUN_LOCAL, address_bytes(info.local)),
        attribute_u8(IFLA_IPTUN_TTL, info.ttl),
        attribute_u8(IFLA_IPTUN_PMTUDISC, info.pmtudisc),
        attribute(IFLA_IPTUN_ENCAP_TYPE, encapsulation.to_bytes(2, BYTE_ORDER)),
        attribute(IFLA_IPTUN_ENCAP_FLAGS, flags.to_bytes(2, BYTE_ORDER)),
        attribute(IFLA_IPTUN_ENCAP_SPORT, port),
        attribute(IFLA_IPTUN_ENCAP_DPORT, port),
    ]


def _change_ipip(want: Ipip, have: Ipip, indexes: Indexes) -> list[bytes]:
    return _create_ipip(want, indexes) if want != have else []


def _decode_ipip(data: Attributes, names: Names) -> Ipip:
    remote = data.get(IFLA_IPTUN_REMOTE, b"")
    return Ipip(
        local=address_text(data[IFLA_IPTUN_LOCAL]) if IFLA_IPTUN_LOCAL in data else "",
        ttl=u8(data[IFLA_IPTUN_TTL]) if IFLA_IPTUN_TTL in data else 0,
        pmtudisc=bool(u8(data[IFLA_IPTUN_PMTUDISC])) if IFLA_IPTUN_PMTUDISC in data else False,
        fou_port=_decode_fou_port(data),
        remote=address_text(remote) if any(remote) else "",
    )


def _decode_fou_port(data: Attributes) -> int | None:
    kind, source, destination, flags = (
        data.get(number, bytes(2))
        for number in (
            IFLA_IPTUN_ENCAP_TYPE,
            IFLA_IPTUN_ENCAP_SPORT,
            IFLA_IPTUN_ENCAP_DPORT,
            IFLA_IPTUN_ENCAP_FLAGS,
        )
    )
    if u16(kind) == TUNNEL_ENCAP_NONE:
        return None
    is_ours = u16(kind) == TUNNEL_ENCAP_FOU and source == destination and u16(flags) == TUNNEL_ENCAP_FLAG_CSUM
    return u16_network(destination) if is_ours else 0


# --- wireguard, tun -------------------------------------------------------------------------------------------------


def _create_wireguard(info: Wireguard, indexes: Indexes) -> list[bytes]:
    return []


def _decode_wireguard(data: Attributes, names: Names) -> Wireguard:
    return Wireguard()


def _create_tun(info: Tun, indexes: Indexes) -> list[bytes]:
    raise ValueError("rtnetlink makes no TUN devices, netlink/tun.py does")


def _decode_tun(data: Attributes, names: Names) -> LinkInfo:
    if IFLA_TUN_TYPE in data and u8(data[IFLA_TUN_TYPE]) != IFF_TUN:
        return OtherLink("tap")
    return Tun(u32(data[IFLA_TUN_OWNER]) if IFLA_TUN_OWNER in data else None)


def _change_nothing(want: LinkInfo, have: LinkInfo, indexes: Indexes) -> list[bytes]:
    return []


CODECS: Mapping[type[LinkInfo], Codec] = {
    Vxlan: Codec(_create_vxlan, _change_vxlan, _decode_vxlan),
    Ipip: Codec(_create_ipip, _change_ipip, _decode_ipip),
    Wireguard: Codec(_create_wireguard, _change_nothing, _decode_wireguard),
    Tun: Codec(_create_tun, _change_nothing, _decode_tun),
}
KINDS: Mapping[str, type[LinkInfo]] = {info.kind: info for info in CODECS}
"""By IFLA_INFO_KIND."""
