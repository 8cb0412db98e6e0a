"""What the forwarder has counted, and what ends its work with a device."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Packets since the process began. ``strayed``: from this host, with no peer to go to or no hop left to live.
    ``refused``: from an address that is no peer's, with a source that is not on the host that sent them, or no IPv4
    packets at all. ``lost``: what the kernel did not take."""

    sent: int = 0
    received: int = 0
    strayed: int = 0
    refused: int = 0
    lost: int = 0

    def stray(self) -> None:
        self.strayed += 1

    def refuse(self) -> None:
        self.refused += 1


class DeviceGone(Exception):
    """Somebody has deleted the TUN device; the descriptor is of no use any more."""
