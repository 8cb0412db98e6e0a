"""Agents in a VPC whose router forwards what the table says: a ping is the proof. EC2 is moto in server mode."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

import pytest

from flannel_core.lab import Host, Lab, LabError
from flannel_core.lab.aws.lab_cloud import PORT, AwsLabCloud
from flannel_core.lab.network import execute
from flannel_core.lab.programs import FLANNELCTL
from flannel_core.lease import Endpoint, Lease

HEALED = 15.0
"""Seconds within which a drift check has come by: every second here, and after a failure with backoff."""


class Fabric:
    """Hosts in a VPC of their own, whose agents run."""

    def __init__(self, lab: Lab, hosts: Sequence[Host]) -> None:
        cloud = lab.cloud("aws-vpc")
        assert isinstance(cloud, AwsLabCloud)
        self.lab = lab
        self.cloud = cloud
        self.hosts = list(hosts)

    def interface(self, host: Host) -> str:
        return self.cloud.interfaces[host.machine.name]

    @property
    def own_routes(self) -> dict[str, str]:
        """What the table has to hold."""
        return {str(subnet): self.interface(host) for host in self.hosts for subnet in host.env.subnets}

    def comes_into_place(self) -> None:
        """Each host's route is there and no other, all pods reach each other, nobody has anything to complain of."""
        self.lab.eventually(lambda: self.cloud.routes() == self.own_routes, within=HEALED)
        self.lab.eventually(lambda: all(a.pings(b) for a in self.hosts for b in self.hosts if a is not b))
        self.lab.eventually(lambda: not [problem for host in self.hosts for problem in host.status().problems], HEALED)

    def is_looked_at(self, host: Host, times: int = 2) -> None:
        """Wait for so many drift checks of ``host`` that begin from now on."""
        name = host.machine.name

        def looks() -> int:
            return sum(asked.action == "DescribeRouteTables" for asked in self.cloud.requests([name]))

        before = looks()
        self.lab.eventually(lambda: looks() > before + times, HEALED)

    def has_unanswered(self, host: Host) -> bool:
        """Whether a request of ``host`` lies at the API and is not read."""
        sockets = execute(f"flannel-{self.lab.id}-net", f"ss -Htn state established sport = :{PORT}", os.environ)
        rows = [line.split() for line in sockets.splitlines()]  # Recv-Q Send-Q local peer
        return any(int(row[0]) > 0 and f"{host.machine.ipv4}".partition("/")[0] in row[3] for row in rows)

    def waits(self, host: Host, text: str) -> None:
        """Wait until ``host``'s agent says that it waits for ``text``."""
        self.lab.eventually(lambda: text in (host.status().waiting_for or ""), within=HEALED)

    def complains(self, host: Host, text: str) -> str:
        """Wait until ``host``'s status says ``text``; returns the problem."""
        return str(
            self.lab.eventually(lambda: next((p for p in host.status().problems if text in p), None), within=HEALED)
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Fabric]:
    """Three hosts, for tests each of which leaves them in place."""
    with Lab() as the_lab:
        yield Fabric(the_lab, the_lab.hosts(3, backend="aws-vpc", options={"CheckInterval": 1}))


@pytest.fixture
def fabric(running: Fabric) -> Iterator[Fabric]:
    running.comes_into_place()
    running.cloud.forget_requests()
    yield running
    running.cloud.heal()
    running.comes_into_place()


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
            fabric.is_looked_at(host)
    assert fabric.cloud.writes() == []
    assert [host.status().writes for host in (a, b, c)] == [0, 0, 0]
    assert one.lost == other.lost == 0


# --- whose a route is ------------------------------------------------------------------------------------------------


def test_routes_that_are_not_ours_are_left_inside_network_and_outside(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    _, stranger = fabric.cloud.add_stranger()
    foreign = {
        "10.5.200.0/24": stranger,
        "10.5.0.0/16": fabric.interface(a),  # Network itself, not inside it
        "10.99.0.0/24": fabric.interface(a),
        "0.0.0.0/0": fabric.interface(a),
    }
    for destination, interface in foreign.items():
        fabric.cloud.create_route(destination, interface)
    for host in fabric.hosts:
        fabric.is_looked_at(host)
    assert fabric.cloud.routes() == fabric.own_routes | foreign
    for destination in foreign:
        fabric.cloud.delete_route(destination)


def test_a_route_to_us_for_a_subnet_that_we_do_not_have_is_removed(fabric: Fabric) -> None:
    fabric.cloud.create_route("10.5.201.0/24", fabric.interface(fabric.hosts[0]))
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
    fabric.lab.eventually(lambda: fabric.cloud.routes() == fabric.own_routes | still, within=HEALED)
    for host in fabric.hosts:
        fabric.is_looked_at(host, times=3)
    assert fabric.cloud.routes() == fabric.own_routes | still
    a.store.release(ip_network("10.5.202.0/24"))
    del still["10.5.202.0/24"]
    fabric.lab.eventually(lambda: fabric.cloud.routes() == fabric.own_routes | still, within=HEALED)
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
            fabric.cloud.create_route("10.5.204.0/24", fabric.interface(a))
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


def test_an_api_that_never_answers_holds_up_neither_a_repair_nor_the_end(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    fabric.cloud.process.freeze()
    try:
        fabric.lab.eventually(lambda: fabric.has_unanswered(a))
        a.run("sysctl --quiet net.ipv4.ip_forward=0")
        fabric.lab.eventually(lambda: a.run("sysctl --values net.ipv4.ip_forward").strip() == "1")
        assert a.pings(b)
        assert a.stop() == 0
    finally:
        fabric.cloud.process.thaw()
    a.start()
    fabric.lab.wait_until_ready([a])
    assert fabric.cloud.writes() == []


def test_an_agent_that_starts_while_the_api_is_away_waits_for_it(fabric: Fabric) -> None:
    a, b, _ = fabric.hosts
    with a.pinging(b) as pinging:
        fabric.cloud.process.call("down")
        try:
            a.restart()
            fabric.waits(a, "Could not connect to the endpoint URL")
        finally:
            fabric.cloud.process.call("up")
        fabric.lab.wait_until_ready([a], within=HEALED)
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
    fabric.lab.wait_until_ready([a], within=HEALED)


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


def test_cleanup_removes_the_routes_of_this_host_alone(fabric: Fabric) -> None:
    a = fabric.hosts[0]
    a.stop()
    others = {destination: to for destination, to in fabric.own_routes.items() if destination != str(a.subnet)}
    command = f"{FLANNELCTL} cleanup --subnet-file {a.subnet_file}"
    assert f"route {a.subnet} via {fabric.interface(a)} in {fabric.cloud.table}" in a.run(command)
    assert fabric.cloud.routes() == others
    a.start()
    fabric.lab.wait_until_ready([a])
