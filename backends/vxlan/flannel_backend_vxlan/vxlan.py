"""The vxlan backend: one VXLAN device per family; each peer is a neighbour, an FDB entry and an onlink route."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, Endpoint, Family, Lease
from flannel_core.objects import VXLAN_PORT, Address, FdbEntry, Link, Neighbour, Object, Offload, Route, Sysctl, Vxlan

OVERHEAD: dict[Family, int] = {4: 50, 6: 70}
"""Bytes that VXLAN adds over each family: outer IP (20, 40), UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348 section 5).
Go flannel takes 50 over IPv6 too, and the kernel then makes the device smaller than subnet.env says."""

CHECKSUM_OFFLOAD = "tx-checksum-ip-generic"
"""NETIF_F_HW_CSUM by its name in net/ethtool/common.c: checksums of the packets inside the tunnel are left to whoever
sends the outer packet."""
CHECKSUMS_SURVIVE_NAT = (5, 7)
"""The Linux from which on NAT of the outer packet, whose UDP checksum is none, no longer writes one that falls on the
unfinished checksum of the inner packet (nf_nat_proto.c)."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class VxlanOptions(msgspec.Struct, frozen=True):
    """The keys of ``Backend`` for type vxlan."""

    vni: Annotated[
        int, msgspec.Meta(ge=0, le=0xFFFFFF, description="VXLAN network identifier; names the device flannel.VNI")
    ] = msgspec.field(default=1, name="VNI")
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="UDP port of the tunnel; 0: the kernel's own, 8472")
    ] = msgspec.field(default=0, name="Port")
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535, description="outer MTU in bytes; 0: the external interface's")] = (
        msgspec.field(default=0, name="MTU")
    )
    gbp: Annotated[bool, msgspec.Meta(description="VXLAN group based policy extension")] = msgspec.field(
        default=False, name="GBP"
    )
    learning: Annotated[bool, msgspec.Meta(description="let the device learn MACs from traffic")] = msgspec.field(
        default=False, name="Learning"
    )
    direct_routing: Annotated[
        bool, msgspec.Meta(description="plain routes, without a tunnel, to peers on a connected network")
    ] = msgspec.field(default=False, name="DirectRouting")
    checksum_offload: Annotated[
        Literal["auto", "on", "off"],
        msgspec.Meta(
            description="tx-checksum-ip-generic of the device, kept on or off; auto: off where packets would get wrong "
            "checksums (Linux before 5.7, a public address that is none of the host's own), else left as it is"
        ),
    ] = msgspec.field(default="auto", name="ChecksumOffload")


class VxlanData(msgspec.Struct, frozen=True):
    """BackendData of a lease, as Go writes it: ``{"VNI":1,"VtepMAC":"8a:..."}``. Old nodes leave out VNI."""

    vni: int | None = msgspec.field(default=None, name="VNI")
    vtep_mac: str = msgspec.field(default="", name="VtepMAC")

    def __post_init__(self) -> None:
        mac = self.vtep_mac.lower().replace("-", ":")
        if not _MAC.fullmatch(mac):
            raise ValueError("VtepMAC is no Ethernet address")
        if mac == "00:00:00:00:00:00" or int(mac[:2], 16) & 1:
            raise ValueError(f"VtepMAC {mac} is not a unicast Ethernet address")
        msgspec.structs.force_setattr(self, "vtep_mac", mac)


