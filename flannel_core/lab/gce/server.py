"""The compute API, the metadata server and the network's router as one process in the underlay's namespace.

    ip netns exec UNDERLAY python -m flannel_core.lab.gce.server SOCKET

One network, which is the machines' underlay. All that the router does follows from its routes and the instances'
canIpForward as the API has them.
"""

from __future__ import annotations

import sys
import threading
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from ..cloud_process import serve
from ..cloud_router import Instance, Router
from .api import Api, Fault, api_server
from .discovery import Discovery, shipped_document
from .lab_cloud import METADATA4, METADATA6, PORT
from .metadata_server import Metadata, metadata_server, user_of
from .project import Cloud, Fate, addresses, project_of

PROJECT = "flannel-lab"
ZONE = "europe-west1-b"
MTU = 1460
"""Of a network for which nobody says otherwise, in bytes."""


class Fabric:
    """What the lab's calls are answered with: each public method is one."""

    def __init__(self) -> None:
        self._ports: dict[str, str] = {}
        """Of the machines' instances."""
        self._router = Router()
        self._router.set_up([f"{METADATA4}/32", *([f"{METADATA6}/128"] if _has_ipv6() else [])])
        self._metadata = Metadata(self._instance_of)
        for address in (METADATA4, *([METADATA6] if _has_ipv6() else [])):
            _run(metadata_server(self._metadata, address).serve_forever)
        self._cloud = Cloud(self._apply)
        self._network = ""  # while it is made
        self._network = self._cloud.add_network(PROJECT, "default", MTU)
        self._api = Api(self._cloud, Discovery(shipped_document()), user_of)
        self._http = self._listen()

    def _listen(self) -> ThreadingHTTPServer:
        """At every address of both families."""
        server = api_server(self._api, "::" if _has_ipv6() else "0.0.0.0", PORT)
        _run(server.serve_forever)
        return server

    def _apply(self) -> None:
        with self._cloud.lock:
            instances = [
                Instance(self._ports[path], tuple(addresses(instance)), bool(instance["canIpForward"]))
                for path, instance in self._cloud.instances.items()
                if path in self._ports
            ]
            if instances:
                self._router.apply(instances, self._cloud.hops(self._network))

    def _instance_of(self, address: str) -> str:
        asks = ip_address(address)
        text = str(getattr(asks, "ipv4_mapped", None) or asks)
        machines = (path for path in self._ports if text in addresses(self._cloud.instances[path]))
        return next(machines, "")

    # --- calls ---------------------------------------------------------------------------------------------------

    def share(self, project: str) -> str:
        """From now on the machines are in a network that another project shares with theirs. Returns its path."""
        self._network = self._cloud.add_network(project, "shared", MTU)
        return self._network

    def join(self, port: str, ipv4: str | None, ipv6: str | None) -> str:
        """Make an instance of a machine. Returns its path."""
        path = f"projects/{PROJECT}/zones/{ZONE}/instances/{port}"
        self._ports[path] = port
        return self._cloud.add_instance(PROJECT, ZONE, port, self._network, ipv4, ipv6, forwards=True)

    def add_instance(self, name: str, ipv4: str) -> str:
        """One that is no machine of the lab. Returns its path."""
        return self._cloud.add_instance(PROJECT, ZONE, name, self._network, ipv4, None, forwards=True)

    def add_network(self, name: str) -> str:
        return self._cloud.add_network(PROJECT, name, MTU)

    def network(self) -> str:
        """The path of the machines' own."""
        return self._network

    def forward(self, instance: str, forwards: bool) -> None:
        """Set canIpForward."""
        self._cloud.instances[instance]["canIpForward"] = forwards
        self._apply()

    def routes(self) -> Any:
        """Of the machines' network's project, as the API has them."""
        project = project_of(self._network)
        with self._cloud.lock:
            return [route for path, route in self._cloud.routes.items() if project_of(path) == project]

    def put_route(self, body: dict[str, Any]) -> None:
        """As somebody who has waited for the operation."""
        self._cloud.put_route(project_of(self._network), body)

    def begin(self, body: dict[str, Any]) -> Any:
        """As somebody who does not wait for it. Returns the operation."""
        return self._cloud.call("routes.insert", {"project": project_of(self._network)}, body, "somebody")

    def remove_route(self, name: str) -> None:
        self._cloud.remove_route(f"projects/{project_of(self._network)}/global/routes/{name}")

    def metadata(self, service_account: bool) -> None:
        self._metadata.service_account = service_account

    def quota(self, routes: int) -> None:
        self._cloud.quota = routes

    def operations(self, seconds: float | None, code: str = "", status: int = 0, times: int | None = None) -> None:
        """See ``project.Fate``."""
        self._cloud.fates.append(Fate(seconds, code, status, times))

    def refuse(self, method: str, reason: str, status: int, times: int | None = None) -> None:
        """See ``api.Fault``."""
        self._api.faults.append(Fault(method, reason, status, times))

    def heal(self) -> None:
        """No fault from now on."""
        self._api.faults.clear()
        self._cloud.fates.clear()
        self._cloud.forget_operations()

    def down(self) -> None:
        """The API refuses connections; what it holds stays."""
        self._http.shutdown()
        self._http.server_close()

    def up(self) -> None:
        self._http = self._listen()

    def log(self) -> Any:
        """Every request so far."""
        return msgspec.to_builtins(self._api.log)


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _run(work: Any) -> None:
    threading.Thread(target=work, daemon=True).start()


def main() -> None:
    fabric = Fabric()
    calls = {name: getattr(fabric, name) for name in dir(fabric) if not name.startswith("_")}
    serve(Path(sys.argv[1]), calls)


if __name__ == "__main__":
    main()
