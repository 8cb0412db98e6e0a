"""A device as it is spoken to, whoever runs it: the kernel or a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.secret import Secret

from .wireguard_objects import WireguardDevice, WireguardPeer

GENL_NAME = "wireguard"
"""WG_GENL_NAME of linux/wireguard.h."""
PROGRAMS = ("wireguard-go", "boringtun-cli")


class FoundPeer(msgspec.Struct, frozen=True):
    """A peer as the device has it. ``handshake`` is Unix time, 0: never. Bytes were received and sent since it was
    added."""

    key: bytes
    endpoint: str
    allowed_ips: tuple[str, ...]
    psk: Secret | None
    keepalive: int
    handshake: float
    received: int
    sent: int


class FoundDevice(msgspec.Struct, frozen=True):
    """A device as it is: ``key`` None where it has none yet."""

    key: Secret | None
    port: int
    peers: tuple[FoundPeer, ...]


class PeerChange(msgspec.Struct, frozen=True):
    """Add ``peer`` or change it into that. ``keep_endpoint``: leave the endpoint that the device has learnt."""

    peer: WireguardPeer
    keep_endpoint: bool = False


class NoDevice(Exception):
    """There is no such WireGuard device."""


class Control(Protocol):
    """How a device is read and written. Every method raises NoDevice, and OSError or FlannelError with the reason."""

    def read(self, device: str) -> FoundDevice: ...

    def set_device(self, wanted: WireguardDevice) -> None: ...

    def set_peers(self, device: str, puts: Sequence[PeerChange], removes: Sequence[WireguardPeer]) -> None:
        """All of it, or an error and any part of it."""
        ...


def kernel_has_wireguard() -> bool:
    """Asking loads the module where that is allowed."""
    try:
        GenericSocket(GENL_NAME).close()
    except NoFamily:
        return False
    return True
