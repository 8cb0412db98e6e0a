"""Where this host is in AWS, found out from real servers: the metadata service of the lab, and moto."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from flannel_backend_aws_vpc.aws_vpc import AwsVpcBackend, Found
from flannel_backend_aws_vpc.options import AwsVpcOptions
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lab import Lab
from flannel_core.lab.aws.lab_cloud import AwsLabCloud
from flannel_core.lab.network import inside


class Vpc:
    """One instance without an agent."""

    def __init__(self, lab: Lab) -> None:
        cloud = lab.cloud("aws-vpc")
        assert isinstance(cloud, AwsLabCloud)
        self.cloud = cloud
        (self.machine,) = lab.machines(1, ipv6=True)
        self.environment = cloud.join(self.machine)

    @property
    def interface(self) -> str:
        return self.cloud.interfaces[self.machine.name]

    def find(self, options: Mapping[str, Any] = {}, ipv4: str | None = "", ipv6: str | None = "") -> Found:
        """By what is the machine's own where nothing else is given."""
        machine = self.machine
        assert machine.ipv4
        assert machine.ipv6
        four = machine.ipv4.ip if ipv4 == "" else ip_address(ipv4) if ipv4 else None
        six = machine.ipv6.ip if ipv6 == "" else ip_address(ipv6) if ipv6 else None
        this_host = Host("eth0", 2, 9001, "02:00:00:00:00:01", four, six, four, six)
        endpoint = str(self.cloud.options["Endpoint"])
        backend = AwsVpcBackend(AwsVpcOptions(**{"endpoint": endpoint, **options}))
        prepare = lambda: asyncio.run(backend.prepare(this_host, None, dry_run=True))  # noqa: E731
        announcement = inside(self.machine.namespace, prepare)
        assert announcement.mtu == 9001
        assert isinstance(announcement.private, Found)
        return announcement.private


@pytest.fixture(scope="module")
def lab_vpc() -> Iterator[Vpc]:
    with Lab() as lab:
        yield Vpc(lab)


@pytest.fixture
def vpc(lab_vpc: Vpc, monkeypatch: pytest.MonkeyPatch) -> Vpc:
    for name, value in lab_vpc.environment.items():
        monkeypatch.setenv(name, value)
    return lab_vpc


def test_the_instance_its_region_its_interface_and_the_main_table_are_found(vpc: Vpc) -> None:
    instance = vpc.cloud.instances[vpc.machine.name]
    assert vpc.find() == Found("us-east-1", instance, vpc.interface, (vpc.cloud.table,))


def test_an_address_of_either_family_tells_the_interface(vpc: Vpc) -> None:
    assert vpc.find(ipv4=None).interface == vpc.interface
    assert vpc.find(ipv6=None).interface == vpc.interface


def test_the_subnets_own_table_goes_before_the_main_one(vpc: Vpc) -> None:
    table = vpc.cloud.create_table()
    association = vpc.cloud.ec2("associate_route_table", RouteTableId=table, SubnetId=vpc.cloud.subnet)
    try:
        assert vpc.find().tables == (table,)
    finally:
        vpc.cloud.ec2("disassociate_route_table", AssociationId=association["AssociationId"])


def test_tables_that_are_named_are_taken(vpc: Vpc) -> None:
    one, two = vpc.cloud.create_table(), vpc.cloud.create_table()
    assert vpc.find({"route_table_id": two}).tables == (two,)
    assert vpc.find({"route_table_id": [two, one]}).tables == (two, one)


def test_a_table_of_another_vpc_is_named(vpc: Vpc) -> None:
    other = vpc.cloud.ec2("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
    table = vpc.cloud.create_table(other)
    with pytest.raises(FlannelError, match=rf"Backend.RouteTableID is {table}, which belongs to {other}; .* is in"):
        vpc.find({"route_table_id": [vpc.cloud.table, table]})


def test_a_table_that_does_not_exist_is_named(vpc: Vpc) -> None:
    with pytest.raises(FlannelError, match=r"us-east-1 has no such route table .*rtb-0.*; see Backend\.RouteTableID"):
        vpc.find({"route_table_id": "rtb-0"})


def test_another_region_does_not_have_this_instance(vpc: Vpc) -> None:
    with pytest.raises(FlannelError, match=r"eu-west-1 has no such instance .*; see Backend\.Region"):
        vpc.find({"region": "eu-west-1"})


def test_an_address_of_none_of_the_instances_interfaces_is_named_with_those_it_has(vpc: Vpc) -> None:
    machine = vpc.machine
    assert machine.ipv4
    with pytest.raises(FlannelError, match=r"unable to find ENI that matches the 192\.0\.2\.77 IP address") as raised:
        vpc.find(ipv4="192.0.2.77", ipv6=None)
    assert f"{vpc.interface} {machine.ipv4.ip}" in str(raised.value)
    assert "--iface" in str(raised.value)


def test_a_host_without_credentials_is_told_to_get_a_role(vpc: Vpc) -> None:
    vpc.cloud.process.call("metadata", role=False)
    try:
        with pytest.raises(FlannelError, match=r"no AWS credentials: give the instance a role"):
            vpc.find()
    finally:
        vpc.cloud.process.call("metadata", role=True)


def test_an_endpoint_that_is_no_api_is_named(vpc: Vpc) -> None:
    with pytest.raises(FlannelError, match=r"what answers is not the EC2 API .*; see Backend\.Endpoint"):
        vpc.find({"endpoint": "http://169.254.169.254"})


def test_what_was_found_once_is_not_asked_for_again(vpc: Vpc) -> None:
    endpoint = str(vpc.cloud.options["Endpoint"])
    backend = AwsVpcBackend(AwsVpcOptions(endpoint=endpoint))
    machine = vpc.machine
    assert machine.ipv4
    here = Host("eth0", 2, 9001, "02:00:00:00:00:01", machine.ipv4.ip, None, machine.ipv4.ip, None)

    async def twice() -> bool:
        return await backend.prepare(here, None, dry_run=False) == await backend.prepare(here, None, dry_run=False)

    vpc.cloud.forget_requests()
    assert inside(vpc.machine.namespace, lambda: asyncio.run(twice()))
    asked = [each.action for each in vpc.cloud.requests()]
    assert asked.count("DescribeInstances") == 1


def test_a_profile_is_asked_as_in_place_of_the_instances_role(
    vpc: Vpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[operator]\naws_access_key_id = AKIAOPERATOR\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    vpc.find({"profile": "operator"})
    assert vpc.cloud.process.call("log")[-1]["key"] == "AKIAOPERATOR"
