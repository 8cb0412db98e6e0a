"""What EC2 does about routes and moto does not: moto is changed in place, once, in the process that serves it."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import EC2ClientError, RouteAlreadyExistsError
from moto.ec2.models.route_tables import Route, RouteBackend

DEFAULT_QUOTA = 50


class Quota:
    """Routes that one table takes, of one family, without those to the VPC itself."""

    routes = DEFAULT_QUOTA


def fill() -> None:
    """A route whose interface is gone or on no instance is a blackhole. A second route to one destination is refused,
    and so is one more than ``Quota.routes``."""
    backend: Any = RouteBackend
    create = backend.create_route

    def create_route(self: Any, route_table_id: str, *blocks: str | None, **target: Any) -> Route:
        destination = next((block for block in (*blocks, target.get("destination_ipv6_cidr_block")) if block), None)
        if destination and not target.get("local"):
            routes = [route for route in self.get_route_table(route_table_id).routes if not route.local]
            if destination in map(_destination, routes):
                raise RouteAlreadyExistsError(destination)
            if sum((":" in _destination(route)) == (":" in destination) for route in routes) >= Quota.routes:
                raise EC2ClientError(
                    "RouteLimitExceeded", f"The maximum number of routes has been reached. ({route_table_id})"
                )
        created: Route = create(self, route_table_id, *blocks, **target)
        return created

    backend.create_route = create_route
    route_class: Any = Route
    route_class.state = property(_state)


def _destination(route: Route) -> str:
    return route.destination_cidr_block or route.destination_ipv6_cidr_block or ""


def _state(route: Route) -> str:
    interface = route.interface
    if interface is None:
        return "active"
    there = interface.id in interface.ec2_backend.enis
    attached = there and interface.instance is not None and interface.instance.state != "terminated"
    return "active" if attached else "blackhole"
