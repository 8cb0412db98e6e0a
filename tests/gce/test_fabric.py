"""Agents in a Google Cloud network whose router forwards what its routes say: a ping is the proof.

The compute API is a fake (flannel_core/lab/gce) that holds each request, and each of its own answers, against the
discovery document which google-api-python-client ships; each test ends by asking it what it found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from flannel_core.lab import Host, Lab
from flannel_core.lab.gce.lab_cloud import PORT, GceLabCloud
from flannel_core.lab.network import execute
from flannel_core.lab.programs import FLANNELCTL

HEALED = 30.0
"""Seconds within which a drift check has come by: every second here, after a failure with backoff, and the SDK's own
tries take up to 14 s before they are one."""


class Fabric:
    """Hosts in a network of their own, whose agents run."""

    def __init__(self, lab: Lab, hosts: Sequence[Host]) -> None:
        cloud = lab.cloud("gce")
        assert isinstance(cloud, GceLabCloud)
        self.lab = lab
        self.cloud = cloud
        self.hosts = list(hosts)

    def instance(self, host: Host) -> str:
        return self.cloud.instances[host.machine.name]

    @property
    def own_routes(self) -> dict[str, str]:
        """What the network has to hold."""
        return {str(subnet): self.instance(host) for host in self.hosts for subnet in host.env.subnets}

    def comes_into_place(self) -> None:
        """Each host's route is there and no other, all pods reach each other, nobody has anything to complain of."""
        self.lab.eventually(lambda: self.cloud.routes() == self.own_routes, within=HEALED)
        self.lab.eventually(lambda: all(a.pings(b) for a in self.hosts for b in self.hosts if a is not b))
        self.lab.eventually(lambda: not [problem for host in self.hosts for problem in host.status().problems], HEALED)

    def is_looked_at(self, host: Host, times: int = 2) -> None:
        """Wait for so many drift checks of ``host`` that begin from now on."""

        def looks() -> int:
            asked = self.cloud.requests([host.machine.name])
            return sum(each.method == "routes.list" and "pageToken" not in each.parameters for each in asked)

        before = looks()
        self.lab.eventually(lambda: looks() > before + times, HEALED)

    def has_unanswered(self, host: Host) -> bool:
        """Whether a request of ``host`` lies at the API and is not read."""
        sockets = execute(f"flannel-{self.lab.id}-net", f"ss -Htn state established sport = :{PORT}", os.environ)
        rows = [line.split() for line in sockets.splitlines()]  # Recv-Q Send-Q local peer
        return any(int(row[0]) > 0 and f"{host.machine.ipv4}".partition("/")[0] in row[3] for row in rows)

    def repairs_its_kernel(self, host: Host) -> None:
        """Change what the agent keeps in order, and wait until it is."""
        host.run("sysctl --quiet net.ipv4.ip_forward=0")
        self.lab.eventually(lambda: host.run("sysctl --values net.ipv4.ip_forward").strip() == "1")

    def complains(self, host: Host, text: str) -> str:
        """Wait until ``host``'s status says ``text``; returns the problem."""
        return str(
            self.lab.eventually(lambda: next((p for p in host.status().problems if text in p), None), within=HEALED)
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Fabric]:
    """Three hosts, for tests each of which leaves them in place."""
    with Lab() as the_lab:
        yield Fabric(the_lab, the_lab.hosts(3, backend="gce", options={"CheckInterval": 1}))


@pytest.fixture
def fabric(running: Fabric) -> Iterator[Fabric]:
    running.comes_into_place()
    running.cloud.forget_requests()
    yield running
    running.cloud.heal()
    running.comes_into_place()
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
            fabric.is_looked_at(host)
    assert fabric.cloud.writes() == []
    assert [host.status().writes for host in (a, b, c)] == [0, 0, 0]
    assert one.lost == other.lost == 0


def test_pods_get_the_networks_mtu(fabric: Fabric) -> None:
    assert [host.env.mtu for host in fabric.hosts] == [1460] * 3


# --- whose a route is ------------------------------------------------------------------------------------------------


def test_routes_that_are_not_ours_are_left_inside_network_and_outside(fabric: Fabric) -> None:
    a, stranger = fabric.hosts[0], fabric.cloud.add_stranger()
    foreign = {
        "10.5.200.0/24": stranger,  # a dead host's too
        "10.5.0.0/16": fabric.instance(a),  # Network itself, not inside it
        "10.99.0.0/24": fabric.instance(a),
    }
    for destination, hop in foreign.items():
        fabric.cloud.put_route(destination, hop)
    fabric.cloud.put_route("10.5.201.0/24", fabric.instance(a), name="by-hand")
    foreign["10.5.201.0/24"] = fabric.instance(a)
    for host in fabric.hosts:
        fabric.is_looked_at(host)
    assert fabric.cloud.routes() == fabric.own_routes | foreign
    assert fabric.cloud.writes() == []
    for destination in foreign:
        fabric.cloud.delete_route(destination)
    fabric.cloud.delete_route("", "by-hand")


def test_a_route_to_us_for_a_subnet_that_we_do_not_have_is_removed(fabric: Fabric) -> None:
    fabric.cloud.put_route("10.5.202.0/24", fabric.instance(fabric.hosts[0]))
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
            fabric.cloud.put_route("10.5.203.0/24", fabric.instance(a))


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


def test_throttling_is_waited_out_by_the_sdk_and_nobody_hears_of_it(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    fabric.cloud.refuse("routes.insert", "rateLimitExceeded", 403, times=2)
    fabric.cloud.delete_route(a.subnet)
    fabric.comes_into_place()
    assert fabric.cloud.writes([a.machine.name]) == ["routes.insert"] * 3
    assert not [line for line in a.log().splitlines() if line.startswith("E") and "rateLimitExceeded" in line]


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


def test_an_api_that_never_answers_holds_up_neither_a_repair_nor_the_end(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.process.freeze()
    try:
        fabric.lab.eventually(lambda: fabric.has_unanswered(a))
        fabric.repairs_its_kernel(a)
        assert a.pings(b)
        assert a.stop() == 0
    finally:
        fabric.cloud.process.thaw()
    a.start()
    fabric.lab.wait_until_ready([a])
    assert fabric.cloud.writes() == []


def test_an_operation_that_never_ends_holds_up_neither_a_repair_nor_the_end(fabric: Fabric) -> None:
    a, b, c = fabric.hosts
    fabric.cloud.operations(None, times=1)
    fabric.cloud.delete_route(a.subnet)
    fabric.lab.eventually(lambda: "globalOperations.get" in [each.method for each in fabric.cloud.requests()], HEALED)
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


def test_an_api_that_is_away_at_the_start_is_waited_for_while_the_old_route_forwards(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with b.pinging(a) as pinging:
        a.stop()
        fabric.cloud.process.call("down")
        try:
            a.start()
            fabric.lab.eventually(lambda: "Connection refused" in (a.status().waiting_for or ""), HEALED)
        finally:
            fabric.cloud.process.call("up")
        fabric.lab.wait_until_ready([a])
        fabric.is_looked_at(a)
    assert pinging.lost == 0
    assert fabric.cloud.writes([a.machine.name]) == []


def test_cleanup_removes_the_routes_of_this_host_alone(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    a.stop()
    others = {destination: to for destination, to in fabric.own_routes.items() if destination != str(a.subnet)}
    command = f"{FLANNELCTL} cleanup --subnet-file {a.subnet_file}"
    assert f"to {a.subnet} via {a.machine.name} in flannel-lab" in a.run(command)
    assert fabric.cloud.routes() == others
    a.start()
    fabric.lab.wait_until_ready([a])
