"""The host-gw backend: each peer's subnet is routed through the peer's own address. No tunnel, no overhead."""

from __future__ import annotations

from collections.abc import Iterable

from flannel_core.backend import Announcement, Backend, Node, NoOptions, Unreachable
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, Lease
from flannel_core.objects import Object, Route


class HostGwBackend(Backend[NoOptions, None]):
    """Plain routes. All hosts stand on one layer 2 network."""

    published_type = "host-gw"
    accepts = frozenset({"host-gw"})

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        for family in FAMILIES:
            if host.public_ip(family) != host.ip(family):
                raise FlannelError(
                    "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not "
                    f"supported by host-gw backend: --public-ip{'v6' if family == 6 else ''} {host.public_ip(family)} "
                    f"is not {host.interface}'s address {host.ip(family)}; leave the option out, or choose vxlan"
                )
        return Announcement(mtu=host.mtu)

    def local(self, node: Node) -> Iterable[Object]:
        return ()

    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        interface = node.host.interface
        for endpoint in lease.endpoints:
            if node.host.on_link(endpoint.public_ip) == interface:
                yield Route(str(endpoint.subnet), interface, gateway=str(endpoint.public_ip))
            else:
                yield Unreachable(
                    f"{endpoint.public_ip} is not on a network that {interface} is connected to, so it cannot be a "
                    "gateway: host-gw needs all hosts on one layer 2 network, vxlan does not"
                )
