from __future__ import annotations

from collections.abc import Iterable

from flannel_core.backend import Announcement, Backend, Node, NoOptions, Unreachable
from flannel_core.hookspecs import hookimpl
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Object, Route


class OnlinkBackend(Backend[NoOptions, None]):
    published_type = "onlink"
    accepts = frozenset({"onlink"})

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        return Announcement(mtu=host.mtu)

    def local(self, node: Node) -> Iterable[Object]:
        return ()

    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        for endpoint in lease.endpoints:
            if endpoint.public_ip.is_private:
                yield Route(str(endpoint.subnet), node.host.interface, gateway=str(endpoint.public_ip), onlink=True)
            else:
                yield Unreachable(
                    f"{endpoint.public_ip} is a public address, and onlink does not encrypt: announce a private one"
                )


@hookimpl
def flannel_backend() -> type[OnlinkBackend]:
    return OnlinkBackend
