"""The lab's machines as instances of one VPC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..cloud import LabCloud
from ..network import Machine
from .faults import Asked
from .metadata_server import access_key_of

PORT = 5000
IMAGE = "ami-12c6146b"
"""One that moto has."""


class AwsLabCloud(LabCloud):
    """``ec2`` is the API as the account's owner sees it; the other methods do what the API does not."""

    backend = "aws-vpc"
    server = "flannel_core.lab.aws.server"
    port = PORT
    heal_seconds = 15.0

    def __init__(self, directory: Path, namespace: str, environment: Mapping[str, str]) -> None:
        super().__init__(directory, namespace, environment)
        facts = self.process.call("facts")
        self.vpc: str = facts["vpc"]
        self.subnet: str = facts["subnet"]
        self.table: str = facts["table"]
        """The VPC's main one, which the subnet goes by."""
        self.interfaces: dict[str, str] = {}
        """The ids of their interfaces, by the name of the machine."""

    def join(self, machine: Machine) -> dict[str, str]:
        self._has_ipv4 = machine.ipv4 is not None
        if machine.name not in self.instances:
            found = self.process.call(
                "join",
                port=machine.name,
                ipv4=str(machine.ipv4.ip) if machine.ipv4 else None,
                ipv6=str(machine.ipv6.ip) if machine.ipv6 else None,
            )
            self.instances[machine.name], self.interfaces[machine.name] = found["instance"], found["interface"]
        # Nothing of whoever runs the lab: no profile, no credentials, no proxy.
        environment = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "no_proxy": "*"}
        return environment | ({} if self._has_ipv4 else {"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"})

    def ec2(self, operation: str, **arguments: Any) -> Any:
        """Call the API: ``ec2("delete_route", RouteTableId=..., DestinationCidrBlock=...)``. Raises LabError."""
        return self.process.call("ec2", operation=operation, arguments=arguments)

    def routes(self, table: str = "") -> dict[str, str]:
        """Of a table, but for those to the VPC itself: destination to interface, ``blackhole`` for one that leads
        nowhere."""
        found = self.ec2("describe_route_tables", RouteTableIds=[table or self.table])["RouteTables"][0]["Routes"]
        return {
            route.get("DestinationCidrBlock") or route["DestinationIpv6CidrBlock"]: _next_hop(route)
            for route in found
            if route.get("GatewayId") != "local"
        }

    def next_hop(self, machine: str) -> str:
        return self.interfaces[machine]

    def delete_route(self, destination: object, table: str = "") -> None:
        self.ec2("delete_route", RouteTableId=table or self.table, **_block(destination))

    def create_route(self, destination: object, interface: str, table: str = "") -> None:
        block = _block(destination)
        self.ec2("create_route", RouteTableId=table or self.table, NetworkInterfaceId=interface, **block)

    def replace_route(self, destination: object, interface: str, table: str = "") -> None:
        block = _block(destination)
        self.ec2("replace_route", RouteTableId=table or self.table, NetworkInterfaceId=interface, **block)

    def create_table(self, vpc: str = "") -> str:
        """Another one, that no subnet goes by, of this VPC or of ``vpc``."""
        return str(self.ec2("create_route_table", VpcId=vpc or self.vpc)["RouteTable"]["RouteTableId"])

    def add_stranger(self) -> tuple[str, str]:
        """Run an instance that is no machine of the lab. Returns the ids of it and its interface."""
        instance = self.ec2("run_instances", ImageId=IMAGE, MinCount=1, MaxCount=1, SubnetId=self.subnet)["Instances"][
            0
        ]
        return instance["InstanceId"], instance["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def terminate(self, instance: str) -> None:
        """It is gone for good; the routes to it become blackholes."""
        self.ec2("terminate_instances", InstanceIds=[instance])

    def checks_sources(self, machine: str) -> bool:
        """Whether the interface's source/destination check is on."""
        found = self.ec2("describe_network_interfaces", NetworkInterfaceIds=[self.interfaces[machine]])
        return bool(found["NetworkInterfaces"][0]["SourceDestCheck"])

    def check_sources(self, machine: str) -> None:
        """Switch that check on."""
        interface = self.interfaces[machine]
        on = {"Value": True}
        self.ec2("modify_network_interface_attribute", NetworkInterfaceId=interface, SourceDestCheck=on)

    def requests(self, machines: Iterable[str] = ()) -> list[Asked]:
        """What the agents have asked since ``forget_requests``, of these machines or of all."""
        keys = {access_key_of(self.instances[name]) for name in (machines or self.instances)}
        return [asked for asked in self._log(Asked) if asked.key in keys]

    def looks(self, machine: str) -> int:
        # By filter: one table by its id is looked at before each write.
        tables = [asked for asked in self.requests([machine]) if asked.action == "DescribeRouteTables"]
        return sum("RouteTableId.1" not in asked.parameters for asked in tables)

    def writes(self, machines: Iterable[str] = ()) -> list[str]:
        """The actions among them that change something."""
        return [asked.action for asked in self.requests(machines) if asked.is_write]

    def refuse(self, action: str, code: str, status: int = 400, times: int | None = None) -> None:
        """Refuse ``times`` requests of an action (``*``: of any) with this code; None: all from now on."""
        self.process.call("refuse", action=action, code=code, status=status, times=times)


def _next_hop(route: Mapping[str, Any]) -> str:
    if route["State"] == "blackhole":
        return "blackhole"
    return str(route.get("NetworkInterfaceId") or route.get("GatewayId"))


def _block(destination: object) -> dict[str, str]:
    text = str(destination)
    return {"DestinationIpv6CidrBlock" if ":" in text else "DestinationCidrBlock": text}
