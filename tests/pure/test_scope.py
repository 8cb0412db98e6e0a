"""What of a place's contents lies inside a Network of ours."""

from __future__ import annotations

import pytest

from flannel_core.target import Scope

SCOPE = Scope(networks=("10.5.0.0/16", "fc00:5::/48"))


@pytest.mark.parametrize("prefix", ["10.5.0.0/24", "10.5.255.0/30", "fc00:5:0:1::/64"])
def test_a_part_of_a_network_is_covered(prefix: str) -> None:
    assert SCOPE.covers(prefix)


@pytest.mark.parametrize(
    "prefix",
    ["10.5.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "10.6.1.0/24", "fc00:6::/64", "::/0", "pl-1234", "", "10.5.1.1/24"],
)
def test_all_of_it_what_contains_it_and_what_is_no_prefix_are_not(prefix: str) -> None:
    assert not SCOPE.covers(prefix)
