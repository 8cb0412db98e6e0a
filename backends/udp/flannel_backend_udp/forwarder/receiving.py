"""From the peers to the TUN device."""

from __future__ import annotations

import os
import socket

from .bundles import Bundles
from .peer_table import PeerTable
from .sending import EBADFD
from .traffic import Counters, DeviceGone

UDP_GRO = 104
"""linux/udp.h; since Linux 5.0."""
BUNDLES = 8
"""Taken from the socket before it is the device's turn."""


class Receiving:
    """``merges_udp``: the kernel can cut up UDP as well, see ``Bundles``."""

    def __init__(
        self, device: int, outside: socket.socket, table: PeerTable, counters: Counters, *, merges_udp: bool
    ) -> None:
        self._device = device
        self._outside = outside
        self._counters = counters
        self._bundles = Bundles(table.find, counters.refuse, merges_udp=merges_udp)
        self._room = socket.CMSG_SPACE(4)

    def work(self) -> None:
        """Write what waits, a few bundles at most. Raises DeviceGone."""
        into = [self._bundles.buffer]
        receive, write, device, counters = self._outside.recvmsg_into, os.writev, self._device, self._counters
        for _ in range(BUNDLES):
            try:
                size, control, _, sender = receive(into, self._room)
            except OSError:  # nothing waits; or the kernel tells of an earlier send that did not arrive
                return
            segment = size
            if control and control[0][1] == UDP_GRO:
                segment = int.from_bytes(control[0][2][:4], "little")
            refused = counters.refused
            for packet in self._bundles.writes(size, segment, sender[0]):
                try:
                    write(device, packet)
                except OSError as error:
                    if error.errno == EBADFD:
                        raise DeviceGone from None
                    counters.lost += 1  # EIO while the device is down
            if segment:
                counters.received += -(-size // segment) - (counters.refused - refused)