class VxlanBackend(Backend[VxlanOptions, VxlanData]):
    """Kernel VXLAN, programmed from the leases: no flooding, no learning."""

    Options = VxlanOptions
    Data = VxlanData
    published_type = "vxlan"
    accepts = frozenset({"vxlan"})
    kernel_modules: ClassVar[tuple[str, ...]] = ("vxlan",)

    def __init__(self, options: VxlanOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self.devices: dict[Family, str] = {4: f"flannel.{options.vni}", 6: f"flannel-v6.{options.vni}"}

    def device_mtu(self, host: Host, family: Family) -> int:
        return (self.options.mtu or host.mtu) - OVERHEAD[family]

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        families = [family for family in FAMILIES if host.public_ip(family) is not None]
        data = {family: VxlanData(self.options.vni, self._mac(host, previous, family)) for family in families}
        return Announcement(
            mtu=min(self.device_mtu(host, family) for family in families),
            ipv4_data=data.get(4),
            ipv6_data=data.get(6),
        )

    def _mac(self, host: Host, previous: Lease | None, family: Family) -> str:
        """The existing device's, else the one peers know us by, else a new one. Never from the machine-id: clones of
        one image would share it."""
        device = host.links.get(self.devices[family])
        if device is not None and isinstance(device.info, Vxlan) and device.mac:
            return device.mac
        endpoint = previous.endpoint(family) if previous else None
        if endpoint is not None and isinstance(endpoint.data, VxlanData):
            return endpoint.data.vtep_mac
        octets = bytearray(secrets.token_bytes(6))
        octets[0] = octets[0] & 0xFC | 0x02  # unicast, locally administered (IEEE 802 section 8.2.2)
        return octets.hex(":")

    def local(self, node: Node) -> Iterable[Object]:
        host, options = node.host, self.options
        for family in FAMILIES:
            local, data = host.public_ip(family), node.announcement.data(family)
            if local is None or data is None:
                continue
            device = self.devices[family]
            port = options.port or VXLAN_PORT
            info = Vxlan(options.vni, host.interface, str(local), port, options.learning, options.gbp)
            yield Link(device, info, self.device_mtu(host, family), data.vtep_mac, txqueuelen=0)
            yield from self._offload(host, family)
            # A router advertisement from the pods' side must not give the host a default route.
            yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "0", device=device, optional=True)
            endpoint = node.lease.endpoint(family) if node.lease else None
            if endpoint is not None:
                # A full-length prefix: the address serves as the source of host traffic and adds no broadcast route.
                network = endpoint.subnet
                yield Address(device, f"{network.network_address}/{network.max_prefixlen}")

    def _offload(self, host: Host, family: Family) -> Iterable[Object]:
        choice = self.options.checksum_offload
        if choice == "auto":
            old = host.kernel is not None and host.kernel < CHECKSUMS_SURVIVE_NAT
            if not old and not host.is_translated(family):
                return
        yield Offload(self.devices[family], CHECKSUM_OFFLOAD, choice == "on")

    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        for family in FAMILIES:
            endpoint = lease.endpoint(family)
            if endpoint is not None:
                yield from self._reach(node, family, endpoint)

    def _reach(self, node: Node, family: Family, endpoint: Endpoint) -> Iterable[Object | Unreachable]:
        remote, vtep = str(endpoint.public_ip), str(endpoint.subnet.network_address)
        subnet = f"{vtep}/{endpoint.subnet.prefixlen}"
        if self.options.direct_routing and (underlay := node.host.on_link(endpoint.public_ip)):
            yield Route(subnet, underlay, gateway=remote)
            return
        data: VxlanData = endpoint.data
        if data.vni not in (None, self.options.vni):
            yield Unreachable(f"its VNI is {data.vni}, ours is {self.options.vni}: give both the same Backend.VNI")
            return
        device = self.devices[family]
        yield Neighbour(device, vtep, data.vtep_mac)
        yield FdbEntry(device, data.vtep_mac, remote)
        yield Route(subnet, device, gateway=vtep, onlink=True)

    def identities(self, lease: Lease) -> Iterable[object]:
        for family in FAMILIES:
            endpoint = lease.endpoint(family)
            if endpoint is not None and isinstance(endpoint.data, VxlanData):
                # Each family has a device of its own, so a MAC clashes only within one.
                yield (f"VtepMAC over IPv{family}", endpoint.data.vtep_mac)
