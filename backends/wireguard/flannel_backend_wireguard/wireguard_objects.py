"""What a WireGuard device holds: values."""

from __future__ import annotations

from typing import ClassVar

from flannel_core.objects import Identity, Object
from flannel_core.secret import Secret


class WireguardProcess(Object, frozen=True):
    """A program that does for ``device``, a TUN device, what the kernel's module would do. ``program`` is its path."""

    kind: ClassVar[str] = "wireguard process"

    device: str
    program: str

    @property
    def identity(self) -> Identity:
        return (self.kind, self.device)

    @property
    def on_device(self) -> str:
        return self.device

    @property
    def record(self) -> str:
        return self.device

    def satisfied_by(self, actual: Object) -> bool:
        """Another program will do as long as it lives."""
        return isinstance(actual, WireguardProcess)

    def describe(self) -> str:
        return f"{self.program} {self.device}"


class WireguardDevice(Object, frozen=True):
    """Key and UDP port of a device. It is taken away with the device."""

    kind: ClassVar[str] = "wireguard"
    removable: ClassVar[bool] = False

    device: str
    key: Secret
    port: int

    @property
    def identity(self) -> Identity:
        return (self.kind, self.device)

    @property
    def on_device(self) -> str:
        return self.device

    def describe(self) -> str:
        return f"wireguard {self.device} listen-port {self.port}"


class WireguardPeer(Object, frozen=True):
    """A peer of a device: ``key`` is its public one, ``endpoint`` ``198.51.100.2:51820`` or ``[2001:db8::2]:51820``,
    ``keepalive`` seconds, 0 for none.

    ``learnt`` is never wanted: True where the device has heard from the peer itself, of late, at an endpoint that
    nobody told it, and was last told ``told``.
    """

    kind: ClassVar[str] = "wireguard peer"

    device: str
    key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    psk: Secret | None = None
    keepalive: int = 0
    learnt: bool = False
    told: str = ""

    @property
    def identity(self) -> Identity:
        return (self.kind, self.device, self.key)

    @property
    def on_device(self) -> str:
        return self.device

    def satisfied_by(self, actual: Object) -> bool:
        """An endpoint that the peer was heard at stands, as long as the one that was told is still the one wanted."""
        return (
            isinstance(actual, WireguardPeer)
            and (self.endpoint == actual.endpoint or self.is_better_known_by(actual))
            and frozenset(self.allowed_ips) == frozenset(actual.allowed_ips)
            and (self.psk, self.keepalive) == (actual.psk, actual.keepalive)
        )

    def is_better_known_by(self, actual: WireguardPeer) -> bool:
        return actual.learnt and actual.told in ("", self.endpoint)

    def describe(self) -> str:
        allowed_ips = ",".join(self.allowed_ips)
        return f"wireguard peer {self.key} dev {self.device} endpoint {self.endpoint} allowed-ips {allowed_ips}"
