"""The wireguard backend: a WireGuard device per host, and every other host a peer of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec

from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, Endpoint, Family, Lease
from flannel_core.objects import Address, Link, LinkInfo, Object, Route, Tun, Wireguard
from flannel_core.secret import Secret
from flannel_core.target import Target

from .device import PROGRAMS, kernel_has_wireguard
from .keys import KEY_FILE, key_bytes, key_file, new_key, private_key, public_key
from .wireguard_objects import WireguardDevice, WireguardPeer, WireguardProcess
from .wireguard_target import STATE_FILES, WireguardTarget

OVERHEAD = 80
"""Bytes: outer IPv6 40 (IPv4 20), UDP 8, WireGuard's header 16 and tag 16 (https://www.wireguard.com/protocol/)."""
SCOPE_LINK = 253
"""RT_SCOPE_LINK of linux/rtnetlink.h."""
DEVICE: dict[Family, str] = {4: "flannel-wg", 6: "flannel-wg-v6"}
SHARED = DEVICE[4]


class Mode(Enum):
    """separate: a device per family. The others: one for both, which reaches a peer over IPv4, over IPv6, or over
    whichever is likelier to work."""

    SEPARATE = "separate"
    AUTO = "auto"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class WireguardOptions(msgspec.Struct, frozen=True):
    """The keys of ``Backend`` for type wireguard."""

    listen_port: Annotated[
        int, msgspec.Meta(ge=1, le=65535, description="UDP port; of IPv4 alone where Mode is separate")
    ] = msgspec.field(default=51820, name="ListenPort")
    listen_port_v6: Annotated[
        int,
        msgspec.Meta(ge=1, le=65535, description="UDP port of IPv6 where Mode is separate, and then not ListenPort"),
    ] = msgspec.field(default=51821, name="ListenPortV6")
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535, description="outer MTU in bytes; 0: the external interface's")] = (
        msgspec.field(default=0, name="MTU")
    )
    psk: Annotated[
        str,
        msgspec.Meta(
            description="a key that all hosts share besides their own, as `wg genpsk` prints it", extra={"secret": True}
        ),
    ] = msgspec.field(default="", name="PSK")
    keepalive: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="seconds between packets to a silent peer; 0: none")
    ] = msgspec.field(default=0, name="PersistentKeepaliveInterval")
    mode: Annotated[Mode, msgspec.Meta(description="separate devices, or the family that the shared one uses")] = (
        msgspec.field(default=Mode.SEPARATE, name="Mode")
    )

    def __post_init__(self) -> None:
        if self.psk:
            try:
                key_bytes(self.psk)
            except ValueError as error:
                raise ValueError(f"could not parse psk: {error}; `wg genpsk` makes one") from None
        if self.mode is Mode.SEPARATE and self.listen_port == self.listen_port_v6:
            raise ValueError("ListenPort and ListenPortV6 are the same, and two devices cannot share a port")


class WireguardData(msgspec.Struct, frozen=True):
    """BackendData of a lease, as Go writes it. Old nodes leave out Port: their own ListenPort then is as ours."""

    public_key: str = msgspec.field(name="PublicKey")
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = msgspec.field(default=0, name="Port")

    def __post_init__(self) -> None:
        try:
            key = key_bytes(self.public_key)
        except ValueError as error:
            raise ValueError(f"PublicKey is no WireGuard key: {error}") from None
        if not any(key):
            raise ValueError("PublicKey is all zeros")


class Private(msgspec.Struct, frozen=True):
    """What only this host needs. ``program`` takes the place of the kernel's module, None: the kernel has it."""

    key: Secret
    program: str | None


