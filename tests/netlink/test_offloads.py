"""The offloads of a device, against ethtool's other door to the kernel as pyroute2 uses it."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.ethtool import Ethtool

from flannel_core.netlink.kernel import KernelTarget
from flannel_core.netlink.offloads import OffloadTarget
from flannel_core.objects import Link, Object, Offload, Sysctl, Vxlan
from flannel_core.target import Actual, Changed, Failure, Put, Scope, Unknown

CHECKSUM = "tx-checksum-ip-generic"
OFF = Offload("flannel.1", CHECKSUM, False)
ON = Offload("flannel.1", CHECKSUM, True)


@pytest.fixture
def device(host: Any) -> Any:
    """A host with flannel.1, as the kernel makes it."""
    host.ip("link add flannel.1 type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472")
    host.ip("link set flannel.1 up")
    return host


def features(device: Any, name: str = "flannel.1") -> dict[str, bool]:
    def read() -> dict[str, bool]:
        with Ethtool() as ethtool:
            found = ethtool.get_features(name).features
        return {feature: bool(state.enable) for feature, state in found.items()}

    found: dict[str, bool] = device.call(read)
    return found


def switch(device: Any, on: bool) -> None:
    """As an operator does with ``ethtool -K``."""

    def change() -> None:
        with Ethtool() as ethtool:
            found = ethtool.get_features("flannel.1")
            found.features[CHECKSUM].enable = on
            ethtool.set_features("flannel.1", found)

    device.call(change)


def write(device: Any, *wanted: Object) -> list[Failure]:
    failures: list[Failure] = device.run(OffloadTarget().write([Put(item) for item in wanted], []))
    return failures


def read(device: Any, *wanted: Object, only: frozenset[str] | None = None) -> list[Actual]:
    scope = Scope(wanted=frozenset(item.identity for item in wanted), only=only)
    found: list[Actual] = device.run(OffloadTarget().read(scope))
    return found


def test_a_new_device_computes_checksums_and_is_told_not_to(device: Any) -> None:
    assert features(device)[CHECKSUM]
    assert write(device, OFF) == []
    assert not features(device)[CHECKSUM]
    assert write(device, ON) == []
    assert features(device)[CHECKSUM]


def test_nothing_else_is_switched_but_what_hangs_on_it(device: Any) -> None:
    before = features(device)
    write(device, OFF)
    changed = {name for name, on in features(device).items() if on != before[name]}
    assert CHECKSUM in changed
    assert all("segmentation" in name or name == CHECKSUM for name in changed), changed
    write(device, ON)
    assert features(device) == before


@pytest.mark.parametrize("on", [True, False])
def test_what_an_operator_switched_is_read(device: Any, on: bool) -> None:
    switch(device, on)
    assert read(device, OFF) == [Actual(Offload("flannel.1", CHECKSUM, on))]


def test_only_what_is_wanted_is_read_and_only_on_the_devices_asked_for(device: Any) -> None:
    assert read(device) == []
    assert read(device, OFF, Offload("lo", CHECKSUM, True), only=frozenset({"lo"})) == [
        Actual(Offload("lo", CHECKSUM, True))
    ]


def test_a_device_that_is_not_there_has_nothing_and_is_named(device: Any) -> None:
    missing = [Offload("flannel.9", CHECKSUM, False), Offload("a-name-longer-than-any-device's", CHECKSUM, False)]
    assert read(device, *missing) == []
    assert [failure.reason for failure in write(device, *missing)] == [
        f"there is no device {item.device}" for item in missing
    ]


@pytest.mark.parametrize(
    "wanted",
    [Offload("lo", CHECKSUM, False), Offload("flannel.1", "tx-checksum-by-magic", False)],
    ids=["one that never changes", "one that no kernel has"],
)
def test_a_feature_that_cannot_be_switched_is_named(device: Any, wanted: Offload) -> None:
    (failure,) = write(device, wanted, OFF)
    assert failure.object == wanted
    assert failure.reason == (
        f"{wanted.device} has no {wanted.feature} that could be switched: `ethtool -k {wanted.device}` lists them"
    )
    assert read(device, OFF) == [Actual(OFF)]


def test_a_plan_of_another_kind_is_refused(device: Any) -> None:
    (failure,) = write(device, Sysctl("net/ipv4/ip_forward", "1"))
    assert "has no sysctl" in failure.reason


def test_the_kernel_tells_of_a_switched_offload_as_of_a_changed_link(device: Any) -> None:
    async def heard() -> Changed | Unknown:
        target = KernelTarget()
        await target.open()
        link = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450)
        watch = target.watch(Scope(devices=frozenset({"flannel.1"}), wanted=frozenset({link.identity})))
        assert await OffloadTarget().write([Put(OFF)], []) == []
        change = await anext(watch)
        await target.close()
        return change

    assert device.run(heard()) == Unknown(frozenset({"flannel.1"}), "link flannel.1 changed")
