"""The route tables of a VPC as a target: read as a whole every few minutes, written route by route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from flannel_core import threads
from flannel_core.errors import FlannelError
from flannel_core.objects import Identity, Object
from flannel_core.target import Actual, Failure, Put, Scope, Target, TargetUnavailable

from . import metadata
from .ec2 import Ec2, Ec2Error, destination, next_hop
from .vpc_objects import Place, SourceCheck, VpcRoute

BLACKHOLE = "blackhole"
"""``State`` of a route whose interface is gone or on no instance, and the interface of such a route as it is read."""


class VpcTarget(Target):
    """Ours is a route inside a Network of ours whose next hop is an interface that is on record and that this instance
    has at this moment: on a host that was cloned with its files, another's interfaces are on record too.

    A blackhole inside Network that no lease holds is read as ours once it was seen twice, which has it removed; whoever
    has just been given that subnet replaces it meanwhile.
    """

    name = "aws-vpc"
    stages: ClassVar[Mapping[type[Object], int]] = {SourceCheck: 45, VpcRoute: 50}
    slow = True

    def __init__(self, ec2: Ec2, check_seconds: float) -> None:
        self.poll_seconds = float(check_seconds)  # type: ignore[misc]
        self._ec2 = ec2
        self._identity: metadata.Identity | None = None
        self._ours: set[str] = set()
        """Interfaces, as read last."""
        self._blackholes: set[Identity] = set()
        """As read last."""

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, scope: Scope) -> Iterable[Actual]:
        """Raises TargetUnavailable if a table cannot be read."""
        self.scope = scope
        places = [place for text in scope.records.get(self.name, ()) if (place := Place.parse(text))]
        found: list[Actual] = []
        interfaces: set[str] = set()
        blackholes: set[Identity] = set()
        try:
            for region in sorted({place.region for place in places}):
                attached = await self._attached(region)
                ours = {place.interface for place in places} & attached.keys()
                interfaces |= ours
                found += [Actual(SourceCheck(region, name, enabled=attached[name]["SourceDestCheck"])) for name in ours]
                # By filter, not by id: one that was deleted must not hide the others.
                names = sorted({place.table for place in places if place.region == region})
                for table in await self._ec2.route_tables(region, {"route-table-id": names}):
                    found += map(Actual, self._routes(region, table, ours, blackholes))
        except FlannelError as error:
            raise TargetUnavailable(str(error)) from error
        self._ours, self._blackholes = interfaces, blackholes
        return found

    async def _attached(self, region: str) -> dict[str, dict[str, Any]]:
        """This instance's interfaces by id."""
        if self._identity is None:
            self._identity = await threads.call(metadata.identity)
        found = await self._ec2.interfaces(region, self._identity.instance)
        return {interface["NetworkInterfaceId"]: interface for interface in found}

    def _routes(
        self, region: str, table: Mapping[str, Any], ours: set[str], blackholes: set[Identity]
    ) -> Iterator[VpcRoute]:
        """What of a table is ours, or a blackhole to be removed; ``blackholes`` gets all that are inside a Network."""
        for route in table.get("Routes", ()):
            item = VpcRoute(region, table["RouteTableId"], destination(route), next_hop(route))
            if not self.scope.covers(item.destination):
                continue
            if route.get("State") == BLACKHOLE:
                blackholes.add(item.identity)
                if item.identity in self._blackholes and not self.is_leased(item.destination):
                    yield VpcRoute(region, item.table, item.destination, BLACKHOLE)
            elif item.interface in ours:
                yield item

    # --- writing -------------------------------------------------------------------------------------------------

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        failures = [failure for item in removes if (failure := await self._tried(item, self._remove))]
        return failures + [failure for put in puts if (failure := await self._tried(put.object, self._put))]

    async def _tried(self, item: Object, write: Callable[[Object], Awaitable[Failure | None]]) -> Failure | None:
        try:
            return await write(item)
        except Ec2Error as error:
            return Failure(item, str(error))

    async def _put(self, item: Object) -> Failure | None:
        if isinstance(item, SourceCheck):
            check = {"Value": item.enabled}
            operation = "modify_network_interface_attribute"
            await self._ec2.call(item.region, operation, NetworkInterfaceId=item.interface, SourceDestCheck=check)
            return None
        assert isinstance(item, VpcRoute)
        # What was read may be minutes old, and only this moment's route tells whose it is.
        there = await self._look(item)
        if there is None:
            await self._write("create_route", item, NetworkInterfaceId=item.interface)
        elif next_hop(there) in {item.interface, *self._ours} or await self.lease_is_ours():
            if next_hop(there) != item.interface or there.get("State") == BLACKHOLE:
                # One call: at no moment is there no route.
                await self._write("replace_route", item, NetworkInterfaceId=item.interface)
        else:
            return Failure(item, _in_the_way(item, there), foreign=True)
        return None

    async def _remove(self, item: Object) -> None:
        """A route that has become another's since it was read stays: a removal names no next hop."""
        assert isinstance(item, VpcRoute)
        there = await self._look(item)
        if there is None:
            return
        if item.interface == BLACKHOLE:
            is_still = there.get("State") == BLACKHOLE and not self.is_leased(item.destination)
        else:
            is_still = next_hop(there) == item.interface
        try:
            if is_still:
                await self._write("delete_route", item)
        except Ec2Error as error:
            if error.code != "InvalidRoute.NotFound":
                raise

    async def _look(self, item: VpcRoute) -> dict[str, Any] | None:
        """The route to its destination at this moment."""
        for table in await self._ec2.route_tables(item.region, ids=[item.table]):
            for route in table.get("Routes", ()):
                if destination(route) == item.destination:
                    return dict(route)
        return None

    async def _write(self, operation: str, item: VpcRoute, **arguments: str) -> None:
        block = "DestinationIpv6CidrBlock" if ":" in item.destination else "DestinationCidrBlock"
        arguments |= {"RouteTableId": item.table, block: item.destination}
        await self._ec2.call(item.region, operation, **arguments)


def _in_the_way(item: VpcRoute, there: Mapping[str, Any]) -> str:
    option = "--destination-ipv6-cidr-block" if ":" in item.destination else "--destination-cidr-block"
    return (
        f"a route that is not this host's is in the way: {item.destination} via {next_hop(there)}; it is left, since "
        f"the store does not say at this moment that the lease of {item.destination} is ours. Where it is stale: "
        f"aws ec2 delete-route --route-table-id {item.table} {option} {item.destination}"
    )
