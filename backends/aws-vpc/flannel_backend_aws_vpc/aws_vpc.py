"""The aws-vpc backend: each host has a route to its own subnet in the VPC's route tables, and the VPC forwards."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from flannel_core import threads
from flannel_core.backend import Announcement, Backend, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Object
from flannel_core.target import Target

from . import metadata
from .ec2 import Ec2
from .options import AwsVpcOptions
from .vpc_objects import SourceCheck, VpcRoute
from .vpc_target import VpcTarget


class Found(msgspec.Struct, frozen=True):
    """Where this host is in AWS. ``tables`` are those that its route goes into."""

    region: str
    instance: str
    interface: str
    tables: tuple[str, ...]


class AwsVpcBackend(Backend[AwsVpcOptions, None]):
    """The VPC's router forwards. A peer needs nothing of this host."""

    Options = AwsVpcOptions
    published_type = ""
    accepts = frozenset({""})
    restart_options = frozenset({"profile", "endpoint", "check_interval"})

    def __init__(self, options: AwsVpcOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self._ec2 = Ec2(options)
        self._found: tuple[object, Found] | None = None

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        """Raises FlannelError naming what of the metadata service, the API or the VPC is not as it should be."""
        addresses = (host.ipv4, host.ipv6)
        if self._found is None or self._found[0] != addresses:
            self._found = addresses, await self._find(host)
        found = self._found[1]
        note = f"{found.instance} in {found.region}, {found.interface}, routes in {', '.join(found.tables)}"
        return Announcement(host.mtu, private=found, notes=(note,))

    async def _find(self, host: Host) -> Found:
        identity = await threads.call(metadata.identity)
        region = self.options.region or identity.region
        interfaces = await self._ec2.interfaces(region, identity.instance)
        ours = next((interface for interface in interfaces if _holds(interface, host)), None)
        if ours is None:
            there = "; ".join(f"{each['NetworkInterfaceId']} {' '.join(_addresses(each))}" for each in interfaces)
            raise FlannelError(
                f"unable to find ENI that matches the {host.ipv4 or host.ipv6} IP address. {identity.instance} has: "
                f"{there or 'none'}; choose one of the instance's own interfaces with --iface"
            )
        tables = await self._tables(region, ours)
        return Found(region, identity.instance, ours["NetworkInterfaceId"], tables)

    async def _tables(self, region: str, interface: dict[str, Any]) -> tuple[str, ...]:
        vpc = interface["VpcId"]
        if wanted := self.options.tables:
            for table in await self._ec2.route_tables(region, ids=wanted):
                if table["VpcId"] != vpc:
                    raise FlannelError(
                        f"Backend.RouteTableID is {table['RouteTableId']}, which belongs to {table['VpcId']}; "
                        f"{interface['NetworkInterfaceId']} of this host is in {vpc}: name a table of {vpc}"
                    )
            return wanted
        tables = await self._ec2.route_tables(region, {"association.subnet-id": [interface["SubnetId"]]})
        if not tables:  # the subnet is associated with the main table without a word
            tables = await self._ec2.route_tables(region, {"association.main": ["true"], "vpc-id": [vpc]})
        if not tables:
            raise FlannelError(f"main route table not found: {vpc} shows none; name one with Backend.RouteTableID")
        return (tables[0]["RouteTableId"],)

    def local(self, node: Node) -> Iterable[Object]:
        if node.lease is None:
            return
        found: Found = node.announcement.private
        yield SourceCheck(found.region, found.interface, enabled=False)
        for subnet in node.lease.subnets:
            for table in found.tables:
                yield VpcRoute(found.region, table, str(subnet), found.interface)

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        return ()

    def targets(self) -> Iterable[Target]:
        return (VpcTarget(self._ec2, self.options.check_interval),)


def _addresses(interface: dict[str, Any]) -> list[str]:
    addresses = [each["PrivateIpAddress"] for each in interface.get("PrivateIpAddresses", ())]
    return addresses + [each["Ipv6Address"] for each in interface.get("Ipv6Addresses", ())]


def _holds(interface: dict[str, Any], host: Host) -> bool:
    addresses = {ip_address(text) for text in _addresses(interface)}
    return host.ipv4 in addresses or host.ipv6 in addresses
