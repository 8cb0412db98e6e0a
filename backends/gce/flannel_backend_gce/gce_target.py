"""The routes of a Google Cloud network as a target: read as a whole every few minutes, written one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from flannel_core import threads
from flannel_core.errors import FlannelError
from flannel_core.objects import Object
from flannel_core.target import Actual, Failure, Put, Scope, Target, TargetUnavailable

from . import metadata
from .compute import Compute, ComputeError, addresses_of
from .gce_objects import PRIORITY, GceRoute, Place, short


class GceTarget(Target):
    """Ours is a route of our naming, inside a Network of ours, whose next hop is on record and is this instance, or an
    address that it has at this moment: on a host that was cloned with its files, another's are on record too."""

    name = "gce"
    stages: ClassVar[Mapping[type[Object], int]] = {GceRoute: 50}
    slow = True

    def __init__(self, compute: Compute, check_seconds: float) -> None:
        self.poll_seconds = float(check_seconds)  # type: ignore[misc]
        self._compute = compute
        self._identity: metadata.Identity | None = None

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, scope: Scope) -> Iterable[Actual]:
        """Raises TargetUnavailable."""
        self.scope = scope
        places = {place for text in scope.records.get(self.name, ()) if (place := Place.parse(text))}
        if not places:
            return []
        found = []
        try:
            here = await self._hops()
            ours = {place for place in places if place.hop in here}
            for project in sorted({place.project for place in ours}):
                for route in await self._compute.routes(project):
                    item = route_of(project, route)
                    leads_here = Place(project, item.hop) in ours
                    if leads_here and route["name"] == item.name and scope.covers(item.destination):
                        found.append(Actual(item))
        except FlannelError as error:
            raise TargetUnavailable(str(error)) from error
        return found

    async def _hops(self) -> set[str]:
        """All that a route which leads here may name as its next hop."""
        if self._identity is None:
            self._identity = await threads.call(metadata.identity)
        who = self._identity
        instance = await self._compute.instance(who.project, who.zone, who.instance)
        return {short(instance["selfLink"]), *addresses_of(instance)}

    # --- writing -------------------------------------------------------------------------------------------------

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        failures = [failure for item in removes if (failure := await self._tried(item, self._remove))]
        return failures + [failure for put in puts if (failure := await self._tried(put.object, self._put))]

    async def _tried(self, item: Object, write: Callable[[GceRoute], Awaitable[Failure | None]]) -> Failure | None:
        assert isinstance(item, GceRoute)
        try:
            return await write(item)
        except ComputeError as error:
            return Failure(item, str(error))

    async def _put(self, item: GceRoute) -> Failure | None:
        """What was read may be minutes old, and only this moment's route tells whose it is."""
        there = await self._compute.route(item.project, item.name)
        if there is not None:
            stands = route_of(item.project, there)
            if stands == item:
                return None
            if stands.hop != item.hop:
                # Whose the lease is says nothing of another network, where other hosts have leases of their own.
                if stands.network != item.network:
                    return Failure(item, _of_another_network(item, stands), foreign=True)
                if not await self.lease_is_ours():
                    return Failure(item, _in_the_way(item, stands), foreign=True)
            # The API changes no route: for a moment there is none.
            await self._compute.delete(item.project, item.name)
        await self._compute.insert(item)
        return None

    async def _remove(self, item: GceRoute) -> None:
        """A route that has become another's since it was read stays: a removal names no next hop."""
        there = await self._compute.route(item.project, item.name)
        if there is not None and route_of(item.project, there).hop == item.hop:
            await self._compute.delete(item.project, item.name)


def route_of(project: str, route: Mapping[str, Any]) -> GceRoute:
    """A route as the API has it."""
    hop = route.get("nextHopInstance") or route.get("nextHopIp") or ""
    if not hop:
        hop = next((str(value) for key, value in sorted(route.items()) if key.startswith("nextHop")), "nothing")
    return GceRoute(
        project,
        short(route.get("network", "")),
        route.get("destRange", ""),
        short(hop),
        route.get("priority", PRIORITY),
        tuple(route.get("tags", ())),
    )


def _in_the_way(item: GceRoute, there: GceRoute) -> str:
    return (
        f"a route that is not this host's is in the way: {item.name} to {there.destination} via {there.hop}; it is "
        f"left, since the store does not say at this moment that the lease of {item.destination} is ours. Where it is "
        f"stale: gcloud compute routes delete {item.name} --project {item.project}"
    )


def _of_another_network(item: GceRoute, there: GceRoute) -> str:
    return (
        f"{item.project} has a route {item.name} in another network, {there.network}, via {there.hop}, and no project "
        f"has two routes of one name; it is left. Choose a Network for each that does not overlap the other, or where "
        f"it is stale: gcloud compute routes delete {item.name} --project {item.project}"
    )
