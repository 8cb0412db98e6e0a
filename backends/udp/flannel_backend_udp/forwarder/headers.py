"""IPv4 headers in a buffer: what is wrong with one, and one hop less to live. Pure.

Offsets are those of RFC 791; the checksum is RFC 1071's, changed in place as RFC 1624 has it.
"""

from __future__ import annotations

from struct import Struct

FIELDS = Struct("!BxHxxHHH4s4s")
"""Version and header length, total length, fragment, time to live and protocol, checksum, source, destination."""
HEADER_BYTES = FIELDS.size

HOP = Struct("!HH")
"""Time to live and protocol, checksum."""
HOP_AT = 8
ONE_HOP = 0x100
"""What the word that begins with the time to live loses, and the checksum gains."""
LAST_HOP = 0x1FF
"""No more than this in that word: whoever takes a hop drops the packet."""

Buffer = bytearray | memoryview


def is_packet(version: int, total: int, size: int) -> bool:
    """Whether ``size`` bytes that begin with these fields hold a whole IPv4 packet. Bytes behind it do not matter."""
    return 0x45 <= version <= 0x4F and (version & 0x0F) * 4 <= total <= size


def take_hop(buffer: Buffer, at: int, hop: int, checksum: int) -> None:
    """Write the header at ``at``, whose ``hop`` is more than LAST_HOP, with one hop less to live. A wrong checksum
    stays as wrong as it is."""
    checksum += ONE_HOP
    if checksum >= 0xFFFF:
        checksum -= 0xFFFF
    HOP.pack_into(buffer, at + HOP_AT, hop - ONE_HOP, checksum)


def sum_of(data: bytes | Buffer) -> int:
    """The one's complement sum of 16-bit words, 0 to 0xFFFE: 0 for a header whose checksum is right. ``data`` has an
    even length."""
    return int.from_bytes(data, "big") % 0xFFFF
