"""One target against EC2 (moto in server mode), call by call; two instances in one VPC, no agents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from flannel_backend_aws_vpc.ec2 import Ec2
from flannel_backend_aws_vpc.options import AwsVpcOptions
from flannel_backend_aws_vpc.vpc_objects import SourceCheck, VpcRoute
from flannel_backend_aws_vpc.vpc_target import BLACKHOLE, VpcTarget
from flannel_core.lab import Lab
from flannel_core.lab.aws.lab_cloud import AwsLabCloud
from flannel_core.lab.network import Machine, inside
from flannel_core.objects import Object
from flannel_core.target import Failure, Put, Scope

T = TypeVar("T")
REGION = "us-east-1"
SUBNET = "10.5.1.0/24"
NETWORKS = ("10.5.0.0/16", "fc00:5::/48")


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def nobody_may_ask() -> bool:
    raise AssertionError("the store is asked")


class Vpc:
    """Two instances, and a table of each test's own."""

    def __init__(self, lab: Lab) -> None:
        cloud = lab.cloud("aws-vpc")
        assert isinstance(cloud, AwsLabCloud)
        self.cloud = cloud
        self.a, self.b = lab.machines(2)
        self.environment = cloud.join(self.a) | cloud.join(self.b)
        self.table = cloud.create_table()

    def route(self, destination: str = SUBNET, of: Machine | None = None, table: str = "") -> VpcRoute:
        return VpcRoute(REGION, table or self.table, destination, self.interface(of or self.a))

    def interface(self, machine: Machine) -> str:
        return self.cloud.interfaces[machine.name]

    def new_target(self) -> VpcTarget:
        options = AwsVpcOptions(endpoint=str(self.cloud.options["Endpoint"]))
        return VpcTarget(Ec2(options), 2)

    def scope(self, *ours: VpcRoute) -> Scope:
        return Scope(networks=NETWORKS, records={"aws-vpc": frozenset(route.record for route in ours)})

    def on(self, machine: Machine, work: Callable[[], Awaitable[T]]) -> T:
        async def there() -> T:
            return await work()

        return inside(machine.namespace, lambda: asyncio.run(there()))

    def read(self, target: VpcTarget, *ours: VpcRoute, on: Machine | None = None) -> list[Object]:
        """The routes, and whatever else there is."""

        async def found() -> list[Object]:
            return [actual.object for actual in await target.read(self.scope(*(ours or (self.route(),))))]

        return self.on(on or self.a, found)

    def write(
        self, target: VpcTarget, *puts: Object, removes: tuple[Object, ...] = (), on: Machine | None = None
    ) -> list[Failure]:
        async def failures() -> list[Failure]:
            return list(await target.write([Put(item) for item in puts], removes))

        return self.on(on or self.a, failures)


@pytest.fixture(scope="module")
def lab_vpc() -> Iterator[Vpc]:
    with Lab() as lab:
        yield Vpc(lab)


@pytest.fixture
def vpc(lab_vpc: Vpc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vpc]:
    for name, value in lab_vpc.environment.items():
        monkeypatch.setenv(name, value)
    lab_vpc.table = lab_vpc.cloud.create_table()
    lab_vpc.cloud.forget_requests()
    yield lab_vpc
    lab_vpc.cloud.heal()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_ours_is_what_leads_to_us_inside_a_network(vpc: Vpc) -> None:
    ours, theirs = vpc.interface(vpc.a), vpc.interface(vpc.b)
    for destination in ("10.5.1.0/24", "10.5.2.0/24", "fc00:5:0:1::/64", "10.6.0.0/24", "10.5.0.0/16", "::/0"):
        vpc.cloud.create_route(destination, ours, vpc.table)
    vpc.cloud.create_route("10.5.3.0/24", theirs, vpc.table)
    found = vpc.read(vpc.new_target())
    assert SourceCheck(REGION, ours, enabled=True) in found
    assert {item.destination for item in found if isinstance(item, VpcRoute)} == {
        "10.5.1.0/24",
        "10.5.2.0/24",
        "fc00:5:0:1::/64",
    }


def test_on_a_clone_what_its_original_has_on_record_is_not_ours(vpc: Vpc) -> None:
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.a), vpc.table)
    assert vpc.read(vpc.new_target(), vpc.route(of=vpc.a), on=vpc.b) == []


def test_with_nothing_on_record_nobody_is_asked(vpc: Vpc) -> None:
    target = vpc.new_target()

    async def found() -> list[object]:
        return list(await target.read(Scope(networks=NETWORKS, records={"aws-vpc": frozenset({"no place"})})))

    assert vpc.on(vpc.a, found) == []
    assert vpc.cloud.requests() == []


def test_a_table_that_was_deleted_hides_no_other(vpc: Vpc) -> None:
    gone = vpc.cloud.create_table()
    vpc.cloud.ec2("delete_route_table", RouteTableId=gone)
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.a), vpc.table)
    assert vpc.route() in vpc.read(vpc.new_target(), vpc.route(table=gone), vpc.route())


def test_a_blackhole_is_ours_once_it_was_seen_twice_and_is_nobodys(vpc: Vpc) -> None:
    instance, interface = vpc.cloud.add_stranger()
    vpc.cloud.create_route(SUBNET, interface, vpc.table)
    vpc.cloud.terminate(instance)
    target = vpc.new_target()
    blackhole = VpcRoute(REGION, vpc.table, SUBNET, BLACKHOLE)
    target.is_leased = lambda subnet: False
    assert blackhole not in vpc.read(target)
    assert blackhole in vpc.read(target)
    target.is_leased = lambda subnet: subnet == SUBNET
    assert blackhole not in vpc.read(target)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [SUBNET, "fc00:5:0:1::/64"])
