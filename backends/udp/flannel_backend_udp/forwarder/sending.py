"""From the TUN device to the peers: batches of packets, each of the kernel's own making, leave as few sends.

The kernel cuts up and computes checksums before it hands packets to a TUN device that offers no offloads. So whatever
leaves here is whole, also where the underlay (veth, virtio) would have passed unfinished checksums on.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence
from struct import pack

from .bundles import AS_IT_IS
from .peer_table import PeerTable
from .runs import MOST_PACKETS, runs
from .traffic import Counters, DeviceGone

UDP_SEGMENT = 103
"""linux/udp.h; since Linux 4.18."""
BATCHES = 2
"""Taken from the device before it is the peers' turn."""
PATIENCE_SECONDS = 0.1
"""How long a full send buffer holds everything up before packets are lost."""
EBADFD = errno.EBADFD


class Sending:
    """``mtu`` is the device's. Nothing here blocks for longer than PATIENCE_SECONDS."""

    def __init__(
        self, device: int, outside: socket.socket, port: int, mtu: int, table: PeerTable, counters: Counters
    ) -> None:
        self._device = device
        self._outside = outside
        self._port = port
        self._mtu = mtu
        self._table = table
        self._counters = counters
        self._buffer = bytearray(mtu * MOST_PACKETS)
        self._view = memoryview(self._buffer)
        # As long as the longest packet: those fill the buffer without gaps, and a run of them is one piece of it.
        ignored = bytearray(len(AS_IT_IS))
        self._places: list[list[bytearray | memoryview]] = [
            [ignored, self._view[at : at + mtu]] for at in range(0, len(self._buffer), mtu)
        ]

    def work(self) -> None:
        """Send what waits, a few batches at most. Raises DeviceGone."""
        for _ in range(BATCHES):
            sizes = self._read()
            for peer, first, end in runs(self._buffer, self._mtu, sizes, self._table.find, self._counters.stray):
                self._send(peer, sizes, first, end)
            if len(sizes) < MOST_PACKETS:
                return

    def _read(self) -> list[int]:
        sizes: list[int] = []
        read, device, header = os.readv, self._device, len(AS_IT_IS)
        try:
            for place in self._places:
                sizes.append(read(device, place) - header)  # noqa: PERF401 - what was read before an error counts
        except BlockingIOError:
            pass
        except OSError as error:  # EIO while the device is down: there is nothing to read then
            if error.errno == EBADFD:
                raise DeviceGone from None
        return sizes

    def _send(self, peer: str, sizes: Sequence[int], first: int, end: int) -> None:
        length, to = sizes[first], (peer, self._port)
        if end - first == 1:
            at = first * self._mtu
            self._give([self._view[at : at + length]], [], to, 1)
            return
        segment = [(socket.SOL_UDP, UDP_SEGMENT, pack("=H", length))]
        if length == self._mtu:
            pieces = [self._view[first * length : (end - 1) * length + sizes[end - 1]]]
        else:
            pieces = self._pieces(sizes, first, end)
        if not self._give(pieces, segment, to, end - first):
            for piece in self._pieces(sizes, first, end):
                self._give([piece], [], to, 1)

    def _pieces(self, sizes: Sequence[int], first: int, end: int) -> list[memoryview]:
        mtu, view = self._mtu, self._view
        return [view[index * mtu : index * mtu + sizes[index]] for index in range(first, end)]

    def _give(
        self, pieces: list[memoryview], control: list[tuple[int, int, bytes]], to: tuple[str, int], packets: int
    ) -> bool:
        """False: it may be that the kernel does not cut this up (the path has a smaller MTU by now, the device computes
        no checksums)."""
        send = self._outside.sendmsg
        try:
            try:
                send(pieces, control, 0, to)
            except BlockingIOError:
                select.select([], [self._outside], [], PATIENCE_SECONDS)
                send(pieces, control, 0, to)
        except OSError as error:
            if control and error.errno in (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP):
                return False
            self._counters.lost += packets
        else:
            self._counters.sent += packets
        return True
