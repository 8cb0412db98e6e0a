"""Packets on their way out: which of them leave together as one send with UDP_SEGMENT. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .headers import FIELDS, HEADER_BYTES, HOP, HOP_AT, LAST_HOP, ONE_HOP

MOST_BYTES = 65507
"""The payload of the largest UDP datagram; a send with UDP_SEGMENT is no larger (net/ipv4/udp.c)."""
MOST_PACKETS = 64
"""UDP_MAX_SEGMENTS of linux/udp.h; newer kernels take 128."""

Run = tuple[str, int, int]
"""Address of the peer, index of the first packet, index behind the last one."""


def runs(
    buffer: bytearray, stride: int, sizes: Sequence[int], find: Callable[[bytes], str | None], drop: Callable[[], None]
) -> Iterator[Run]:
    """Groups neighbours for one peer: all are as long as the first, but for the last, which may be shorter.

    Packet ``i`` has ``sizes[i]`` bytes at ``i * stride``. ``find`` tells the host that a destination is on. A packet
    has a hop taken when its run is yielded; ``drop`` is called for each that goes nowhere, such as the IPv6 that a
    kernel tries on every device. This is the most that the forwarder does per packet, and calls no function but one.
    """
    unpack, pack = FIELDS.unpack_from, HOP.pack_into
    first, peer, length, room = 0, "", 0, 0
    at = -stride
    for index, size in enumerate(sizes):
        at += stride
        found = None
        if size >= HEADER_BYTES:
            version, total, _, hop, checksum, _, destination = unpack(buffer, at)
            if hop > LAST_HOP and total == size and version & 0xF0 == 0x40:
                found = find(destination)
        if found is None:
            drop()
            if first < index:
                yield peer, first, index
            first = index + 1
            continue
        checksum += ONE_HOP
        pack(buffer, at + HOP_AT, hop - ONE_HOP, checksum if checksum < 0xFFFF else checksum - 0xFFFF)
        if first < index:
            if found == peer and size <= length and room >= size:
                room -= size
                if size < length or index - first + 1 == MOST_PACKETS:
                    yield peer, first, index + 1
                    first = index + 1
                continue
            yield peer, first, index
            first = index
        peer, length, room = found, size, MOST_BYTES - size
    if first < len(sizes):
        yield peer, first, len(sizes)
