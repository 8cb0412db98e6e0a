"""What the aws-vpc backend wants, from values to values, and how it puts EC2's answers into words."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from flannel_backend_aws_vpc.aws_vpc import AwsVpcBackend, Found
from flannel_backend_aws_vpc.ec2 import POLICY, Ec2, Ec2Error, destination, next_hop
from flannel_backend_aws_vpc.options import AwsVpcOptions
from flannel_backend_aws_vpc.vpc_objects import Place, SourceCheck, VpcRoute
from flannel_core.backend import Announcement, Node
from flannel_core.backend_options import decode_options
from flannel_core.config_errors import ConfigInvalid
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config

CONFIG = b'{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00:5::/48", "Backend": %s}'
FOUND = Found("us-east-1", "i-1", "eni-1", ("rtb-1", "rtb-2"))


def options(backend: dict[str, object]) -> AwsVpcOptions:
    config = parse_config(CONFIG % json.dumps({"Type": "aws-vpc", **backend}).encode(), "net-conf.json")
    decoded = decode_options(config, AwsVpcBackend, "net-conf.json")
    assert isinstance(decoded, AwsVpcOptions)
    return decoded


def node(*, lease: bool = True) -> Node:
    ipv4, ipv6 = ip_address("198.51.100.11"), ip_address("2001:db8:51::b")
    host = Host("eth0", 2, 9001, "02:00:00:00:00:01", ipv4, ipv6, ipv4, ipv6)
    held = Lease(
        "10.5.1.0-24",
        "",
        Endpoint(ip_network("10.5.1.0/24"), ipv4),
        Endpoint(ip_network("fc00:5:0:1::/64"), ipv6),
    )
    config = parse_config(CONFIG % b'{"Type": "aws-vpc"}', "net-conf.json")
    return Node(config, host, Announcement(9001, private=FOUND), held if lease else None)


def test_a_host_wants_its_subnets_in_every_table_and_its_interface_unchecked() -> None:
    wanted = [item.describe() for item in AwsVpcBackend(AwsVpcOptions()).local(node())]
    assert wanted == [
        "source/destination check of eni-1 off",
        "route 10.5.1.0/24 via eni-1 in rtb-1",
        "route 10.5.1.0/24 via eni-1 in rtb-2",
        "route fc00:5:0:1::/64 via eni-1 in rtb-1",
        "route fc00:5:0:1::/64 via eni-1 in rtb-2",
    ]


def test_without_a_subnet_it_wants_nothing_and_a_peer_never_needs_anything() -> None:
    backend = AwsVpcBackend(AwsVpcOptions())
    assert list(backend.local(node(lease=False))) == []
    assert list(backend.peer(node(), msgspec.structs.replace(node().lease, key="peer"))) == []  # type: ignore[type-var, arg-type]


@pytest.mark.parametrize(
    ("given", "tables"),
    [
        ({}, ()),
        ({"RouteTableID": "rtb-1"}, ("rtb-1",)),
        ({"routetableid": ["rtb-1", "rtb-2", "rtb-1"]}, ("rtb-1", "rtb-2")),
        ({"RouteTableID": None}, ()),
        ({"RouteTableID": []}, ()),
    ],
)
def test_tables_are_a_string_or_a_list(given: dict[str, object], tables: tuple[str, ...]) -> None:
    assert options(given).tables == tables


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"RouteTableID": 7}, "Backend.RouteTableID"),
        ({"RouteTableID": [7]}, "Backend.RouteTableID"),
        ({"Endpoint": "ec2.example"}, "https://ec2.REGION.amazonaws.com"),
        ({"CheckInterval": 0}, "Backend.CheckInterval"),
    ],
)
def test_a_wrong_key_is_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        options(given)


def test_a_route_is_known_by_table_and_destination_and_recorded_by_its_place() -> None:
    ours, theirs = (VpcRoute("us-east-1", "rtb-1", "10.5.1.0/24", interface) for interface in ("eni-1", "eni-2"))
    assert ours.identity == theirs.identity
    assert not ours.satisfied_by(theirs)
    assert Place.parse(ours.record) == Place("us-east-1", "rtb-1", "eni-1")
    assert Place.parse("8285/192.0.2.1") is None


def test_the_check_of_an_interface_is_never_removed() -> None:
    assert not SourceCheck("us-east-1", "eni-1", enabled=False).removable


@pytest.mark.parametrize(
    ("route", "to", "hop"),
    [
        (
            {
                "DestinationCidrBlock": "10.5.1.0/24",
                "InstanceOwnerId": "1",
                "InstanceId": "i-1",
                "NetworkInterfaceId": "e",
            },
            "10.5.1.0/24",
            "e",
        ),
        ({"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1"}, "::/0", "eigw-1"),
        ({"DestinationCidrBlock": "198.51.100.0/24", "GatewayId": "local"}, "198.51.100.0/24", "local"),
        ({"DestinationPrefixListId": "pl-1", "TransitGatewayId": "tgw-1"}, "pl-1", "tgw-1"),
        ({"DestinationCidrBlock": "10.0.0.0/8", "CoreNetworkArn": "arn:aws:1"}, "10.0.0.0/8", "arn:aws:1"),
        ({"DestinationCidrBlock": "10.0.0.0/8"}, "10.0.0.0/8", "nothing"),
    ],
)
def test_where_a_route_leads(route: dict[str, str], to: str, hop: str) -> None:
    assert (destination(route), next_hop(route)) == (to, hop)


def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(Ec2Error, match=r"Backend\.Profile: .*nobody"):
        asyncio.run(Ec2(AwsVpcOptions(profile="nobody")).interfaces("us-east-1", "i-1"))


def test_nothing_of_the_sdk_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, flannel_backend_aws_vpc.aws_vpc; print(*{'boto3', 'botocore', 'urllib3'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_readme_shows_the_policy_that_errors_ask_for() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    documents = [text.partition("```")[0] for text in readme.read_text().split("```json\n")[1:]]
    assert json.loads(POLICY) in map(json.loads, documents)
