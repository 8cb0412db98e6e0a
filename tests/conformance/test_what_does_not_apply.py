"""What a plugin cannot do is not asked of it, and is said by name."""

from __future__ import annotations

from typing import Any

import pytest

from flannel_backend_alloc.alloc import AllocBackend
from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.conformance.stores import StoreConformance
from flannel_core.store import Capability, SubnetStore


def checks_of(*capabilities: Capability) -> set[str]:
    """The names of the checks that pytest would collect for a store with these capabilities."""
    store = type("Store", (SubnetStore,), {"capabilities": frozenset(capabilities)})
    conformance: Any = type("Conformance", (StoreConformance,), {"store_class": store})
    return {name for name in dir(conformance) if name.startswith("test_") and getattr(conformance, name) is not None}


def test_a_store_that_can_do_everything_gets_every_check() -> None:
    every = checks_of("list", "release", "reserve", "set_config", "expiry")
    assert every == {name for name in dir(StoreConformance) if name.startswith("test_")}
    assert len(every) > 30


def test_a_check_that_does_not_apply_says_so_by_name() -> None:
    every = checks_of("list", "release", "reserve", "set_config", "expiry")
    some = checks_of("list", "release", "set_config", "expiry")
    assert len(some) == len(every)
    assert "test_a_reservation_is_found_by_its_owner_and_stays_one" in every - some
    assert "test_a_reservation_is_found_by_its_owner_and_stays_one__does_not_apply_without_reserve" in some - every
    assert {name.partition("__does_not_apply_without_")[2] for name in some - every} == {"reserve"}


def test_the_least_of_stores_is_still_asked_the_essentials() -> None:
    assert {
        "test_hosts_get_subnets_of_their_own",
        "test_a_watcher_that_missed_something_gets_a_snapshot",
        "test_a_dry_run_writes_nothing",
    } <= checks_of()


def checks_of_alloc(**says: Any) -> set[str]:
    """The names of the checks that pytest would collect for alloc if it said this of itself."""
    conformance: Any = type("Conformance", (KernelBackendConformance,), {"backend": AllocBackend, **says})
    return {name for name in dir(conformance) if name.startswith("test_") and getattr(conformance, name) is not None}


@pytest.mark.parametrize(
    ("says", "check", "lacks"),
    [
        ({"families": (4,)}, "test_pods_of_two_hosts_ping_each_other_over_ipv6", "IPv6"),
        ({"families": (6,)}, "test_pods_of_two_hosts_ping_each_other_over_ipv4", "IPv4"),
        ({"forwards": False}, "test_a_peer_added_and_removed_leaves_nothing", "forwarding"),
        ({"lab_store": "none"}, "test_pods_of_two_hosts_ping_each_other_over_ipv4", "a_store_for_the_lab"),
    ],
)
def test_a_backend_is_not_asked_for_what_it_says_it_cannot_do(says: dict[str, Any], check: str, lacks: str) -> None:
    assert check in checks_of_alloc()
    assert check not in checks_of_alloc(**says)
    assert f"{check}__does_not_apply_without_{lacks}" in checks_of_alloc(**says)
