"""The ipip backend: each packet travels inside another IPv4 packet to the peer's address. 20 bytes of overhead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from flannel_core.backend import Announcement, Backend, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Address, Ipip, Link, Object, Route

DEVICE = "flannel.ipip"
OVERHEAD = 20
"""Bytes of the outer IPv4 header (RFC 2003)."""
SMALLEST_MTU = 68
"""Bytes that every IPv4 device has to carry (RFC 791); the kernel takes no less."""


class IpipOptions(msgspec.Struct, frozen=True):
    """The keys of ``Backend`` for type ipip."""

    direct_routing: Annotated[
        bool, msgspec.Meta(description="plain routes, without a tunnel, to peers on a connected network")
    ] = msgspec.field(default=False, name="DirectRouting")


class IpipBackend(Backend[IpipOptions, None]):
    """One tunnel device to all peers; a route's gateway says to which."""

    Options = IpipOptions
    published_type = "ipip"
    accepts = frozenset({"ipip"})
    kernel_modules: ClassVar[tuple[str, ...]] = ("ipip",)

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        if host.families != (4,):
            raise FlannelError("ipip carries IPv4 only: vxlan carries both families, and EnableIPv6 turns one off")
        if host.mtu < SMALLEST_MTU + OVERHEAD:
            raise FlannelError(
                f"{host.interface} has an MTU of {host.mtu}; ipip needs {SMALLEST_MTU + OVERHEAD} for IPv4's smallest"
                f" packet: `ip link set {host.interface} mtu 1500`, or another --iface"
            )
        return Announcement(mtu=host.mtu - OVERHEAD)

    def local(self, node: Node) -> Iterable[Object]:
        yield Link(DEVICE, Ipip(str(node.host.ipv4)), node.announcement.mtu)
        if node.lease and node.lease.ipv4:
            # A full-length prefix: the address serves as the source of host traffic and adds no broadcast route.
            yield Address(DEVICE, f"{node.lease.ipv4.subnet.network_address}/32")

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        if lease.ipv4:
            public = lease.ipv4.public_ip
            device = (self.options.direct_routing and node.host.on_link(public)) or DEVICE
            yield Route(str(lease.ipv4.subnet), device, gateway=str(public), onlink=True)
