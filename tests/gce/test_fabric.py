"""Agents in a Google Cloud network whose router forwards what its routes say: a ping is the proof.

The compute API is a fake (flannel_core/lab/gce) that holds each request, and each of its own answers, against the
discovery document which google-api-python-client ships; each test ends by asking it what it found.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flannel_core.lab import Lab
from flannel_core.lab.cloud_fabric import CloudFabric
from flannel_core.lab.gce.lab_cloud import GceLabCloud
from flannel_core.lab.programs import FLANNELCTL

Fabric = CloudFabric[GceLabCloud]


@pytest.fixture(scope="module")
def running() -> Iterator[Fabric]:
    """Three hosts, for tests each of which leaves them in place."""
    with Lab() as lab:
        yield Fabric(lab, GceLabCloud.of(lab), lab.hosts(3, backend="gce", options={"CheckInterval": 1}))


@pytest.fixture
def fabric(running: Fabric) -> Iterator[Fabric]:
    with running.left_in_place():
        yield running
    assert running.cloud.faults() == []


# --- the proof -------------------------------------------------------------------------------------------------------


def test_no_pod_is_reached_without_its_hosts_route_which_comes_back(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.refuse("routes.insert", "forbidden", 403)
    fabric.cloud.delete_route(b.subnet)
    assert not a.pings(b)
    assert not b.pings(a)
    fabric.cloud.heal()
    fabric.comes_into_place()


def test_no_pod_is_reached_on_an_instance_that_may_not_forward(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.forward(b.machine.name, False)
    assert not a.pings(b)
    assert not b.pings(a)
    fabric.cloud.forward(b.machine.name, True)
    fabric.comes_into_place()


def test_agents_that_restart_one_by_one_write_nothing_and_lose_no_packet(fabric: Fabric) -> None:
    a, b, c = fabric.hosts
    with a.pinging(b) as one, b.pinging(c) as other:
        for host in (a, b, c):
            host.restart()
            fabric.lab.wait_until_ready([host])
        fabric.is_looked_at(a, b, c)
    assert fabric.cloud.writes() == []
    assert [host.status().writes for host in (a, b, c)] == [0, 0, 0]
    assert one.lost == other.lost == 0


def test_pods_get_the_networks_mtu(fabric: Fabric) -> None:
    assert [host.env.mtu for host in fabric.hosts] == [1460] * 3


# --- whose a route is ------------------------------------------------------------------------------------------------


@pytest.mark.drawn(1, across="clouds")
def test_routes_that_are_not_ours_are_left_inside_network_and_outside(fabric: Fabric) -> None:
    a, stranger = fabric.hosts[0], fabric.cloud.add_stranger()
    foreign = {
        "10.5.200.0/24": stranger,  # a dead host's too
        "10.5.0.0/16": fabric.next_hop(a),  # Network itself, not inside it
        "10.99.0.0/24": fabric.next_hop(a),
    }
    for destination, hop in foreign.items():
        fabric.cloud.put_route(destination, hop)
    fabric.cloud.put_route("10.5.201.0/24", fabric.next_hop(a), name="by-hand")
    foreign["10.5.201.0/24"] = fabric.next_hop(a)
    fabric.is_looked_at(*fabric.hosts)
    assert fabric.cloud.routes() == fabric.own_routes | foreign
    assert fabric.cloud.writes() == []
    for destination in foreign:
        fabric.cloud.delete_route(destination)
    fabric.cloud.delete_route("", "by-hand")


@pytest.mark.drawn(1, across="clouds")
def test_a_route_to_us_for_a_subnet_that_we_do_not_have_is_removed(fabric: Fabric) -> None:
    fabric.cloud.put_route("10.5.202.0/24", fabric.next_hop(fabric.hosts[0]))
    fabric.comes_into_place()


def test_a_route_for_our_subnet_that_leads_to_another_is_replaced(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.put_route(a.subnet, fabric.cloud.add_stranger())
    fabric.comes_into_place()
    assert fabric.cloud.writes() == ["routes.delete", "routes.insert"]


# --- an API that refuses ---------------------------------------------------------------------------------------------


def put_in_need_of(fabric: Fabric, method: str) -> None:
    """Have the first host need a method."""
    a = fabric.hosts[0]
    match method:
        case "routes.insert" | "globalOperations.get" | "routes.get":
            fabric.cloud.delete_route(a.subnet)
        case "routes.delete":
            fabric.cloud.put_route("10.5.203.0/24", fabric.next_hop(a))


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    "method",
    ["instances.get", "routes.list", "routes.get", "routes.insert", "routes.delete", "globalOperations.get"],
)
def test_a_method_that_the_service_account_may_not_call_is_named(fabric: Fabric, method: str) -> None:
    a, b, c = fabric.hosts
    fabric.cloud.refuse(method, "forbidden", 403)
    put_in_need_of(fabric, method)
    problem = fabric.complains(a, f"compute.{method}: 403 forbidden")
    assert "give the instance's service account a role with compute.globalOperations.get" in problem
    assert b.pings(c)
    fabric.cloud.heal()
    fabric.comes_into_place()


@pytest.mark.drawn(1)
@pytest.mark.parametrize(
    ("reason", "status", "cure"),
    [("authError", 401, "clock"), ("accessNotConfigured", 403, "gcloud services enable compute.googleapis.com")],
)
def test_why_nothing_is_answered_is_named_and_traffic_flows(
    fabric: Fabric, reason: str, status: int, cure: str
) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.refuse("*", reason, status)
        assert cure in fabric.complains(a, f"{status} {reason}")
    assert pinging.lost == 0


@pytest.mark.drawn(1, across="clouds")
def test_throttling_is_waited_out_by_the_sdk_and_nobody_hears_of_it(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.refuse("routes.insert", "rateLimitExceeded", 403, times=2)
    fabric.cloud.delete_route(a.subnet)
    fabric.comes_into_place()
    assert fabric.cloud.writes([a.machine.name]) == ["routes.insert"] * 3
    assert not [line for line in a.log().splitlines() if line.startswith("E") and "rateLimitExceeded" in line]


@pytest.mark.drawn(1, across="clouds")
def test_an_api_that_is_away_is_named_and_traffic_flows_meanwhile(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.process.call("down")
        try:
            fabric.complains(a, "Connection refused")
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


def test_an_operation_that_never_ends_holds_up_neither_a_repair_nor_the_end(fabric: Fabric) -> None:
    a, b, c = fabric.hosts
    fabric.cloud.operations(None, times=1)
    fabric.cloud.delete_route(a.subnet)
    fabric.lab.eventually(
        lambda: "globalOperations.get" in [each.method for each in fabric.cloud.requests()], fabric.cloud.heal_seconds
    )
    fabric.repairs_its_kernel(a)
    assert b.pings(c)
    assert a.stop() == 0
    fabric.cloud.heal()
    a.start()
    fabric.lab.wait_until_ready([a])


def test_an_operation_that_fails_is_named_and_tried_again(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.operations(0.1, "QUOTA_EXCEEDED", 403)
    fabric.cloud.delete_route(a.subnet)
    assert 'raise the quota "Routes"' in fabric.complains(a, "compute.routes.insert: 403 QUOTA_EXCEEDED")
    fabric.cloud.heal()
    fabric.comes_into_place()


# --- the start and the end -------------------------------------------------------------------------------------------


@pytest.mark.drawn(1, across="clouds")
def test_an_agent_that_starts_while_the_api_is_away_waits_and_the_old_route_forwards(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with b.pinging(a) as pinging:
        a.stop()
        fabric.cloud.process.call("down")
        try:
            a.start()
            fabric.waits(a, "Connection refused")
        finally:
            fabric.cloud.process.call("up")
        fabric.lab.wait_until_ready([a])
        fabric.is_looked_at(a)
    assert pinging.lost == 0
    assert fabric.cloud.writes([a.machine.name]) == []


@pytest.mark.drawn(1, across="clouds")
def test_cleanup_removes_the_routes_of_this_host_alone(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    a.stop()
    others = {destination: to for destination, to in fabric.own_routes.items() if destination != str(a.subnet)}
    command = f"{FLANNELCTL} cleanup --subnet-file {a.subnet_file}"
    assert f"to {a.subnet} via {a.machine.name} in flannel-lab" in a.run(command)
    assert fabric.cloud.routes() == others
    a.start()
    fabric.lab.wait_until_ready([a])
