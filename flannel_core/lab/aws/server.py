"""EC2, the metadata service and the VPC's router as one process in the underlay's namespace.

    ip netns exec UNDERLAY python -m flannel_core.lab.aws.server SOCKET

One VPC with one subnet, which are the machines' underlay, and the VPC's main table. All that the router does follows
from the subnet's table and the interfaces' source/destination checks as they are in moto.
"""

from __future__ import annotations

import logging
import sys
import threading
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import boto3
import msgspec
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.route_tables import RouteTable
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from ..cloud_process import serve
from ..cloud_router import Instance, Router
from ..network import UNDERLAY4
from . import moto_gaps
from .faults import OWNER, Fault, Front
from .lab_cloud import IMAGE, PORT
from .metadata_server import Metadata, metadata_server

REGION = "us-east-1"
METADATA4 = "169.254.169.254"
METADATA6 = "fd00:ec2::254"
LAB_KEYS: dict[str, Any] = {"aws_access_key_id": OWNER, "aws_secret_access_key": "lab", "region_name": REGION}


class Vpc:
    """What the lab's calls are answered with: each public method is one."""

    def __init__(self) -> None:
        moto_gaps.fill()
        self._ports: dict[str, str] = {}
        """Of the machines' interfaces."""
        self._front = Front(DomainDispatcherApplication(create_backend_app), self._apply)
        self._http = self._listen()
        self._router = Router()
        self._router.set_up([f"{METADATA4}/32", *([f"{METADATA6}/128"] if _has_ipv6() else [])])
        self._metadata = Metadata(REGION, self._instance_of)
        for address in (METADATA4, *([METADATA6] if _has_ipv6() else [])):
            _run(metadata_server(self._metadata, address).serve_forever)
        self._ec2: Any = boto3.client("ec2", endpoint_url=f"http://127.0.0.1:{PORT}", **LAB_KEYS)
        self._moto = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
        self._vpc = self._ec2.create_vpc(CidrBlock=str(UNDERLAY4))["Vpc"]["VpcId"]
        self._subnet = self._ec2.create_subnet(VpcId=self._vpc, CidrBlock=str(UNDERLAY4))["Subnet"]["SubnetId"]

    def _listen(self) -> BaseWSGIServer:
        """At every address of both families."""
        host = "::" if _has_ipv6() else "0.0.0.0"
        server = make_server(host, PORT, self._front, threaded=True, request_handler=MotoRequestHandler)
        _run(server.serve_forever)
        return server

    # --- the router ----------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """After each write; ``Front`` makes one at a time."""
        if not self._ports:
            return
        interfaces = [self._moto.enis[interface] for interface in self._ports if interface in self._moto.enis]
        routes: dict[str, str] = {}
        for route in self._table().routes:
            destination = route.destination_cidr_block or route.destination_ipv6_cidr_block
            if destination and route.state == "active" and route.interface in interfaces:
                gateway = _address(route.interface, ip_network(destination).version)
                routes |= {destination: gateway} if gateway else {}
        self._router.apply(
            [
                Instance(self._ports[interface.id], tuple(_addresses(interface)), not interface.source_dest_check)
                for interface in interfaces
            ],
            routes,
        )

    def _table(self) -> RouteTable:
        """The subnet's own, else the VPC's main one."""
        tables = [table for table in list(self._moto.route_tables.values()) if table.vpc_id == self._vpc]
        own = [table for table in tables if self._subnet in table._associations.values()]
        return next(iter(own), None) or next(table for table in tables if table.main_association_id)

    def _instance_of(self, address: str) -> str:
        """Of a machine, or of the machine that the VPC's routes lead to."""
        interfaces = [self._moto.enis[interface] for interface in self._ports if interface in self._moto.enis]
        asks = ip_address(address)
        asks = getattr(asks, "ipv4_mapped", None) or asks
        for interface in interfaces:
            if str(asks) in _addresses(interface) and interface.instance:
                return str(interface.instance.id)
        for route in self._table().routes:
            block = route.destination_cidr_block or route.destination_ipv6_cidr_block
            if block and asks in ip_network(block) and route.interface in interfaces and route.interface.instance:
                return str(route.interface.instance.id)
        return ""

    # --- calls ---------------------------------------------------------------------------------------------------

    def join(self, port: str, ipv4: str | None, ipv6: str | None) -> dict[str, str]:
        """Run an instance at these addresses of the underlay. Returns the ids of it and its interface."""
        wanted = {"PrivateIpAddress": ipv4} if ipv4 else {}
        interface = self._ec2.create_network_interface(SubnetId=self._subnet, **wanted)["NetworkInterface"]
        name = interface["NetworkInterfaceId"]
        if ipv6:
            self._moto.enis[name].ipv6_addresses = [ipv6]  # moto takes none outside a block that it chose itself
        self._ports[name] = port
        run = self._ec2.run_instances(
            ImageId=IMAGE, MinCount=1, MaxCount=1, NetworkInterfaces=[{"NetworkInterfaceId": name, "DeviceIndex": 0}]
        )
        return {"instance": run["Instances"][0]["InstanceId"], "interface": name}

    def facts(self) -> dict[str, str]:
        """The ids of the VPC, the subnet and the table that applies to it."""
        return {"vpc": self._vpc, "subnet": self._subnet, "table": self._table().id}

    def ec2(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Any call of the API, by boto3's name, as the account's owner."""
        return getattr(self._ec2, operation)(**arguments)

    def metadata(self, **changes: Any) -> None:
        """Set ``enabled``, ``role`` or ``hop_limit``."""
        for name, value in changes.items():
            setattr(self._metadata, name, value)

    def quota(self, routes: int) -> None:
        moto_gaps.Quota.routes = routes

    def refuse(self, action: str, code: str, status: int = 400, times: int | None = None) -> None:
        """See ``faults.Fault``."""
        self._front.faults.append(Fault(action, code, status, times))

    def heal(self) -> None:
        """No fault from now on."""
        self._front.faults.clear()

    def down(self) -> None:
        """The API refuses connections; what it holds stays."""
        self._http.shutdown()
        self._http.server_close()

    def up(self) -> None:
        self._http = self._listen()

    def log(self) -> Any:
        """Every request so far, of the agents and of the lab."""
        return msgspec.to_builtins(self._front.log)


def _addresses(interface: NetworkInterface) -> list[str]:
    return [*(str(item["PrivateIpAddress"]) for item in interface.private_ip_addresses), *interface.ipv6_addresses]


def _address(interface: NetworkInterface, version: int) -> str | None:
    return next((text for text in _addresses(interface) if ip_address(text).version == version), None)


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _run(work: Any) -> None:
    threading.Thread(target=work, daemon=True).start()


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    vpc = Vpc()
    calls = {name: getattr(vpc, name) for name in dir(vpc) if not name.startswith("_")}
    serve(Path(sys.argv[1]), calls)


if __name__ == "__main__":
    main()
