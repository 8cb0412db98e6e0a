"""One target against the lab's compute API, call by call; two instances in one network, no agents.

The API is a fake that holds each request, and each of its answers, against the SDK's discovery document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from flannel_backend_gce import compute
from flannel_backend_gce.compute import Compute
from flannel_backend_gce.gce_objects import GceRoute
from flannel_backend_gce.gce_target import GceTarget
from flannel_backend_gce.options import GceOptions
from flannel_core.lab import Lab
from flannel_core.lab.gce.lab_cloud import ROOT, GceLabCloud
from flannel_core.lab.network import Machine, inside
from flannel_core.objects import Object
from flannel_core.target import Failure, Put, Scope

T = TypeVar("T")
PROJECT = "flannel-lab"
SUBNET = "10.5.1.0/24"
SUBNET6 = "fc00:5:0:1::/64"
NETWORKS = ("10.5.0.0/16", "fc00:5::/48")
BODY = {"name": "flannel-10-5-1-0-24", "destRange": SUBNET, "nextHopIp": "198.51.100.12", "priority": 1000}


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def nobody_may_ask() -> bool:
    raise AssertionError("the store is asked")


class Network:
    """Two instances in it."""

    def __init__(self, lab: Lab) -> None:
        cloud = lab.cloud("gce")
        assert isinstance(cloud, GceLabCloud)
        self.cloud = cloud
        self.a, self.b = lab.machines(2, ipv6=True)
        self.environment = cloud.join(self.a) | cloud.join(self.b)
        self.path = cloud.network

    def route(self, destination: str = SUBNET, of: Machine | None = None, **changes: Any) -> GceRoute:
        fields = {"project": PROJECT, "network": self.path, "destination": destination, "hop": self.instance(of)}
        return GceRoute(**fields | changes)

    def instance(self, machine: Machine | None = None) -> str:
        return self.cloud.instances[(machine or self.a).name]

    def new_target(self, lease_is_ours: Callable[[], Awaitable[bool]] = nobody_may_ask) -> GceTarget:
        target = GceTarget(Compute(GceOptions(endpoint=str(self.cloud.options["Endpoint"]))), 2)
        target.lease_is_ours = lease_is_ours
        return target

    def on(self, machine: Machine, work: Callable[[], Awaitable[T]]) -> T:
        async def there() -> T:
            return await work()

        return inside(machine.namespace, lambda: asyncio.run(there()))

    def read(self, target: GceTarget, *ours: GceRoute, on: Machine | None = None) -> list[Object]:
        records = frozenset(route.record for route in (ours or (self.route(),)))

        async def found() -> list[Object]:
            return [actual.object for actual in await target.read(Scope(networks=NETWORKS, records={"gce": records}))]

        return self.on(on or self.a, found)

    def write(
        self, target: GceTarget, *puts: Object, removes: tuple[Object, ...] = (), on: Machine | None = None
    ) -> list[Failure]:
        async def failures() -> list[Failure]:
            return list(await target.write([Put(item) for item in puts], removes))

        return self.on(on or self.a, failures)

    @property
    def methods(self) -> list[str]:
        return [asked.method for asked in self.cloud.requests()]


@pytest.fixture(scope="module")
def lab_network() -> Iterator[Network]:
    with Lab() as lab:
        yield Network(lab)


@pytest.fixture
def network(lab_network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    for name, value in lab_network.environment.items():
        monkeypatch.setenv(name, value)
    lab_network.cloud.forget_requests()
    yield lab_network
    lab_network.cloud.heal()
    lab_network.cloud.clear_routes()
    assert lab_network.cloud.faults() == []


# --- reading ---------------------------------------------------------------------------------------------------------


def test_ours_is_what_leads_to_us_inside_a_network_by_its_name(network: Network) -> None:
    for destination in (SUBNET, "10.5.2.0/24", "10.6.0.0/24", "10.5.0.0/16"):
        network.cloud.put_route(destination, network.instance())
    network.cloud.put_route(SUBNET6, network.instance(), name="flannel-fc00-5-0-1---64")
    network.cloud.put_route("10.5.3.0/24", network.instance(network.b))
    network.cloud.put_route("10.5.4.0/24", network.instance(), name="by-hand")
    found = network.read(network.new_target())
    assert {item.destination for item in found if isinstance(item, GceRoute)} == {SUBNET, "10.5.2.0/24", SUBNET6}
    assert network.methods == ["instances.get", *["routes.list"] * 4]  # two on a page, and the network's own


def test_on_a_clone_what_its_original_has_on_record_is_not_ours(network: Network) -> None:
    network.cloud.put_route(SUBNET, network.instance(network.a))
    theirs, ours = (network.route(of=machine) for machine in (network.a, network.b))
    assert network.read(network.new_target(), theirs, ours, on=network.b) == []


def test_with_nothing_on_record_nobody_is_asked(network: Network) -> None:
    target = network.new_target()

    async def found() -> list[object]:
        return list(await target.read(Scope(networks=NETWORKS, records={"gce": frozenset({"noplace"})})))

    assert network.on(network.a, found) == []
    assert network.methods == []


@pytest.mark.drawn(1)
@pytest.mark.parametrize("change", [{"priority": 900}, {"tags": ["db"]}])
def test_a_route_that_somebody_changed_is_ours_and_not_as_it_should_be(
    network: Network, change: dict[str, Any]
) -> None:
    network.cloud.put_route(SUBNET, network.instance(), **change)
    target = network.new_target()
    (found,) = network.read(target)
    assert found.identity == network.route().identity
    assert not network.route().satisfied_by(found)
    assert network.write(target, network.route()) == []
    assert network.read(target) == [network.route()]


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    ("destination", "hop"),
    [(SUBNET, ""), (SUBNET6, ""), (SUBNET, "198.51.100.11"), (SUBNET6, "2001:db8:51::b")],
)
def test_a_route_is_made_kept_and_removed(network: Network, destination: str, hop: str) -> None:
    target, route = network.new_target(), network.route(destination, hop=hop or network.instance())
    assert network.write(target, route) == []
    assert network.cloud.routes() == {destination: route.hop}
    assert network.write(target, route) == []
    assert network.read(target, route) == [route]
    assert network.cloud.writes() == ["routes.insert"]
    assert network.write(target, removes=(route,)) == []
    assert network.cloud.routes() == {}
    assert network.write(target, removes=(route,)) == []
    assert network.cloud.writes() == ["routes.insert", "routes.delete"]


def test_anothers_route_is_left_and_named_while_the_lease_is_not_ours(network: Network) -> None:
    network.cloud.put_route(SUBNET, network.instance(network.b))
    (failure,) = network.write(network.new_target(no), network.route())
    assert failure.foreign
    assert f"flannel-10-5-1-0-24 to 10.5.1.0/24 via {network.instance(network.b)}" in failure.reason
    assert "gcloud compute routes delete flannel-10-5-1-0-24 --project flannel-lab" in failure.reason
    assert network.cloud.writes() == []


def test_anothers_route_is_replaced_once_the_lease_is_ours(network: Network) -> None:
    network.cloud.put_route(SUBNET, network.instance(network.b))
    assert network.write(network.new_target(yes), network.route()) == []
    assert network.cloud.routes() == {SUBNET: network.instance()}
    assert network.cloud.writes() == ["routes.delete", "routes.insert"]


def test_a_route_of_our_name_in_another_network_is_left_whoever_has_the_lease(network: Network) -> None:
    other = network.cloud.process.call("add_network", name="other")
    network.cloud.put_route(SUBNET, network.instance(network.b), network=ROOT + other)
    (failure,) = network.write(network.new_target(yes), network.route())
    assert failure.foreign
    assert f"another network, {other}" in failure.reason
    assert network.cloud.writes() == []


def test_a_route_of_our_name_to_us_for_another_destination_is_made_anew(network: Network) -> None:
    network.cloud.put_route("10.5.9.0/24", network.instance(), name="flannel-10-5-1-0-24")
    assert network.write(network.new_target(), network.route()) == []
    assert network.cloud.routes() == {SUBNET: network.instance()}


def test_two_that_claim_one_destination_do_not_take_turns(network: Network) -> None:
    owner, other = network.new_target(yes), network.new_target(no)
    network.cloud.put_route(SUBNET, network.instance(network.b))
    for _ in range(3):
        if network.route() not in network.read(owner):
            assert network.write(owner, network.route()) == []
        theirs = network.route(of=network.b)
        assert network.read(other, theirs, on=network.b) == []
        assert [failure.foreign for failure in network.write(other, theirs, on=network.b)] == [True]
    assert network.cloud.writes() == ["routes.delete", "routes.insert"]


def test_a_route_that_has_become_anothers_is_not_removed(network: Network) -> None:
    network.cloud.put_route(SUBNET, network.instance(network.b))
    assert network.write(network.new_target(), removes=(network.route(),)) == []
    assert network.cloud.routes() == {SUBNET: network.instance(network.b)}


# --- operations, and an API that refuses -----------------------------------------------------------------------------


def test_an_operation_is_waited_for(network: Network) -> None:
    network.cloud.operations(1.2)
    assert network.write(network.new_target(), network.route()) == []
    assert network.cloud.routes() == {SUBNET: network.instance()}
    assert network.methods.count("globalOperations.get") > 1


def test_an_operation_that_never_ends_is_named_and_others_go_on(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "OPERATION_SECONDS", 0.5)
    network.cloud.operations(None, times=1)
    (failure,) = network.write(network.new_target(), network.route(), network.route("10.5.2.0/24"))
    assert "compute.routes.insert: timeout waiting for operation to finish: operation-" in failure.reason
    assert failure.object == network.route()
    assert network.cloud.routes() == {"10.5.2.0/24": network.instance()}


@pytest.mark.parametrize(
    ("code", "status", "named"),
    [("QUOTA_EXCEEDED", 403, 'raise the quota "Routes"'), ("RESOURCE_IN_USE", 400, "the lab has projects/")],
)
def test_an_operation_that_fails_is_named(network: Network, code: str, status: int, named: str) -> None:
    network.cloud.operations(0.1, code, status)
    (failure,) = network.write(network.new_target(), network.route())
    assert failure.reason.startswith(f"compute.routes.insert: {status} {code}: ")
    assert named in failure.reason


def test_a_lost_race_for_a_route_is_named(network: Network) -> None:
    target = network.new_target()
    network.cloud.operations(None, times=1)  # another's, which is under way
    network.cloud.process.call("begin", body={**BODY, "network": ROOT + network.path})
    (failure,) = network.write(target, network.route())
    assert "409 alreadyExists" in failure.reason


def test_a_full_project_is_named_with_its_quota(network: Network) -> None:
    network.cloud.process.call("quota", routes=1)
    try:
        (failure,) = network.write(network.new_target(), network.route())
    finally:
        network.cloud.process.call("quota", routes=200)
    assert "403 quotaExceeded: Quota 'ROUTES' exceeded" in failure.reason
    assert 'raise the quota "Routes"' in failure.reason


def test_a_request_that_the_sdk_sends_again_is_known_by_its_id(network: Network) -> None:
    network.cloud.refuse("routes.insert", "backendError", 503, times=1)
    assert network.write(network.new_target(), network.route()) == []
    sent = [asked.parameters["requestId"] for asked in network.cloud.requests() if asked.method == "routes.insert"]
    assert len(sent) == 2
    assert len(set(sent)) == 1
