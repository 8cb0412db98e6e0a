"""A fake of Google Cloud's networks: instances, routes, and operations that take their time, fail or never end.

There is no server of Google's that could run here. What requests and answers look like is held against the discovery
document (``api.py``); what the methods do is what the API's reference says of them, as far as a router needs it:
https://cloud.google.com/compute/docs/reference/rest/v1/routes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import msgspec

ROOT = "https://www.googleapis.com/compute/v1/"
PAGE = 2
"""Routes on a page of a list, for whoever does not ask for fewer: every list has several."""
NEXT_HOPS = ("nextHopGateway", "nextHopIlb", "nextHopInstance", "nextHopIp", "nextHopNetwork", "nextHopVpnTunnel")
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
GATEWAY = "projects/{}/global/gateways/default-internet-gateway"

Json = dict[str, Any]


class Refused(Exception):
    """An error that the API answers with: HTTP's status, Google's reason, a message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Fate(msgspec.Struct):
    """What becomes of the next ``times`` operations, None: of all from now on. ``seconds`` None: they never end.
    ``code``: they fail with that, and ``status``."""

    seconds: float | None
    code: str = ""
    status: int = 0
    times: int | None = None


class Cloud:
    """All projects. ``on_change`` is called after each change, with ``lock`` held."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.instances: dict[str, Json] = {}
        """By ``projects/P/zones/Z/instances/N``, as are networks and routes by theirs."""
        self.networks: dict[str, Json] = {}
        self.routes: dict[str, Json] = {}
        self.quota = 200
        """Of routes in a project."""
        self.seconds = 0.1
        """How long an operation takes."""
        self.fates: list[Fate] = []
        self._operations: dict[str, Json] = {}
        self._begun: dict[str, Json] = {}
        """Operations by the requestId that began them."""
        self._busy: set[str] = set()
        """Routes that an operation is at work on."""
        self._numbers = count(4_000_000_000_000_000_000)
        self.lock = threading.RLock()
        self._on_change = on_change

    # --- what the API has methods for ----------------------------------------------------------------------------

    def call(self, method: str, arguments: Mapping[str, str], body: Json | None, user: str) -> Json:
        """``arguments`` are the parameters of path and query. Raises Refused, also for what is not made here."""
        known: dict[str, Callable[[Mapping[str, str], Json | None, str], Json]] = {
            "instances.get": lambda a, *_: self._get(
                self.instances, "projects/{project}/zones/{zone}/instances/{instance}", a
            ),
            "networks.get": lambda a, *_: self._get(self.networks, "projects/{project}/global/networks/{network}", a),
            "routes.get": lambda a, *_: self._get(self.routes, "projects/{project}/global/routes/{route}", a),
            "routes.list": lambda a, *_: self._list(a),
            "routes.insert": self._insert,
            "routes.delete": self._delete,
            "globalOperations.get": lambda a, *_: self._get(
                self._operations, "projects/{project}/global/operations/{operation}", a
            ),
        }
        if method not in known:
            raise Refused(501, "notImplemented", f"the lab's Google Cloud has no {method}")
        with self.lock:
            return msgspec.json.decode(msgspec.json.encode(known[method](arguments, body, user)), type=dict)

    def _get(self, place: Mapping[str, Json], path: str, arguments: Mapping[str, str]) -> Json:
        wanted = path.format_map(arguments)
        if wanted not in place:
            raise Refused(404, "notFound", f"The resource '{wanted}' was not found")
        return place[wanted]

    def _list(self, arguments: Mapping[str, str]) -> Json:
        project = arguments["project"]
        names = sorted(path for path in self.routes if path.startswith(f"projects/{project}/"))
        first = int(arguments.get("pageToken", "0"))
        last = first + min(int(arguments.get("maxResults", PAGE)), PAGE)
        page: Json = {"kind": "compute#routeList", "selfLink": f"{ROOT}projects/{project}/global/routes"}
        page["items"] = [self.routes[name] for name in names[first:last]]
        return page | ({"nextPageToken": str(last)} if last < len(names) else {})

    def _insert(self, arguments: Mapping[str, str], body: Json | None, user: str) -> Json:
        assert body is not None
        project, path = arguments["project"], f"projects/{arguments['project']}/global/routes/{body['name']}"
        self._check(project, body)

        def effect() -> None:
            self.put_route(project, body)

        def begin() -> Json:
            if path in self.routes or path in self._busy:
                raise Refused(409, "alreadyExists", f"The resource '{path}' already exists")
            if sum(name.startswith(f"projects/{project}/") for name in self.routes) >= self.quota:
                raise Refused(403, "quotaExceeded", f"Quota 'ROUTES' exceeded.  Limit: {self.quota}.0 globally.")
            return self._operation(project, "insert", path, user, effect)

        return self._once(arguments, begin)

    def _delete(self, arguments: Mapping[str, str], body: Json | None, user: str) -> Json:
        project, path = arguments["project"], "projects/{project}/global/routes/{route}".format_map(arguments)

        def begin() -> Json:
            if path in self._busy:
                raise Refused(400, "resourceNotReady", f"The resource '{path}' is not ready")
            self._get(self.routes, "projects/{project}/global/routes/{route}", arguments)
            return self._operation(project, "delete", path, user, lambda: self.remove_route(path))

        return self._once(arguments, begin)

    def _once(self, arguments: Mapping[str, str], begin: Callable[[], Json]) -> Json:
        """A request that is sent twice with one requestId is carried out once."""
        token = arguments.get("requestId", "")
        if token and not re.fullmatch(UUID, token):
            raise Refused(400, "invalid", f"Invalid value for field 'requestId': '{token}'")
        if token in self._begun:
            return self._begun[token]
        operation = begin()
        if token:
            self._begun[token] = operation
        return operation

    def _check(self, project: str, body: Json) -> None:
        """What a route has to be beyond its schema."""
        network = body["network"].removeprefix(ROOT)
        if network not in self.networks or not network.startswith(f"projects/{project}/"):
            raise Refused(400, "invalid", f"Invalid value for field 'resource.network': '{body['network']}'")
        try:
            destination = ip_network(body["destRange"])
        except ValueError:
            raise Refused(400, "invalid", f"Invalid value for 'resource.destRange': '{body['destRange']}'") from None
        hop = body.get("nextHopIp")
        if hop and ip_address(hop).version != destination.version:
            raise Refused(400, "invalid", f"Invalid value for field 'resource.nextHopIp': '{hop}'")
        if sum(name in body for name in NEXT_HOPS) != 1:
            raise Refused(400, "invalid", "Exactly one of the next hops must be specified")
        if "nextHopInstance" in body:
            instance = body["nextHopInstance"].removeprefix(ROOT)
            if instance not in self.instances or not instance.startswith(f"projects/{project}/"):
                raise Refused(400, "invalid", f"Invalid value for 'resource.nextHopInstance': '{instance}'")

    # --- operations ----------------------------------------------------------------------------------------------

    def _operation(self, project: str, kind: str, path: str, user: str, effect: Callable[[], None]) -> Json:
        number = str(next(self._numbers))
        name = f"operation-{number}"
        operation: Json = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            "operationType": kind,
            "targetLink": ROOT + path,
            "user": user,
            "status": "RUNNING",
            "progress": 0,
            "insertTime": datetime.now(UTC).isoformat(),
            "selfLink": f"{ROOT}projects/{project}/global/operations/{name}",
        }
        self._operations[f"projects/{project}/global/operations/{name}"] = operation
        fate = self._next_fate()
        self._busy.add(path)
        if fate.seconds is not None:
            timer = threading.Timer(fate.seconds, self._finish, (operation, path, fate, effect))
            timer.daemon = True
            timer.start()
        return operation

    def _next_fate(self) -> Fate:
        for fate in self.fates:
            if fate.times != 0:
                if fate.times is not None:
                    fate.times -= 1
                return fate
        return Fate(self.seconds)

    def _finish(self, operation: Json, path: str, fate: Fate, effect: Callable[[], None]) -> None:
        with self.lock:
            self._busy.discard(path)
            if fate.code:
                operation["error"] = {"errors": [{"code": fate.code, "message": f"the lab has {path} fail"}]}
                operation["httpErrorStatusCode"] = fate.status
            else:
                effect()
            operation |= {"status": "DONE", "progress": 100, "endTime": datetime.now(UTC).isoformat()}

    # --- what its owners do ------------------------------------------------------------------------------------------

    def add_network(self, project: str, name: str, mtu: int) -> str:
        """With the route to the internet that every network has. Returns its path."""
        path = f"projects/{project}/global/networks/{name}"
        self.networks[path] = {
            "kind": "compute#network",
            "id": str(next(self._numbers)),
            "name": name,
            "mtu": mtu,
            "autoCreateSubnetworks": True,
            "selfLink": ROOT + path,
        }
        gateway = ROOT + GATEWAY.format(project)
        self.put_route(
            project,
            {
                "name": f"default-route-{name}",
                "destRange": "0.0.0.0/0",
                "network": ROOT + path,
                "nextHopGateway": gateway,
                "priority": 1000,
            },
        )
        return path

    def add_instance(
        self, project: str, zone: str, name: str, network: str, ipv4: str | None, ipv6: str | None, *, forwards: bool
    ) -> str:
        """Returns its path."""
        path = f"projects/{project}/zones/{zone}/instances/{name}"
        interface: Json = {"kind": "compute#networkInterface", "name": "nic0", "network": ROOT + network}
        interface |= {"networkIP": ipv4} if ipv4 else {}
        interface |= {"ipv6Address": ipv6} if ipv6 else {}
        instance: Json = {
            "kind": "compute#instance",
            "id": str(next(self._numbers)),
            "name": name,
            "status": "RUNNING",
            "zone": f"{ROOT}projects/{project}/zones/{zone}",
            "canIpForward": forwards,
            "networkInterfaces": [interface],
            "selfLink": ROOT + path,
        }
        with self.lock:
            self.instances[path] = instance
            self._on_change()
        return path

    def put_route(self, project: str, body: Json) -> None:
        path = f"projects/{project}/global/routes/{body['name']}"
        route = {
            **body,
            "kind": "compute#route",
            "id": str(next(self._numbers)),
            "creationTimestamp": datetime.now(UTC).isoformat(),
            "selfLink": ROOT + path,
            "routeType": "STATIC",
        }
        with self.lock:
            self.routes[path] = route
            self._on_change()

    def remove_route(self, path: str) -> None:
        with self.lock:
            self.routes.pop(path, None)
            self._on_change()

    def forget_operations(self) -> None:
        """Those that never end."""
        with self.lock:
            self._busy.clear()

    def hops(self, network: str) -> dict[str, str]:
        """Where a network sends what is for its instances: of two routes to one destination the one of lower priority
        counts, and no instance here has tags. Destination to address."""
        chosen: dict[str, str] = {}
        for route in sorted(self.routes.values(), key=lambda route: (route["priority"], route["name"])):
            if route["network"] == ROOT + network and not route.get("tags") and (hop := self._hop(route)):
                chosen.setdefault(route["destRange"], hop)
        return chosen

    def _hop(self, route: Json) -> str | None:
        version = ip_network(route["destRange"]).version
        instance = self.instances.get(route.get("nextHopInstance", "").removeprefix(ROOT))
        if instance:
            return next((text for text in addresses(instance) if ip_address(text).version == version), None)
        hop = route.get("nextHopIp")
        return hop if any(hop in addresses(other) for other in self.instances.values()) else None


def addresses(instance: Json) -> list[str]:
    return list(_addresses(instance))


def _addresses(instance: Json) -> Iterator[str]:
    for interface in instance["networkInterfaces"]:
        yield from (interface[name] for name in ("networkIP", "ipv6Address") if name in interface)


def project_of(path: str) -> str:
    """``projects/P/...``."""
    found = re.match(r"projects/([^/]+)/", path)
    assert found, path
    return found[1]
