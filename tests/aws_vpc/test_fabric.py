"""Agents in a VPC whose router forwards what the table says: a ping is the proof. EC2 is moto in server mode."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from flannel_core.lab import Lab, LabError
from flannel_core.lab.aws.lab_cloud import AwsLabCloud
from flannel_core.lab.cloud_fabric import CloudFabric
from flannel_core.lab.network import execute
from flannel_core.lab.programs import FLANNELCTL
from flannel_core.lease import Endpoint, Lease

Fabric = CloudFabric[AwsLabCloud]


@pytest.fixture(scope="module")
def running() -> Iterator[Fabric]:
    """Three hosts, for tests each of which leaves them in place."""
    with Lab() as lab:
        yield Fabric(lab, AwsLabCloud.of(lab), lab.hosts(3, backend="aws-vpc", options={"CheckInterval": 1}))


@pytest.fixture
def fabric(running: Fabric) -> Iterator[Fabric]:
    with running.left_in_place():
        yield running


DENIED = "UnauthorizedOperation"


# --- the proof -------------------------------------------------------------------------------------------------------


def test_no_pod_is_reached_without_its_hosts_route_which_comes_back(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.refuse("CreateRoute", DENIED, 403)
    fabric.cloud.delete_route(b.subnet)
    assert not a.pings(b)
    assert not b.pings(a)
    fabric.cloud.heal()
    fabric.comes_into_place()


def test_no_pod_is_reached_while_its_hosts_interface_checks_addresses(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.refuse("ModifyNetworkInterfaceAttribute", DENIED, 403)
    fabric.cloud.check_sources(b.machine.name)
    assert not a.pings(b)
    assert not b.pings(a)
    fabric.cloud.heal()
    fabric.comes_into_place()
    assert not fabric.cloud.checks_sources(b.machine.name)


def test_a_restart_with_nothing_changed_writes_nothing_and_loses_no_packet(fabric: Fabric) -> None:
    a, b, c = fabric.hosts
    with a.pinging(b) as one, b.pinging(c) as other:
        for host in (a, b, c):
            host.restart()
            fabric.lab.wait_until_ready([host])
        fabric.is_looked_at(a, b, c)
    assert fabric.cloud.writes() == []
    assert [host.status().writes for host in (a, b, c)] == [0, 0, 0]
    assert one.lost == other.lost == 0


# --- whose a route is ------------------------------------------------------------------------------------------------


@pytest.mark.drawn(1, across="clouds")
def test_routes_that_are_not_ours_are_left_inside_network_and_outside(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    _, stranger = fabric.cloud.add_stranger()
    foreign = {
        "10.5.200.0/24": stranger,
        "10.5.0.0/16": fabric.next_hop(a),  # Network itself, not inside it
        "10.99.0.0/24": fabric.next_hop(a),
        "0.0.0.0/0": fabric.next_hop(a),
    }
    for destination, interface in foreign.items():
        fabric.cloud.create_route(destination, interface)
    fabric.is_looked_at(*fabric.hosts)
    assert fabric.cloud.routes() == fabric.own_routes | foreign
    for destination in foreign:
        fabric.cloud.delete_route(destination)


@pytest.mark.drawn(1, across="clouds")
def test_a_route_to_us_for_a_subnet_that_we_do_not_have_is_removed(fabric: Fabric) -> None:
    fabric.cloud.create_route("10.5.201.0/24", fabric.next_hop(fabric.hosts[0]))
    fabric.comes_into_place()


def test_a_route_of_ours_that_leads_to_another_is_replaced_without_a_gap(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    _, stranger = fabric.cloud.add_stranger()
    fabric.cloud.replace_route(a.subnet, stranger)
    fabric.comes_into_place()
    assert fabric.cloud.writes() == ["ReplaceRoute"]


def test_a_blackhole_is_removed_once_no_lease_holds_its_subnet(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    address = ip_address("198.51.100.250")
    dead = Lease("10.5.202.0-24", "", Endpoint(ip_network("10.5.202.0/24"), address))
    a.store.reserve(dead)
    instance, interface = fabric.cloud.add_stranger()
    for destination in ("10.5.202.0/24", "10.5.203.0/24", "10.99.0.0/24"):
        fabric.cloud.create_route(destination, interface)
    fabric.cloud.terminate(instance)
    still = {"10.5.202.0/24": "blackhole", "10.99.0.0/24": "blackhole"}
    fabric.lab.eventually(lambda: fabric.cloud.routes() == fabric.own_routes | still, fabric.cloud.heal_seconds)
    fabric.is_looked_at(*fabric.hosts, times=3)
    assert fabric.cloud.routes() == fabric.own_routes | still
    a.store.release(ip_network("10.5.202.0/24"))
    del still["10.5.202.0/24"]
    fabric.lab.eventually(lambda: fabric.cloud.routes() == fabric.own_routes | still, fabric.cloud.heal_seconds)
    fabric.cloud.delete_route("10.99.0.0/24")


# --- an API that refuses ---------------------------------------------------------------------------------------------


def put_in_need_of(fabric: Fabric, action: str) -> None:
    """Have the first host need an action."""
    a = fabric.hosts[0]
    match action:
        case "CreateRoute":
            fabric.cloud.delete_route(a.subnet)
        case "ReplaceRoute":
            fabric.cloud.replace_route(a.subnet, fabric.cloud.add_stranger()[1])
        case "DeleteRoute":
            fabric.cloud.create_route("10.5.204.0/24", fabric.next_hop(a))
        case "ModifyNetworkInterfaceAttribute":
            fabric.cloud.check_sources(a.machine.name)


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    "action",
    [
        "DescribeInstances",
        "DescribeRouteTables",
        "CreateRoute",
        "ReplaceRoute",
        "DeleteRoute",
        "ModifyNetworkInterfaceAttribute",
    ],
)
def test_an_action_that_the_role_does_not_allow_is_named_with_the_policy(fabric: Fabric, action: str) -> None:
    a, b, c = fabric.hosts
    fabric.cloud.refuse(action, DENIED, 403)
    put_in_need_of(fabric, action)
    problem = fabric.complains(a, f"ec2:{action} is not allowed")
    assert '"ec2:ModifyNetworkInterfaceAttribute"], "Resource": "*"' in problem
    assert "Encoded" not in problem
    assert b.pings(c)
    fabric.cloud.heal()
    fabric.comes_into_place()


@pytest.mark.drawn(1)
@pytest.mark.parametrize("code", ["RequestExpired", "AuthFailure"])
def test_credentials_that_are_not_accepted_are_named_and_traffic_flows(fabric: Fabric, code: str) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.refuse("*", code)
        assert "clock" in fabric.complains(a, f"the credentials are not accepted ({code}")
    assert pinging.lost == 0


@pytest.mark.drawn(1, across="clouds")
def test_throttling_is_waited_out_by_the_sdk_and_nobody_hears_of_it(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.refuse("CreateRoute", "RequestLimitExceeded", 503, times=2)
    fabric.cloud.delete_route(a.subnet)
    fabric.comes_into_place()
    assert fabric.cloud.writes([a.machine.name]) == ["CreateRoute"] * 3
    assert "RequestLimitExceeded" not in a.log()


def test_throttling_that_does_not_end_is_named_and_traffic_flows(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.refuse("DescribeRouteTables", "RequestLimitExceeded", 503)
        fabric.complains(a, "RequestLimitExceeded")
    assert pinging.lost == 0


def test_a_full_table_is_named_with_its_quota(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.process.call("quota", routes=2)
    fabric.cloud.delete_route(a.subnet)
    assert "Routes per route table" in fabric.complains(a, "the route table is full")
    fabric.cloud.process.call("quota", routes=50)
    fabric.comes_into_place()


@pytest.mark.drawn(1, across="clouds")
def test_an_api_that_is_away_is_named_and_traffic_flows_meanwhile(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.process.call("down")
        try:
            fabric.complains(a, "Could not connect to the endpoint URL")
        finally:
            fabric.cloud.process.call("up")
        fabric.comes_into_place()
    assert pinging.lost == 0


@pytest.mark.drawn(1, across="clouds")
def test_an_api_that_never_answers_holds_up_neither_a_repair_nor_the_end(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with fabric.unanswered(a):
        fabric.repairs_its_kernel(a)
        assert a.pings(b)
        assert a.stop() == 0
    a.start()
    fabric.lab.wait_until_ready([a])
    assert fabric.cloud.writes() == []


@pytest.mark.drawn(1, across="clouds")
def test_an_agent_that_starts_while_the_api_is_away_waits_and_the_old_route_forwards(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.process.call("down")
        try:
            a.restart()
            fabric.waits(a, "Could not connect to the endpoint URL")
        finally:
            fabric.cloud.process.call("up")
        fabric.lab.wait_until_ready([a], within=fabric.cloud.heal_seconds)
    assert pinging.lost == 0
    assert fabric.cloud.writes() == []


# --- the metadata service --------------------------------------------------------------------------------------------


def test_a_metadata_service_that_is_switched_off_is_named(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.process.call("metadata", enabled=False)
    try:
        a.restart()
        fabric.waits(a, "--http-endpoint enabled")
    finally:
        fabric.cloud.process.call("metadata", enabled=True)
    fabric.lab.wait_until_ready([a], within=fabric.cloud.heal_seconds)


ASK = f"{sys.executable} -c 'from flannel_backend_aws_vpc import metadata; print(metadata.identity().instance)'"


def test_a_pod_is_one_hop_too_far_from_the_metadata_service_unless_it_answers_further(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    assert a.run(ASK).strip() == fabric.cloud.instances[a.machine.name]
    with pytest.raises(LabError, match="needs a hop limit of 2"):
        a.run_in_pod(ASK)
    fabric.cloud.process.call("metadata", hop_limit=2)
    assert a.run_in_pod(ASK).strip() == fabric.cloud.instances[a.machine.name]
    fabric.cloud.process.call("metadata", hop_limit=1)


def test_a_machine_without_a_metadata_service_is_told_so(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    nowhere = {**a.environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://198.51.100.1:81"}
    with pytest.raises(LabError, match=r"no instance metadata service \(Connection refused\)"):
        execute(a.namespace, ASK, nowhere)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.drawn(1, across="clouds")
def test_cleanup_removes_the_routes_of_this_host_alone(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    a.stop()
    others = {destination: to for destination, to in fabric.own_routes.items() if destination != str(a.subnet)}
    command = f"{FLANNELCTL} cleanup --subnet-file {a.subnet_file}"
    assert f"route {a.subnet} via {fabric.next_hop(a)} in {fabric.cloud.table}" in a.run(command)
    assert fabric.cloud.routes() == others
    a.start()
    fabric.lab.wait_until_ready([a])
