"""How netlink messages and their attributes lie in memory: packing, and parsing that survives anything.

Headers and attributes are in the host's byte order and padded to four bytes (linux/netlink.h). What comes in is
``bytes``; whatever is wrong with it raises MalformedMessage and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_ntoa, inet_ntop, inet_pton
from struct import Struct
from typing import Literal

import msgspec

from ..errors import FlannelError

# linux/netlink.h
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

BYTE_ORDER: Literal["little", "big"] = sys.byteorder

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_ATTRIBUTE_U8 = Struct("=HHBxxx")
_ATTRIBUTE_U32 = Struct("=HHI")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

HEADER_BYTES = _HEADER.size


class MalformedMessage(FlannelError):
    """A netlink message whose lengths or values cannot be true."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as it came in. ``body`` is what follows the header; ``port`` names the socket whose request caused
    it (0: the kernel itself)."""

    type: int
    flags: int
    sequence: int
    port: int
    body: bytes


class Request(msgspec.Struct, frozen=True, gc=False):
    """A message to send: RTM_* type, NLM_F_* flags besides REQUEST and ACK, and the body."""

    type: int
    flags: int
    body: bytes


def pack(request: Request, sequence: int, flags: int) -> bytes:
    """``request`` with its header, ready to send; ``flags`` are added to its own."""
    body = request.body
    return _HEADER.pack(16 + len(body), request.type, request.flags | flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises MalformedMessage where a length is not true."""
    position, end = 0, len(datagram)
    unpack = _HEADER.unpack_from
    while position < end:
        if end - position < 16:
            raise MalformedMessage(f"{end - position} bytes are left, too few for a netlink header")
        length, kind, flags, sequence, port = unpack(datagram, position)
        if length < 16 or position + length > end:
            raise MalformedMessage(f"a netlink message claims {length} bytes of {end - position}")
        yield Message(kind, flags, sequence, port, datagram[position + 16 : position + length])
        position += (length + 3) & ~3


def attributes(body: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from ``start`` on, by type without its flag bits; of a repeated one the last counts.

    Nested ones are parsed by calling this with their value. Raises MalformedMessage.
    """
    found: dict[int, bytes] = {}
    position, end = start, len(body)
    unpack = _ATTRIBUTE.unpack_from
    while position < end:
        if end - position < 4:
            raise MalformedMessage(f"{end - position} bytes are left, too few for a netlink attribute")
        length, kind = unpack(body, position)
        if length < 4 or position + length > end:
            raise MalformedMessage(f"a netlink attribute claims {length} bytes of {end - position}")
        found[kind & NLA_TYPE_MASK] = body[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = len(value)
    return _ATTRIBUTE.pack(4 + length, kind) + value + _PADDING[length & 3]


def attribute_u8(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U8.pack(5, kind, value)


def attribute_u32(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U32.pack(8, kind, value)


def attribute_text(kind: int, value: str) -> bytes:
    """A string attribute, with the NUL at its end that the kernel wants."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def unpack_head(layout: Struct, body: bytes) -> tuple[int, ...]:
    """The fixed struct at the start of ``body`` (rtmsg, ifinfomsg, ...). Raises MalformedMessage."""
    if len(body) < layout.size:
        raise MalformedMessage(f"{len(body)} bytes, too few for a struct of {layout.size}")
    return layout.unpack_from(body)


def u8(value: bytes) -> int:
    if len(value) != 1:
        raise MalformedMessage(f"{len(value)} bytes where one is due")
    return value[0]


def u16(value: bytes) -> int:
    if len(value) != 2:
        raise MalformedMessage(f"{len(value)} bytes where two are due")
    return int.from_bytes(value, BYTE_ORDER)


def u16_network(value: bytes) -> int:
    """A port number: two bytes in network order."""
    if len(value) != 2:
        raise MalformedMessage(f"{len(value)} bytes where two are due")
    return int.from_bytes(value, "big")


def u32(value: bytes) -> int:
    if len(value) != 4:
        raise MalformedMessage(f"{len(value)} bytes where four are due")
    return int.from_bytes(value, BYTE_ORDER)


def text(value: bytes) -> str:
    """A string up to its NUL. What is not UTF-8 comes out escaped, fit for a terminal."""
    return value.split(b"\0", 1)[0].decode(errors="backslashreplace")


def address_text(value: bytes) -> str:
    """An IPv4 or IPv6 address, told apart by its length."""
    if len(value) == 4:
        return inet_ntoa(value)
    if len(value) == 16:
        return inet_ntop(AF_INET6, value)
    raise MalformedMessage(f"an address of {len(value)} bytes")


def address_bytes(address: str) -> bytes:
    """Four or sixteen bytes. Raises OSError for what is no address."""
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def address_family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def mac_text(value: bytes) -> str:
    """``8a:01:02:03:04:05``; shorter or longer for links that are not Ethernet."""
    return value.hex(":")


def mac_bytes(mac: str) -> bytes:
    """Raises ValueError for what is no MAC."""
    value = bytes.fromhex(mac.replace(":", ""))
    if len(value) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return value
