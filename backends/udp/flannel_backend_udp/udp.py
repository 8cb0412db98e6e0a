"""The udp backend: each packet is the payload of a UDP datagram, with no header between, as Go flannel's proxy has it.

The kernel does that by itself (an ipip device with FOU) or a process does (a TUN device and the forwarder). Either way
a route leads to each peer's subnet, and whatever else is inside Network is unreachable: pods are told so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from flannel_core.backend import ANY, Announcement, Backend, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Address, Ipip, Link, Object, Offload, Route, Tun
from flannel_core.target import Target

from .forwarder_target import SOCKET, ForwarderPeer, ForwarderSettings, ForwarderTarget
from .fou import FouPort, FouTarget
from .kernel_support import why_not

PORT = 8285
"""Go flannel's."""
OVERHEAD = 28
"""Bytes of the outer IPv4 header (RFC 791) and of UDP's (RFC 768)."""
SMALLEST_MTU = 68
"""Bytes that every IPv4 device has to carry (RFC 791)."""
KERNEL_DEVICE = "flannel.udp"
TUN_DEVICE = "flannel0"
"""Go flannel's. Of two types cannot both have one name, not even while one takes over from the other."""
OUTER_TTL = 64
QUEUE = 5000
"""Packets that wait for the forwarder at the TUN device: more than a TCP window holds."""
CHECKSUM_OFFLOAD = "tx-checksum-ip-generic"
"""NETIF_F_HW_CSUM by its name in net/ethtool/common.c. Off: a peer without FOU reads the inner packet out of the
datagram as it is, and an underlay such as veth or virtio would hand it over with an unfinished checksum."""

Mode = Literal["kernel", "userspace"]


class UdpOptions(msgspec.Struct, frozen=True):
    """The keys of ``Backend`` for type udp."""

    mode: Annotated[
        Literal["auto", "kernel", "userspace"],
        msgspec.Meta(
            description="who moves the packets: the kernel (FOU), a process in userspace, or whichever works: auto"
        ),
    ] = msgspec.field(default="auto", name="Mode")
    port: Annotated[int, msgspec.Meta(ge=1, le=65535, description="UDP port of the tunnel, the same on every host")] = (
        msgspec.field(default=PORT, name="Port")
    )
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535, description="outer MTU in bytes; 0: the external interface's")] = (
        msgspec.field(default=0, name="MTU")
    )


class UdpBackend(Backend[UdpOptions, None]):
    """Which of the two it is, is decided once and stays so while the agent runs."""

    Options = UdpOptions
    accepts = ANY
    state_files = (SOCKET,)

    def __init__(self, options: UdpOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self._choice: tuple[Mode, str] | None = None

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        if host.families != (4,):
            raise FlannelError("udp carries IPv4 only: vxlan carries both families, and EnableIPv6 turns one off")
        mtu = (self.options.mtu or host.mtu) - OVERHEAD
        if mtu < SMALLEST_MTU:
            raise FlannelError(
                f"an outer MTU of {mtu + OVERHEAD} ({'MTU under Backend' if self.options.mtu else host.interface})"
                f" leaves {mtu} bytes for a packet, and IPv4 needs {SMALLEST_MTU}: raise it, or take another --iface"
            )
        mode, why = self._choice or await self._choose(dry_run=dry_run)
        if not dry_run:
            self._choice = mode, why
        return Announcement(mtu, private=mode, notes=(why,))

    async def _choose(self, *, dry_run: bool) -> tuple[Mode, str]:
        """How packets move here, and the sentence that says so. Raises FlannelError."""
        if self.options.mode == "userspace":
            return "userspace", "udp in userspace (the forwarder), as Mode says"
        reason = await why_not(dry_run=dry_run)
        if reason is None:
            return "kernel", "udp by the kernel (FOU)"
        if self.options.mode == "kernel":
            raise FlannelError(f"Mode is kernel, and {reason}; with auto or userspace a process forwards the packets")
        return "userspace", f"udp in userspace (the forwarder), for want of FOU: {reason}"

    def local(self, node: Node) -> Iterable[Object]:
        mtu, address, port = node.announcement.mtu, str(node.host.ipv4), self.options.port
        if node.announcement.private == "kernel":
            device = KERNEL_DEVICE
            yield FouPort(port, address)
            yield Link(device, Ipip(address, ttl=OUTER_TTL, pmtudisc=True, fou_port=port), mtu)
            yield Offload(device, CHECKSUM_OFFLOAD, on=False)
        else:
            device = TUN_DEVICE
            yield Link(device, Tun(), mtu, txqueuelen=QUEUE)
            yield ForwarderSettings(device, mtu, address, port)
        if node.lease and node.lease.ipv4 and node.config.ipv4:
            # A full-length prefix: the address serves as the source of host traffic and adds no broadcast route.
            yield Address(device, f"{node.lease.ipv4.subnet.network_address}/32")
            # Not even by the default route: pods hear "network unreachable" of a subnet that nobody has.
            yield Route(str(node.config.ipv4.network), None, type="throw")

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        if lease.ipv4 is None:
            return
        subnet, public = str(lease.ipv4.subnet), str(lease.ipv4.public_ip)
        if node.announcement.private == "kernel":
            yield Route(subnet, KERNEL_DEVICE, gateway=public, onlink=True)
        else:
            yield ForwarderPeer(subnet, public)
            yield Route(subnet, TUN_DEVICE)

    def targets(self) -> Iterable[Target]:
        return (FouTarget(), ForwarderTarget(self.state_directory))
