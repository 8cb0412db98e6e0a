"""The alloc backend: leases a subnet, writes subnet.env and leaves forwarding to somebody else."""

from __future__ import annotations

from collections.abc import Iterable

from flannel_core.backend import ANY, Announcement, Backend, Node, NoOptions
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Object


class AllocBackend(Backend[NoOptions, None]):
    """Allocation only."""

    accepts = ANY

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        return Announcement(mtu=host.mtu)

    def local(self, node: Node) -> Iterable[Object]:
        return ()

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        return ()
