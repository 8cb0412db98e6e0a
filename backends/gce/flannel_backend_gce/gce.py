"""The gce backend: each host has a route to its own subnet in the network's routes, and Google Cloud forwards."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import msgspec

from flannel_core import threads
from flannel_core.backend import Announcement, Backend, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Object
from flannel_core.target import Target

from . import metadata
from .compute import Compute, interface_addresses
from .gce_objects import GceRoute, short
from .gce_target import GceTarget
from .options import GceOptions


class Found(msgspec.Struct, frozen=True):
    """Where this host is in Google Cloud. ``project`` is the network's: another than the instance's in a shared VPC.
    ``mtu`` is the network's, in bytes."""

    instance: str
    project: str
    network: str
    mtu: int

    @property
    def is_shared(self) -> bool:
        return not self.instance.startswith(f"projects/{self.project}/")


class GceBackend(Backend[GceOptions, None]):
    """Google Cloud's network forwards. A peer needs nothing of this host."""

    Options = GceOptions
    published_type = ""
    accepts = frozenset({""})
    restart_options = frozenset({"endpoint", "check_interval"})

    def __init__(self, options: GceOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self._compute = Compute(options)
        self._found: tuple[object, Found] | None = None

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        """Raises FlannelError naming what of the metadata server, the API or the instance is not as it should be."""
        addresses = (host.ipv4, host.ipv6)
        if self._found is None or self._found[0] != addresses:
            self._found = addresses, await self._find(host)
        found = self._found[1]
        notes = [f"{found.instance}, routes in {found.network}"]
        if found.is_shared:
            notes.append(f"a shared VPC: routes lead to this host's address, since they belong to {found.project}")
        return Announcement(min(host.mtu, found.mtu), private=found, notes=tuple(notes))

    async def _find(self, host: Host) -> Found:
        who = await threads.call(metadata.identity)
        instance = await self._compute.instance(who.project, who.zone, who.instance)
        interfaces = [(each, list(interface_addresses(each))) for each in instance.get("networkInterfaces", ())]
        wanted = {host.ipv4, host.ipv6} - {None}
        ours = next((each for each, addresses in interfaces if wanted & set(map(ip_address, addresses))), None)
        if ours is None:
            there = "; ".join(f"{each.get('name')} {' '.join(addresses)}" for each, addresses in interfaces)
            raise FlannelError(
                f"{who.instance} has no network interface with {host.ipv4 or host.ipv6}, it has: {there or 'none'}; "
                "choose one of the instance's own interfaces with --iface"
            )
        if not instance.get("canIpForward"):
            raise FlannelError(
                f"{who.instance} may not forward packets (canIpForward is false), so none reaches its pods: "
                f"gcloud compute instances export {who.instance} --zone {who.zone} --destination FILE, set "
                f"canIpForward: true in FILE, gcloud compute instances update-from-file {who.instance} --zone "
                f"{who.zone} --source FILE --most-disruptive-allowed-action RESTART; or make it anew with "
                "--can-ip-forward"
            )
        network = short(ours["network"])
        _, project, *_, name = network.split("/")
        mtu = (await self._compute.network(project, name)).get("mtu") or host.mtu
        return Found(short(instance["selfLink"]), project, network, mtu)

    def local(self, node: Node) -> Iterable[Object]:
        if node.lease is None:
            return
        found: Found = node.announcement.private
        for endpoint in node.lease.endpoints:
            # A next hop instance has to be of the route's project, an address only of the route's network.
            address = node.host.ip(4 if endpoint.subnet.version == 4 else 6)
            hop = str(address) if found.is_shared else found.instance
            yield GceRoute(found.project, found.network, str(endpoint.subnet), hop)

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        return ()

    def targets(self) -> Iterable[Target]:
        return (GceTarget(self._compute, self.options.check_interval),)
