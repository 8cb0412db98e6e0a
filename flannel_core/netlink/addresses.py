"""Addresses on the wire: RTM_*ADDR of linux/rtnetlink.h, IFA_* of linux/if_addr.h."""

from __future__ import annotations

from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from struct import Struct

import msgspec

from ..lease import IPAddress
from ..objects import Address
from .message import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    MalformedMessage,
    Message,
    Request,
    address_bytes,
    address_family,
    attribute,
    attributes,
    u32,
    unpack_head,
)

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_FLAGS = 8
IFA_F_NODAD = 0x02
RT_SCOPE_LINK = 253  # linux/rtnetlink.h

_IFADDRMSG = Struct("=BBBBI")  # ifa_family, ifa_prefixlen, ifa_flags, ifa_scope, ifa_index


class AddressRow(msgspec.Struct, frozen=True, gc=False):
    """An address as the kernel tells it. ``scope`` is RT_SCOPE_* (0 global, 253 link, 254 host), ``flags`` IFA_F_*."""

    index: int
    address: IPAddress
    prefixlen: int
    scope: int
    flags: int


def dump(index: int = 0) -> Request:
    """The addresses of both families, of one device or (0) of all. Without strict dumps always of all."""
    return Request(RTM_GETADDR, 0, _IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index))


def create(address: Address, index: int) -> Request:
    """IPv6 comes without duplicate address detection: the address is usable at once, and it is a host's own by lease.

    The kernel adds the routes that it adds for every address (protocol kernel), as it does for Go flannel's.
    """
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _body(address, index))


def delete(address: Address, index: int) -> Request:
    return Request(RTM_DELADDR, 0, _body(address, index))


def decode(message: Message) -> AddressRow:
    """An RTM_NEWADDR or RTM_DELADDR. Raises MalformedMessage."""
    family, prefixlen, flags, scope, index = unpack_head(_IFADDRMSG, message.body)
    found = attributes(message.body, _IFADDRMSG.size)
    # IFA_ADDRESS is the peer's on a point-to-point link; IFA_LOCAL, where there is one, is always our own.
    value = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    if (family, len(value)) not in ((AF_INET, 4), (AF_INET6, 16)):
        raise MalformedMessage(f"an address of family {family} in {len(value)} bytes")
    if prefixlen > 8 * len(value):
        raise MalformedMessage(f"a prefix of {prefixlen} bits in an address of {8 * len(value)}")
    if IFA_FLAGS in found:
        flags = u32(found[IFA_FLAGS])
    return AddressRow(index, ip_address(value), prefixlen, scope, flags)


def as_object(row: AddressRow, device: str) -> Address:
    return Address(device, f"{row.address}/{row.prefixlen}")


def _body(address: Address, index: int) -> bytes:
    host, _, length = address.address.partition("/")
    family = address_family(host)
    value = address_bytes(host)
    flags = IFA_F_NODAD if family == AF_INET6 else 0
    head = _IFADDRMSG.pack(family, int(length), flags, 0, index)
    return head + attribute(IFA_LOCAL, value) + attribute(IFA_ADDRESS, value)
