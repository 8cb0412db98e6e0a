"""The lab's machines as instances of one Google Cloud network. What plays Google Cloud is a fake: see ``project``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..cloud import LabCloud
from ..network import Machine
from .api import Asked

PORT = 5001
METADATA4 = "169.254.169.254"
METADATA6 = "fd20:ce::254"
ROOT = "https://www.googleapis.com/compute/v1/"


class GceLabCloud(LabCloud):
    """``instances`` are paths, ``projects/P/zones/Z/instances/N``."""

    backend = "gce"
    server = "flannel_core.lab.gce.server"
    port = PORT
    heal_seconds = 30.0  # the SDK's own tries take up to 14

    def join(self, machine: Machine) -> dict[str, str]:
        self._has_ipv4 = machine.ipv4 is not None
        if machine.name not in self.instances:
            self.instances[machine.name] = self.process.call(
                "join",
                port=machine.name,
                ipv4=str(machine.ipv4.ip) if machine.ipv4 else None,
                ipv6=str(machine.ipv6.ip) if machine.ipv6 else None,
            )
        # Nothing of whoever runs the lab: no credentials, no proxy. And a lab has no DNS for metadata.google.internal.
        host = METADATA4 if self._has_ipv4 else f"[{METADATA6}]"
        return {"CLOUDSDK_CONFIG": "/dev/null", "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "no_proxy": "*"}

    @property
    def network(self) -> str:
        """The machines' own, ``projects/P/global/networks/N``."""
        return str(self.process.call("network"))

    def share(self, project: str) -> str:
        """Machines that join from now on are in a network that ``project`` shares with theirs. Returns its path."""
        return str(self.process.call("share", project=project))

    def routes(self) -> dict[str, str]:
        """But for the one to the internet: destination to instance or address."""
        found = {route["destRange"]: route for route in self.process.call("routes") if "nextHopGateway" not in route}
        return {destination: _hop(route) for destination, route in found.items()}

    def next_hop(self, machine: str) -> str:
        return self.instances[machine]

    def put_route(self, destination: object, hop: str, *, name: str = "", **changes: Any) -> None:
        """Make or replace one, of flannel's name for it or of another; ``changes`` are further fields of it."""
        route = {
            "name": name or route_name(destination),
            "destRange": str(destination),
            "network": ROOT + self.network,
            "priority": 1000,
            **({"nextHopInstance": ROOT + hop} if "/" in hop else {"nextHopIp": hop}),
            **changes,
        }
        self.process.call("put_route", body=route)

    def delete_route(self, destination: object, name: str = "") -> None:
        self.process.call("remove_route", name=name or route_name(destination))

    def clear_routes(self) -> None:
        """Remove all of them but the one to the internet."""
        for route in self.process.call("routes"):
            if "nextHopGateway" not in route:
                self.process.call("remove_route", name=route["name"])

    def add_stranger(self, address: str = "198.51.100.200") -> str:
        """An instance that is no machine of the lab. Returns its path."""
        return str(self.process.call("add_instance", name="stranger", ipv4=address))

    def forward(self, machine: str, forwards: bool) -> None:
        """Set canIpForward of a machine's instance."""
        self.process.call("forward", instance=self.instances[machine], forwards=forwards)

    def requests(self, machines: Iterable[str] = ()) -> list[Asked]:
        """What the agents have asked since ``forget_requests``, of these machines or of all."""
        names = set(machines or self.instances)
        return [asked for asked in self._log(Asked) if asked.user in names]

    def looks(self, machine: str) -> int:
        first = [asked for asked in self.requests([machine]) if "pageToken" not in asked.parameters]
        return sum(asked.method == "routes.list" for asked in first)

    def faults(self) -> list[str]:
        """What of all requests and answers since ``forget_requests`` was not as the discovery document has it."""
        return [f"{asked.method}: {fault}" for asked in self._log(Asked) for fault in asked.faults]

    def writes(self, machines: Iterable[str] = ()) -> list[str]:
        """The methods among the requests that change something."""
        return [asked.method for asked in self.requests(machines) if asked.is_write]

    def refuse(self, method: str, reason: str, status: int, times: int | None = None) -> None:
        """Refuse ``times`` requests of a method (``*``: of any) for this reason; None: all from now on."""
        self.process.call("refuse", method=method, reason=reason, status=status, times=times)

    def operations(self, seconds: float | None, code: str = "", status: int = 0, times: int | None = None) -> None:
        """Have the next ``times`` operations take so long (None: for ever), and fail with ``code``."""
        self.process.call("operations", seconds=seconds, code=code, status=status, times=times)


def route_name(destination: object) -> str:
    """What flannel calls its route to an IPv4 destination."""
    return f"flannel-{str(destination).replace('.', '-').replace('/', '-')}"


def _hop(route: Mapping[str, Any]) -> str:
    return str(route.get("nextHopInstance", "")).removeprefix(ROOT) or str(route.get("nextHopIp"))
