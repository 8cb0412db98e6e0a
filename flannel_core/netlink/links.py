"""Links on the wire: RTM_*LINK of linux/rtnetlink.h, IFLA_* of linux/if_link.h."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from socket import AF_UNSPEC
from struct import Struct

import msgspec

from ..objects import Link, LinkInfo, OtherLink
from .link_kinds import CODECS, KINDS
from .message import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Request,
    attribute,
    attribute_text,
    attribute_u32,
    attributes,
    mac_bytes,
    mac_text,
    nested,
    text,
    u32,
    unpack_head,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

IFF_UP = 0x1  # linux/if.h
IFF_LOOPBACK = 0x8

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_TXQLEN = 13
IFLA_LINKINFO = 18
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
RTEXT_FILTER_SKIP_STATS = 8  # linux/rtnetlink.h

ETHERNET_MAC = len("8a:01:02:03:04:05")

_IFINFOMSG = Struct("=BxHiII")  # ifi_family, ifi_type, ifi_index, ifi_flags, ifi_change


class LinkRow(msgspec.Struct, frozen=True, gc=False):
    """A link with what only the kernel decides. ``flags`` are IFF_*, ``mtu`` bytes, ``mac`` "" where it has none."""

    index: int
    name: str
    flags: int
    mtu: int
    mac: str
    link: Link


class MissingDevice(Exception):
    """``str(error)`` is the name of a device that does not exist."""


def dump() -> Request:
    """All links, without their statistics."""
    return Request(RTM_GETLINK, 0, _IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + _SKIP_STATS)


def get(name: str) -> Request:
    """One link by name."""
    return Request(RTM_GETLINK, 0, _IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + _SKIP_STATS + _ifname(name))


def create(link: Link, indexes: Callable[[str], int]) -> Request:
    """Make ``link`` with all it should have, and up, in one step: no moment in which another MAC could be seen.

    ``indexes`` gives a device's index and raises MissingDevice. Raises ValueError for a TUN device: see ``tun``.
    """
    info = link.info
    parts = [_ifname(link.name), attribute_u32(IFLA_MTU, link.mtu)]
    if link.mac is not None:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(link.mac)))
    if link.txqueuelen is not None:
        parts.append(attribute_u32(IFLA_TXQLEN, link.txqueuelen))
    parts.append(_linkinfo(info, CODECS[type(info)].create(info, indexes)))
    flags = IFF_UP if link.up else 0
    head = _IFINFOMSG.pack(AF_UNSPEC, 0, 0, flags, IFF_UP)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, head + b"".join(parts))


def change(link: Link, actual: Link, index: int, indexes: Callable[[str], int]) -> list[Request]:
    """Turn ``actual`` into ``link`` in place: only what differs is sent, so that nothing else is disturbed.

    What is of its kind goes first and alone: the kernel takes no MTU in the same message (vxlan), and a new underlay
    decides which MTU is possible.
    """
    requests = []
    data = CODECS[type(link.info)].change(link.info, actual.info, indexes)
    if data:
        head = _IFINFOMSG.pack(AF_UNSPEC, 0, index, 0, 0)
        requests.append(Request(RTM_NEWLINK, 0, head + _linkinfo(link.info, data)))
    parts: list[bytes] = []
    if link.mac not in (None, actual.mac):
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(link.mac or "")))
    if link.mtu != actual.mtu:
        parts.append(attribute_u32(IFLA_MTU, link.mtu))
    if link.txqueuelen is not None and link.txqueuelen != actual.txqueuelen:
        parts.append(attribute_u32(IFLA_TXQLEN, link.txqueuelen))
    if parts or link.up != actual.up:
        flags = IFF_UP if link.up else 0
        head = _IFINFOMSG.pack(AF_UNSPEC, 0, index, flags, IFF_UP)
        requests.append(Request(RTM_NEWLINK, 0, head + b"".join(parts)))
    return requests


def delete(index: int) -> Request:
    return Request(RTM_DELLINK, 0, _IFINFOMSG.pack(AF_UNSPEC, 0, index, 0, 0))


def decode_name(message: Message) -> tuple[int, int, str]:
    """Family, index and name: enough for a map of names, which ``decode`` needs. Raises MalformedMessage."""
    family, _, index, _, _ = unpack_head(_IFINFOMSG, message.body)
    return family, index, text(attributes(message.body, _IFINFOMSG.size).get(IFLA_IFNAME, b""))


def decode(message: Message, names: Mapping[int, str]) -> LinkRow:
    """An RTM_NEWLINK or RTM_DELLINK. An underlay that ``names`` lacks (another namespace's) is called ``if7``.
    Raises MalformedMessage."""
    _, _, index, flags, _ = unpack_head(_IFINFOMSG, message.body)
    found = attributes(message.body, _IFINFOMSG.size)
    name = text(found.get(IFLA_IFNAME, b""))
    mtu = u32(found[IFLA_MTU]) if IFLA_MTU in found else 0
    mac = mac_text(found.get(IFLA_ADDRESS, b""))
    link = Link(
        name=name,
        info=_decode_info(found.get(IFLA_LINKINFO, b""), names),
        mtu=mtu,
        mac=mac if len(mac) == ETHERNET_MAC else None,  # an ipip device shows its local address there
        txqueuelen=u32(found[IFLA_TXQLEN]) if IFLA_TXQLEN in found else None,
        up=bool(flags & IFF_UP),
    )
    return LinkRow(index, name, flags, mtu, mac, link)


def _decode_info(linkinfo: bytes, names: Mapping[int, str]) -> LinkInfo:
    found = attributes(linkinfo)
    kind = text(found.get(IFLA_INFO_KIND, b""))
    if kind not in KINDS:
        return OtherLink(kind)
    return CODECS[KINDS[kind]].decode(attributes(found.get(IFLA_INFO_DATA, b"")), names)


def _linkinfo(info: LinkInfo, data: list[bytes]) -> bytes:
    return nested(IFLA_LINKINFO, attribute_text(IFLA_INFO_KIND, info.kind), nested(IFLA_INFO_DATA, *data))


def _ifname(name: str) -> bytes:
    return attribute_text(IFLA_IFNAME, name)


_SKIP_STATS = attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
