"""Datagrams on their way in: what the kernel received as one bundle (UDP_GRO) goes to the TUN device as few writes.

Neighbours of one TCP or UDP flow become one packet that says how to cut it up again, as the kernel's own GRO would
have it: everything but the sequence number, the identification and the checksums is the same in all of them. They are
not to be fragmented, so that the identification means nothing (RFC 6864). Pure.

The checksum of a merged packet covers its pseudo header alone and is left to whoever cuts it up. The payload was held
to be intact by the outer UDP checksum, which the sending kernel has computed beside the inner one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any

from .headers import FIELDS, HEADER_BYTES, LAST_HOP, is_packet, sum_of, take_hop

AS_IT_IS = bytes(10)
"""A struct virtio_net_hdr (linux/virtio_net.h) that says nothing."""
_TO_CUT = Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
NEEDS_CSUM = 1
GSO_TCPV4 = 1
GSO_UDP_L4 = 5

TCP, UDP = 6, 17
DONT_FRAGMENT = 0x4000
ACK, PUSH = 0x10, 0x08
_TCP_DATA_AT = 32
"""Where a packet without IP options says how long its TCP header is."""
_SHORTEST = {TCP: HEADER_BYTES + 20, UDP: HEADER_BYTES + 8}
_CHECKSUM_AT = {TCP: 16, UDP: 6}
"""In the TCP or UDP header."""
_FLAGS_AT = 33

LARGEST = 1 << 16
"""More bytes than a UDP datagram or a bundle of them has."""
REMEMBERED = 32
"""Sizes of datagrams for which slices and layouts are kept."""

Write = list[bytes | memoryview]
"""A virtio_net_hdr and a packet, in pieces."""


class Bundles:
    """Takes the bundles that are received into ``buffer``, LARGEST bytes at most, one after the other."""

    def __init__(
        self,
        find: Callable[[bytes], str | None],
        drop: Callable[[], None],
        *,
        merges_udp: bool,
    ) -> None:
        """``find`` tells the host that a source is on. ``drop`` is called for each packet that goes nowhere.
        ``merges_udp``: the kernel can cut up UDP as well."""
        self._buffer = bytearray(2 * LARGEST)  # a layout of one datagram fits behind the begin of any
        self._view = memoryview(self._buffer)
        self.buffer = self._view[:LARGEST]
        self._find = find
        self._drop = drop
        self._merged = (TCP, UDP) if merges_udp else (TCP,)
        self._slices: dict[tuple[int, int], list[memoryview]] = {}

    def writes(self, size: int, segment: int, sender: str) -> Iterator[Write]:
        """What to write of ``size`` bytes from ``sender``: datagrams of ``segment`` bytes each, the last may be
        shorter. To be written before the next is taken from the iterator."""
        at = 0
        while at < size:
            end = min(at + segment, size)
            if end < size:
                merged = self._merge(at, size, segment, sender)
                if merged is not None:
                    at, write = merged
                    yield write
                    continue
            if self._passes(at, end, sender):
                yield [AS_IT_IS, self._view[at:end]]
            else:
                self._drop()
            at = end

    def _passes(self, at: int, end: int, sender: str) -> bool:
        """Whether this is a packet of the sender's, which has one hop less to live then."""
        if end - at < HEADER_BYTES:
            return False
        version, total, _, hop, checksum, source, _ = FIELDS.unpack_from(self._buffer, at)
        if hop <= LAST_HOP or not is_packet(version, total, end - at) or self._find(source) != sender:
            return False
        take_hop(self._buffer, at, hop, checksum)
        return True

    def _merge(self, at: int, size: int, segment: int, sender: str) -> tuple[int, Write] | None:
        """The packet at ``at`` and those behind it that continue it, and where the next one begins; None if there is
        nothing to merge."""
        buffer = self._buffer
        if segment < HEADER_BYTES:
            return None
        version, total, fragment, hop, _, source, _ = FIELDS.unpack_from(buffer, at)
        protocol = hop & 0xFF
        if (
            version != 0x45
            or total != segment
            or fragment != DONT_FRAGMENT
            or hop <= LAST_HOP
            or protocol not in self._merged
            or segment <= _SHORTEST[protocol]
            or sum_of(self._view[at : at + HEADER_BYTES])
            or self._find(source) != sender
        ):
            return None
        if protocol == TCP:
            headers = HEADER_BYTES + (buffer[at + _TCP_DATA_AT] >> 4) * 4
            if headers < _SHORTEST[TCP] or headers >= segment or buffer[at + _FLAGS_AT] != ACK:
                return None
            end, flags = self._tcp_run(at, size, segment, headers)
        else:
            headers = _SHORTEST[UDP]
            end, flags = self._udp_run(at, size, segment)
        if end - at <= segment:
            return None
        return end, self._merged_write(at, end, segment, headers, protocol, flags)

    def _tcp_run(self, at: int, size: int, segment: int, headers: int) -> tuple[int, int]:
        """Where the packets that continue the first one end, and the flags of the last one."""
        following = self._following(_tcp_layout(headers, segment), at, size, segment, headers)
        version, _, identification, hop, checksum, flow, expected, ack, flags, window, options = next(following)
        rest = (identification + segment + checksum) % 0xFFFF
        payload = segment - headers
        end, whole = at + segment, size - segment
        for one, total, identification, two, checksum, three, sequence, four, flags_now, five, six in following:
            expected = expected + payload & 0xFFFFFFFF
            if (
                sequence != expected
                or total != (segment if end <= whole else size - end)
                or three != flow
                or four != ack
                or six != options
                or two != hop
                or five != window
                or one != version
                or (identification + total + checksum) % 0xFFFF != rest
                or flags_now & ~PUSH != ACK
            ):
                break
            end += total
            flags = flags_now
            if flags != ACK:
                break
        return end, flags

    def _udp_run(self, at: int, size: int, segment: int) -> tuple[int, int]:
        """As ``_tcp_run``; 0 for the flags that UDP has not."""
        following = self._following(_udp_layout(segment), at, size, segment, _SHORTEST[UDP])
        version, _, identification, hop, checksum, flow, length, sum_of_udp = next(following)
        rest = (identification + segment + checksum) % 0xFFFF
        end, whole = at + segment, size - segment
        if length != segment - HEADER_BYTES or sum_of_udp == 0:
            return end, 0
        for one, total, identification, two, checksum, three, length, sum_of_udp in following:
            if (
                total != (segment if end <= whole else size - end)
                or length != total - HEADER_BYTES
                or three != flow
                or two != hop
                or one != version
                or sum_of_udp == 0  # none was computed, and none is to be
                or (identification + total + checksum) % 0xFFFF != rest
            ):
                break
            end += total
        return end, 0

    def _following(self, layout: Struct, at: int, size: int, segment: int, headers: int) -> Iterator[tuple[Any, ...]]:
        """The headers of the packets from ``at`` on; of a shorter last one if it has a payload."""
        rest = (size - at) % segment
        whole = layout.iter_unpack(self._view[at : size - rest])
        if rest <= headers:
            return whole
        last = layout.unpack_from(self._buffer, size - rest)  # reads on behind it, in what is left of earlier ones
        return chain(whole, (last,))

    def _merged_write(self, at: int, end: int, segment: int, headers: int, protocol: int, flags: int) -> Write:
        view = self._view
        count, odd = divmod(end - at, segment)
        total = end - at - headers * (count + bool(odd) - 1)
        head = bytearray(view[at : at + headers])
        head[2:4] = total.to_bytes(2, "big")
        head[8] -= 1
        head[10:12] = bytes(2)
        head[10:12] = (0xFFFF - sum_of(head[:HEADER_BYTES])).to_bytes(2, "big")
        if protocol == TCP:
            head[_FLAGS_AT] = flags
            kind = GSO_TCPV4
        else:
            head[24:26] = (total - HEADER_BYTES).to_bytes(2, "big")
            kind = GSO_UDP_L4
        check = _CHECKSUM_AT[protocol]
        pseudo = sum_of(head[12:20]) + protocol + total - HEADER_BYTES
        head[HEADER_BYTES + check : HEADER_BYTES + check + 2] = (pseudo % 0xFFFF).to_bytes(2, "big")
        to_cut = _TO_CUT.pack(NEEDS_CSUM, kind, headers, segment - headers, HEADER_BYTES, check)
        first = at // segment
        write: Write = [to_cut + head, *self._payloads(segment, headers)[first : first + count]]
        if odd:
            write.append(view[end - odd + headers : end])
        return write

    def _payloads(self, segment: int, headers: int) -> list[memoryview]:
        """Of every datagram that a bundle may have: making a slice costs more than finding it."""
        key = segment, headers
        slices = self._slices.get(key)
        if slices is None:
            if len(self._slices) == REMEMBERED:
                self._slices.clear()
            last = LARGEST - segment + 1
            slices = [self._view[at + headers : at + segment] for at in range(0, last, segment)]
            self._slices[key] = slices
        return slices


@lru_cache(REMEMBERED)
def _tcp_layout(headers: int, segment: int) -> Struct:
    """Version and TOS, total length, identification, fragment to protocol, checksum, addresses and ports, sequence,
    acknowledgement and length, flags, window, urgent pointer and options, in a datagram of ``segment`` bytes."""
    return Struct(f"!2sHH4sH12sI5sB2s2x{headers - 38}s{segment - headers}x")


@lru_cache(REMEMBERED)
def _udp_layout(segment: int) -> Struct:
    """Version and TOS, total length, identification, fragment to protocol, checksum, addresses and ports, length and
    checksum of UDP, in a datagram of ``segment`` bytes."""
    return Struct(f"!2sHH4sH12sHH{segment - _SHORTEST[UDP]}x")
