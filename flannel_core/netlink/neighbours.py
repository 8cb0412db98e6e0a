"""Neighbours and forwarding entries on the wire: RTM_*NEIGH, NDA_*, NTF_*, NUD_* of linux/neighbour.h."""

from __future__ import annotations

from collections.abc import Mapping
from socket import AF_INET, AF_INET6
from struct import Struct

from ..objects import FdbEntry, Neighbour
from .message import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Request,
    address_bytes,
    address_family,
    address_text,
    attribute,
    attribute_u32,
    attributes,
    mac_bytes,
    mac_text,
    u16_network,
    u32,
    unpack_head,
)

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30

AF_BRIDGE = 7  # linux/socket.h

NDA_DST = 1
NDA_LLADDR = 2
NDA_PORT = 6
NDA_VNI = 7
NDA_IFINDEX = 8
NTF_SELF = 0x02
NUD_PERMANENT = 0x80

_NDMSG = Struct("=BxxxiHBB")  # ndm_family, ndm_ifindex, ndm_state, ndm_flags, ndm_type


def dump_neighbours(index: int) -> Request:
    """The neighbours of a device, of both families."""
    return Request(RTM_GETNEIGH, 0, _NDMSG.pack(0, 0, 0, 0, 0) + attribute_u32(NDA_IFINDEX, index))


def dump_fdb(index: int) -> Request:
    """The forwarding entries of a device."""
    return Request(RTM_GETNEIGH, 0, _NDMSG.pack(AF_BRIDGE, index, 0, 0, 0))


def create(entry: Neighbour | FdbEntry, index: int) -> Request:
    """Fails with EEXIST where there is an entry for this address or MAC."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, _encode(entry, index))


def replace(entry: Neighbour | FdbEntry, index: int) -> Request:
    """Overwrites the entry for this address or MAC; makes one where there is none."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _encode(entry, index))


def delete(entry: Neighbour | FdbEntry, index: int) -> Request:
    """A forwarding entry goes whatever its remote is by now."""
    if isinstance(entry, FdbEntry):
        head = _NDMSG.pack(AF_BRIDGE, index, 0, NTF_SELF, 0)
        return Request(RTM_DELNEIGH, 0, head + attribute(NDA_LLADDR, mac_bytes(entry.mac)))
    head = _NDMSG.pack(address_family(entry.address), index, 0, 0, 0)
    return Request(RTM_DELNEIGH, 0, head + attribute(NDA_DST, address_bytes(entry.address)))


def decode(message: Message, names: Mapping[int, str]) -> Neighbour | FdbEntry | None:
    """An RTM_NEWNEIGH or RTM_DELNEIGH.

    None for other families, for entries of a bridge rather than of the device itself, and on devices that ``names``
    does not have. A remote with a port, VNI or device of its own is spelled out, and so differs from any wanted.
    Raises MalformedMessage.
    """
    family, index, state, flags, _ = unpack_head(_NDMSG, message.body)
    device = names.get(index)
    if device is None or family not in (AF_INET, AF_INET6, AF_BRIDGE):
        return None
    found = attributes(message.body, _NDMSG.size)
    permanent = bool(state & NUD_PERMANENT)
    mac = mac_text(found.get(NDA_LLADDR, b""))
    address = address_text(found[NDA_DST]) if NDA_DST in found else ""
    if family != AF_BRIDGE:
        return Neighbour(device, address, mac, permanent)
    if not flags & NTF_SELF:
        return None
    if NDA_PORT in found:
        address += f" port {u16_network(found[NDA_PORT])}"
    if NDA_VNI in found:
        address += f" vni {u32(found[NDA_VNI])}"
    if NDA_IFINDEX in found:
        address += f" via if{u32(found[NDA_IFINDEX])}"
    return FdbEntry(device, mac, address, permanent)


def _encode(entry: Neighbour | FdbEntry, index: int) -> bytes:
    if isinstance(entry, FdbEntry):
        head = _NDMSG.pack(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0)
        address = entry.remote
    else:
        head = _NDMSG.pack(address_family(entry.address), index, NUD_PERMANENT, 0, 0)
        address = entry.address
    return head + attribute(NDA_DST, address_bytes(address)) + attribute(NDA_LLADDR, mac_bytes(entry.mac))
