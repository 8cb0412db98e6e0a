"""Every check of the kit of backends can fail: each promise is broken by a backend with one fault that is else vxlan,
host-gw or alloc."""

from __future__ import annotations

import inspect
import itertools
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from flannel_backend_alloc.alloc import AllocBackend
from flannel_backend_host_gw.host_gw import HostGwBackend
from flannel_backend_vxlan.vxlan import VxlanBackend, VxlanData
from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.host import Host
from flannel_core.lab.network import ip_batch
from flannel_core.lease import Family, Lease
from flannel_core.objects import Identity, Link, Neighbour, Object, Route, Sysctl
from flannel_core.target import Actual, Failure, Put, Scope, Target

BACKENDS = Path(__file__).parents[2] / "backends"
KITS: Mapping[type[Backend[Any, Any]], Any] = {
    AllocBackend: runpy.run_path(str(BACKENDS / "alloc/tests/test_conformance.py"))["TestAlloc"],
    HostGwBackend: runpy.run_path(str(BACKENDS / "host-gw/tests/test_conformance.py"))["TestHostGw"],
    VxlanBackend: runpy.run_path(str(BACKENDS / "vxlan/tests/test_conformance.py"))["TestVxlan"],
}
"""As the backends' own tests have them."""
PATIENCE = 1.0
"""Seconds, in place of the kit's."""
FAULTS: list[tuple[str, type[Backend[Any, Any]]]] = []
"""A promise, by the check's name, and a backend that breaks it."""

BackendT = TypeVar("BackendT", bound=type[Backend[Any, Any]])
Reached = Iterable[Object | Unreachable]


def breaks(*promises: str) -> Callable[[BackendT], BackendT]:
    def enter(faulty: BackendT) -> BackendT:
        FAULTS.extend((promise, faulty) for promise in promises)
        return faulty

    return enter


# --- the plan ----------------------------------------------------------------------------------------------------


@breaks("test_planning_twice_gives_the_same_plan")
class CountsItsPlans(HostGwBackend):
    plans = itertools.count(1)

    def peer(self, node: Node, lease: Lease) -> Reached:
        for item in super().peer(node, lease):
            yield replace(item, metric=next(self.plans)) if isinstance(item, Route) else item


@breaks("test_a_second_instance_plans_the_same")
class NumbersItsInstances(HostGwBackend):
    instances = itertools.count(1)

    def __init__(self, options: Any, state_directory: Path) -> None:
        super().__init__(options, state_directory)
        self.number = next(self.instances)

    def peer(self, node: Node, lease: Lease) -> Reached:
        for item in super().peer(node, lease):
            yield replace(item, metric=self.number) if isinstance(item, Route) else item


@breaks("test_what_needs_no_subnet_stays_wanted_once_there_is_one")
class ShrinksItsDeviceOnceThereIsASubnet(VxlanBackend):
    def local(self, node: Node) -> Iterable[Object]:
        for item in super().local(node):
            yield replace(item, mtu=item.mtu - 20) if isinstance(item, Link) and node.lease else item