class WireguardBackend(Backend[WireguardOptions, WireguardData]):
    """Devices, keys and handshakes outlive the agent."""

    Options = WireguardOptions
    Data = WireguardData
    published_type = "wireguard"
    accepts = frozenset({"wireguard"})
    state_files = (KEY_FILE, *STATE_FILES)
    handshake_seconds = 21.0
    """Two hosts that greet each other at the same instant may refuse each other's answers. They greet again after
    REKEY_TIMEOUT, 5 s, and up to a third of a second; a host that took the answer and is not heard by the other after
    KEEPALIVE_TIMEOUT and REKEY_TIMEOUT, 15 s (sections 6.1, 6.4 and 6.5 of WireGuard's paper). Once after the other."""

    def __init__(self, options: WireguardOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self._fresh_key = new_key()  # for a host without one; a dry run and the start that follows announce the same

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        """Raises FlannelError where neither the kernel nor a program speaks WireGuard, or the key file is none."""
        program, notes = None, ("in the kernel",)
        if not kernel_has_wireguard():
            program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
            if program is None:
                raise FlannelError(
                    "this kernel has no WireGuard: `modprobe wireguard`, or install a kernel with CONFIG_WIREGUARD "
                    "(Linux 5.6 and later have it), or a program that does without: the package wireguard-go, or "
                    f"boringtun ({' and '.join(PROGRAMS)} are not in flanneld's PATH)"
                )
            notes = (f"by {program}, since this kernel has no wireguard module: slower, and gone if it is killed",)
        key = private_key(key_file(self.state_directory), self._fresh_key, dry_run=dry_run)
        public = public_key(key)
        data = {family: WireguardData(public, self._port(family)) for family in host.families}
        mtu = (self.options.mtu or host.mtu) - OVERHEAD
        return Announcement(mtu, data.get(4), data.get(6), Private(key, program), notes)

    def _port(self, family: Family) -> int:
        """Where the device really listens; Go flannel announces ListenPortV6 for a shared one too."""
        separate_v6 = family == 6 and self.options.mode is Mode.SEPARATE
        return self.options.listen_port_v6 if separate_v6 else self.options.listen_port

    def _device(self, family: Family) -> str:
        return DEVICE[family] if self.options.mode is Mode.SEPARATE else SHARED

    def local(self, node: Node) -> Iterable[Object]:
        private: Private = node.announcement.private
        info: LinkInfo = Tun() if private.program else Wireguard()
        for device, family in {self._device(family): family for family in reversed(node.host.families)}.items():
            yield Link(device, info, node.announcement.mtu)
            if private.program:
                yield WireguardProcess(device, private.program)
            yield WireguardDevice(device, private.key, self._port(family))
        for family in node.host.families:
            endpoint, space = node.lease.endpoint(family) if node.lease else None, node.config.space(family)
            if endpoint is None or space is None:
                continue
            device, subnet = self._device(family), endpoint.subnet
            # A full-length prefix: the address serves as the source of host traffic and adds no broadcast route.
            yield Address(device, f"{subnet.network_address}/{subnet.max_prefixlen}")
            yield Route(str(space.network), device, scope=SCOPE_LINK if family == 4 else 0)

    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        if self.options.mode is Mode.SEPARATE:
            for family in FAMILIES:
                endpoint = lease.endpoint(family)
                if endpoint is not None:
                    yield self._peer(self._device(family), family, endpoint, (str(endpoint.subnet),))
            return
        keys = {endpoint.data.public_key for endpoint in lease.endpoints}
        if len(keys) > 1:
            yield Unreachable("its two families have two keys, and one device of ours cannot give them one peer")
            return
        family = self._family(node.host, lease)
        endpoint = lease.endpoint(family)
        if endpoint is None or node.host.ip(family) is None:
            whose = "this host" if endpoint is not None else "it"
            yield Unreachable(
                f"Backend.Mode is {self.options.mode.value}, and {whose} has no IPv{family} address: give it one, or "
                "choose auto"
            )
            return
        yield self._peer(SHARED, family, endpoint, tuple(map(str, lease.subnets)))

    def _family(self, host: Host, lease: Lease) -> Family:
        """Which one reaches ``lease`` likeliest. As Go's auto: IPv4 if its address is public or there is no IPv6, IPv6
        if both sides have a public one, else IPv4."""
        if self.options.mode is not Mode.AUTO:
            return 4 if self.options.mode is Mode.IPV4 else 6
        if lease.ipv4 is None or host.ipv4 is None:
            return 6
        if lease.ipv6 is None or host.ipv6 is None or not _is_private(lease.ipv4):
            return 4
        ours = host.public_ipv6
        return 6 if not _is_private(lease.ipv6) and ours is not None and not ours.is_private else 4

    def _peer(self, device: str, family: Family, endpoint: Endpoint, allowed_ips: tuple[str, ...]) -> WireguardPeer:
        data: WireguardData = endpoint.data
        host = f"[{endpoint.public_ip}]" if family == 6 else str(endpoint.public_ip)
        psk = Secret(key_bytes(self.options.psk)) if self.options.psk else None
        port = data.port or self._port(family)
        return WireguardPeer(device, data.public_key, f"{host}:{port}", allowed_ips, psk, self.options.keepalive)

    def identities(self, lease: Lease) -> Iterable[object]:
        for endpoint in lease.endpoints:
            if isinstance(endpoint.data, WireguardData):
                yield ("PublicKey", endpoint.data.public_key)

    def targets(self) -> Iterable[Target]:
        return (WireguardTarget(self.state_directory),)


def _is_private(endpoint: Endpoint) -> bool:
    return endpoint.public_ip.is_private