def test_a_route_is_created_kept_and_removed(vpc: Vpc, destination: str) -> None:
    target, route = vpc.new_target(), vpc.route(destination)
    target.lease_is_ours = nobody_may_ask
    vpc.read(target)
    assert vpc.write(target, route) == []
    assert vpc.cloud.routes(vpc.table) == {destination: route.interface}
    assert vpc.write(target, route) == []
    assert vpc.cloud.writes() == ["CreateRoute"]
    assert vpc.write(target, removes=(route,)) == []
    assert vpc.cloud.routes(vpc.table) == {}
    assert vpc.write(target, removes=(route,)) == []
    assert vpc.cloud.writes() == ["CreateRoute", "DeleteRoute"]


def test_anothers_route_is_left_and_named_while_the_lease_is_not_ours(vpc: Vpc) -> None:
    target = vpc.new_target()
    target.lease_is_ours = no
    vpc.read(target)
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.b), vpc.table)
    (failure,) = vpc.write(target, vpc.route())
    assert failure.foreign
    assert f"10.5.1.0/24 via {vpc.interface(vpc.b)}" in failure.reason
    assert f"--route-table-id {vpc.table} --destination-cidr-block 10.5.1.0/24" in failure.reason
    assert vpc.cloud.writes() == []


def test_anothers_route_is_replaced_in_one_call_once_the_lease_is_ours(vpc: Vpc) -> None:
    target = vpc.new_target()
    target.lease_is_ours = yes
    vpc.read(target)
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.b), vpc.table)
    assert vpc.write(target, vpc.route()) == []
    assert vpc.cloud.routes(vpc.table) == {SUBNET: vpc.interface(vpc.a)}
    assert vpc.cloud.writes() == ["ReplaceRoute"]


def test_a_blackhole_in_our_way_is_replaced_in_one_call(vpc: Vpc) -> None:
    instance, interface = vpc.cloud.add_stranger()
    vpc.cloud.create_route(SUBNET, interface, vpc.table)
    vpc.cloud.terminate(instance)
    target = vpc.new_target()
    target.lease_is_ours = yes
    vpc.read(target)
    assert vpc.write(target, vpc.route()) == []
    assert vpc.cloud.routes(vpc.table) == {SUBNET: vpc.interface(vpc.a)}
    assert vpc.cloud.writes() == ["ReplaceRoute"]


def test_two_that_claim_one_destination_do_not_take_turns(vpc: Vpc) -> None:
    owner, other = vpc.new_target(), vpc.new_target()
    owner.lease_is_ours, other.lease_is_ours = yes, no
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.b), vpc.table)
    for _ in range(3):
        if vpc.route() not in vpc.read(owner):
            assert vpc.write(owner, vpc.route()) == []
        assert vpc.route(of=vpc.b) not in vpc.read(other, vpc.route(of=vpc.b), on=vpc.b)
        assert [failure.foreign for failure in vpc.write(other, vpc.route(of=vpc.b), on=vpc.b)] == [True]
    assert vpc.cloud.writes() == ["ReplaceRoute"]


def test_a_route_that_has_become_anothers_is_not_removed(vpc: Vpc) -> None:
    target, route = vpc.new_target(), vpc.route()
    vpc.cloud.create_route(SUBNET, vpc.interface(vpc.a), vpc.table)
    vpc.read(target)
    vpc.cloud.replace_route(SUBNET, vpc.interface(vpc.b), vpc.table)
    assert vpc.write(target, removes=(route,)) == []
    assert vpc.cloud.routes(vpc.table) == {SUBNET: vpc.interface(vpc.b)}


def test_a_blackhole_that_was_leased_or_revived_meanwhile_is_not_removed(vpc: Vpc) -> None:
    instance, interface = vpc.cloud.add_stranger()
    vpc.cloud.create_route(SUBNET, interface, vpc.table)
    vpc.cloud.terminate(instance)
    target = vpc.new_target()
    blackhole = VpcRoute(REGION, vpc.table, SUBNET, BLACKHOLE)
    target.is_leased = lambda subnet: True
    vpc.write(target, removes=(blackhole,))
    vpc.cloud.replace_route(SUBNET, vpc.interface(vpc.b), vpc.table)
    target.is_leased = lambda subnet: False
    vpc.write(target, removes=(blackhole,))
    assert vpc.cloud.routes(vpc.table) == {SUBNET: vpc.interface(vpc.b)}
    assert vpc.cloud.writes() == []


def test_one_route_that_fails_keeps_no_other_from_being_written(vpc: Vpc) -> None:
    target = vpc.new_target()
    gone = vpc.cloud.create_table()
    vpc.cloud.ec2("delete_route_table", RouteTableId=gone)
    (failure,) = vpc.write(target, vpc.route(table=gone), vpc.route())
    assert "has no such route table" in failure.reason
    assert "Backend.RouteTableID" in failure.reason
    assert vpc.cloud.routes(vpc.table) == {SUBNET: vpc.interface(vpc.a)}


def test_the_check_of_addresses_is_switched_off_and_read_back(vpc: Vpc) -> None:
    target, off = vpc.new_target(), SourceCheck(REGION, vpc.interface(vpc.a), enabled=False)
    vpc.cloud.check_sources(vpc.a.name)
    assert off not in vpc.read(target)
    assert vpc.write(target, off) == []
    assert off in vpc.read(target)