@breaks("test_something_reaches_each_family_of_a_peer")
class ForgetsIPv6(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        return super().peer(node, replace(lease, ipv6=None))


@breaks("test_no_two_objects_of_a_plan_share_an_identity")
class GivesEveryPeerOneAddress(VxlanBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        for item in super().peer(node, lease):
            yield replace(item, address="10.5.255.255") if isinstance(item, Neighbour) else item


@breaks("test_every_device_is_the_external_one_or_made_here")
class RoutesThroughADeviceOfOthers(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        for item in super().peer(node, lease):
            yield replace(item, device="docker0") if isinstance(item, Route) else item


# --- what is announced -------------------------------------------------------------------------------------------


@breaks("test_preparing_again_announces_the_same")
class MakesANewMacEachTime(VxlanBackend):
    def _mac(self, host: Host, previous: Lease | None, family: Family) -> str:
        return super()._mac(replace(host, links={}), previous, family)


@breaks("test_a_dry_run_makes_nothing")
class SavesAKeyInADryRun(HostGwBackend):
    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        (self.state_directory / "key").write_text("secret")
        return await super().prepare(host, previous, dry_run=dry_run)


class LongerData(VxlanData, frozen=True):
    zone: str = "a"


@breaks("test_the_announced_data_is_what_peers_decode")
class AnnouncesMoreThanItReads(VxlanBackend):
    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        said = await super().prepare(host, previous, dry_run=dry_run)
        return replace(said, ipv4_data=LongerData(said.ipv4_data.vni, said.ipv4_data.vtep_mac))


@breaks("test_the_mtu_leaves_room_for_the_backends_own_headers")
class PromisesMoreThanTheInterface(HostGwBackend):
    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        return Announcement(mtu=host.mtu + 1)


# --- who is trusted ----------------------------------------------------------------------------------------------


@breaks("test_a_peer_with_malformed_data_harms_no_other")
class TakesAnythingForData(VxlanBackend):
    Data = Any


class CarelessData(msgspec.Struct, frozen=True):
    vni: int | None = msgspec.field(default=None, name="VNI")
    vtep_mac: str = msgspec.field(default="00:00:00:00:00:00", name="VtepMAC")


@breaks("test_a_peer_with_data_that_cannot_be_trusted_is_refused")
class TrustsAZeroMac(VxlanBackend):
    Data = CarelessData


@breaks("test_two_peers_with_one_identity_are_not_both_admitted")
class TellsPeersApartByTheirKey(VxlanBackend):
    def identities(self, lease: Lease) -> Iterable[object]:
        return (lease.key,)


# --- on a kernel -------------------------------------------------------------------------------------------------


@breaks("test_applying_a_second_time_writes_nothing")
class WantsWhatTheKernelSpellsOtherwise(VxlanBackend):
    def local(self, node: Node) -> Iterable[Object]:
        for item in super().local(node):
            yield replace(item, value="00") if isinstance(item, Sysctl) else item


@breaks("test_a_peer_added_and_removed_leaves_nothing")
class AddsNeighboursItself(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        for endpoint in lease.endpoints:
            ip_batch([f"neigh replace {endpoint.public_ip} lladdr 02:00:00:00:00:01 dev eth0 nud permanent"])
        return super().peer(node, lease)


@breaks("test_a_peer_that_left_while_nobody_looked_is_removed")
class SignsItsRoutesAsAnOperator(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        for item in super().peer(node, lease):
            yield replace(item, protocol=4) if isinstance(item, Route) else item  # RTPROT_STATIC


@breaks("test_foreign_objects_are_untouched")
class ClearsTheWay(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        ip_batch(["route flush 10.99.0.0/16"])
        return super().peer(node, lease)


@breaks("test_a_foreign_route_in_the_way_harms_no_other_peer")
class RoutesEveryPeersNeighbourToo(HostGwBackend):
    def peer(self, node: Node, lease: Lease) -> Reached:
        yield from super().peer(node, lease)
        yield Route("10.5.1.0/24", node.host.interface, gateway="198.51.100.1")


class Marker(Object, frozen=True):
    """A file of the state directory."""

    kind: ClassVar[str] = "marker"
    name: str

    @property
    def identity(self) -> Identity:
        return ("marker", self.name)


class MarkerTarget(Target):
    """Where a backend's own objects live. It looks for changes ten times a second."""

    name: ClassVar[str] = "marker"
    stages: ClassVar[Mapping[type[Object], int]] = {Marker: 50}
    poll_seconds: ClassVar[float | None] = 0.1

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def read(self, scope: Scope) -> Iterable[Actual]:
        return [Actual(Marker(path.name)) for path in self.directory.glob("peer-*")]

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        for put in puts:
            (self.directory / str(put.object.identity[1])).touch()
        for item in removes:
            (self.directory / str(item.identity[1])).unlink(missing_ok=True)
        return ()


class MarksPeers(HostGwBackend):
    """Not all of its objects are the kernel's. Nothing is wrong with it."""

    target: type[MarkerTarget] = MarkerTarget

    def peer(self, node: Node, lease: Lease) -> Reached:
        yield Marker(lease.key)
        yield from super().peer(node, lease)

    def targets(self) -> Iterable[Target]:
        return (self.target(self.state_directory),)


class DeafTarget(MarkerTarget):
    poll_seconds = None


@breaks("test_each_object_deleted_behind_its_back_returns")
class HearsOfNothing(MarksPeers):
    target = DeafTarget


@breaks("test_pods_of_two_hosts_ping_each_other_over_ipv4", "test_pods_of_two_hosts_ping_each_other_over_ipv6")
class SaysThatItForwards(AllocBackend):
    """The agents of the lab find alloc by its name, and alloc does not."""


# --- the table ---------------------------------------------------------------------------------------------------


def held_to(promise: str, backend: type[Backend[Any, Any]], directory: Path) -> None:
    """Run one check, of a parametrized one each case."""
    base = next(one for one in backend.__mro__ if one in KITS)
    own = {name: value for name, value in vars(KITS[base]).items() if name in ("config", "data", "untrusted")}
    kit = type("Held", (KernelBackendConformance,), {**own, "backend": backend, "patience": PATIENCE})()
    check = getattr(kit, promise)
    if "tmp_path" in inspect.signature(check).parameters:
        cases = [mark.args for mark in getattr(check, "pytestmark", ()) if mark.name == "parametrize"]
        for case in itertools.product(*([(name, value) for value in values] for name, values in cases)):
            check(tmp_path=directory, **dict(case))
    else:
        check()


@pytest.mark.parametrize(("promise", "faulty"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_is_found(promise: str, faulty: type[Backend[Any, Any]], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        held_to(promise, faulty, tmp_path)


@pytest.mark.parametrize(
    "promise",
    [
        "test_applying_a_second_time_writes_nothing",
        "test_a_peer_added_and_removed_leaves_nothing",
        "test_a_peer_that_left_while_nobody_looked_is_removed",
        "test_each_object_deleted_behind_its_back_returns",
    ],
)
def test_the_kit_looks_at_objects_that_are_not_the_kernels(promise: str, tmp_path: Path) -> None:
    held_to(promise, MarksPeers, tmp_path)


def test_every_promise_is_broken_by_somebody() -> None:
    promises = {name for name in dir(KernelBackendConformance) if name.startswith("test_")}
    assert {promise for promise, _ in FAULTS} == promises
