"""Which subnet a host takes: the one it had, else one of the first hundred free; never one that overlaps a lease."""

import json
import random
from ipaddress import ip_network
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flannel_core.allocation import CANDIDATES, choose_subnets, fits
from flannel_core.lease import IPNetwork
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.store import OutOfSubnets


def config(**keys: object) -> NetworkConfig:
    return parse_config(json.dumps(keys).encode(), "net-conf.json")


def nets(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


FOUR = config(Network="10.5.0.0/16")
SIX = config(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/48")
DUAL = config(Network="10.5.0.0/16", EnableIPv6=True, IPv6Network="fc00::/48")
TINY = config(Network="10.5.0.0/24", SubnetLen=27)
"""Seven subnets: 10.5.0.32/27 to 10.5.0.224/27."""


def drawn(
    config: NetworkConfig, taken: tuple[IPNetwork, ...], previous: tuple[IPNetwork, ...] = ()
) -> set[tuple[str, ...]]:
    """Everything that can come out."""
    return {
        tuple(str(subnet) for subnet in choose_subnets(config, taken, previous, random.Random(seed)))
        for seed in range(2000)
    }


@pytest.mark.parametrize(
    ("config", "subnets", "fit"),
    [
        (FOUR, ("10.5.1.0/24",), True),
        (FOUR, ("10.5.255.0/24",), True),
        (FOUR, ("10.5.0.0/24",), False),
        (FOUR, ("10.6.1.0/24",), False),
        (FOUR, ("10.5.1.0/25",), False),
        (FOUR, (), False),
        (FOUR, ("10.5.1.0/24", "fc00:0:0:1::/64"), False),
        (DUAL, ("10.5.1.0/24", "fc00:0:0:1::/64"), True),
        (DUAL, ("10.5.1.0/24",), False),
        (DUAL, ("10.5.1.0/24", "fc00::/64"), False),
        (SIX, ("fc00:0:0:1::/64",), True),
        (SIX, ("10.5.1.0/24",), False),
    ],
)
def test_a_lease_fits_if_each_family_has_one_subnet_in_range(
    config: NetworkConfig, subnets: tuple[str, ...], fit: bool
) -> None:
    assert fits(config, nets(*subnets)) is fit


def test_the_subnet_that_a_host_had_comes_first() -> None:
    assert choose_subnets(FOUR, nets("10.5.1.0/24"), nets("10.5.200.0/24"), random.Random(1)) == nets("10.5.200.0/24")


@pytest.mark.parametrize(
    ("previous", "taken"),
    [
        ("10.5.200.0/24", "10.5.200.0/24"),
        ("10.5.200.0/24", "10.5.192.0/18"),
        ("10.5.200.0/24", "10.5.200.128/25"),
        ("10.5.200.0/25", "10.5.1.0/24"),
        ("10.9.200.0/24", "10.5.1.0/24"),
        ("10.5.0.0/24", "10.5.1.0/24"),
    ],
    ids=["taken", "covered", "partly taken", "other length", "other network", "before SubnetMin"],
)
def test_a_subnet_that_is_taken_or_does_not_fit_is_not_taken_again(previous: str, taken: str) -> None:
    (subnet,) = choose_subnets(FOUR, nets(taken), nets(previous), random.Random(1))
    assert fits(FOUR, (subnet,))
    assert subnet != ip_network(previous)
    assert not subnet.overlaps(ip_network(taken))


def test_a_new_subnet_is_one_of_the_first_hundred_free() -> None:
    taken = nets("10.5.3.0/24", "10.5.10.0/23")
    free = [f"10.5.{third}.0/24" for third in range(1, 256) if third not in (3, 10, 11)]
    assert drawn(FOUR, taken) == {(subnet,) for subnet in free[:CANDIDATES]}


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        (("10.5.0.32/28",), range(64, 256, 32)),
        (("10.5.0.40/30", "10.5.0.44/30"), range(64, 256, 32)),
        (("10.5.0.0/25",), range(128, 256, 32)),
        (("10.5.0.96/27", "10.5.0.64/26"), (32, 128, 160, 192, 224)),
        (("10.5.0.128/25", "10.5.0.130/32", "10.5.0.32/27"), (64, 96)),
        (("10.6.0.0/16", "10.4.0.0/24"), range(32, 256, 32)),
    ],
)
def test_leases_of_other_lengths_take_the_subnets_that_they_overlap(taken: tuple[str, ...], free: range) -> None:
    assert drawn(TINY, nets(*taken)) == {(f"10.5.0.{fourth}/27",) for fourth in free}


def test_a_lease_that_covers_the_whole_network_takes_nothing() -> None:
    assert drawn(TINY, nets("0.0.0.0/1", "10.5.0.0/24")) == drawn(TINY, ())


def test_the_families_are_chosen_independently() -> None:
    found = drawn(DUAL, nets("10.5.1.0/24"))
    assert len({subnet4 for subnet4, _ in found}) == CANDIDATES
    assert len({subnet6 for _, subnet6 in found}) == CANDIDATES
    assert len(found) > 3 * CANDIDATES


def test_a_host_that_gets_a_second_family_keeps_its_subnet_in_the_first() -> None:
    subnet4, subnet6 = choose_subnets(DUAL, (), nets("10.5.200.0/24"), random.Random(1))
    assert subnet4 == ip_network("10.5.200.0/24")
    assert fits(DUAL, (subnet4, subnet6))


def test_a_huge_ipv6_space_costs_no_more_than_a_small_one() -> None:
    huge = config(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/8", IPv6SubnetLen=126)
    assert fits(huge, choose_subnets(huge, nets("fc00::/64", "fcff::/16"), (), random.Random(1)))


@pytest.mark.parametrize(
    "taken", [("10.5.0.0/25", "10.5.0.128/25"), tuple(f"10.5.0.{n}/27" for n in range(0, 256, 32))]
)
def test_a_full_space_says_how_many_there_are(taken: tuple[str, ...]) -> None:
    with pytest.raises(OutOfSubnets) as caught:
        choose_subnets(TINY, nets(*taken), nets("10.5.0.32/27"), random.Random(1))
    assert str(caught.value).startswith(
        "out of subnets: all 7 of length /27 from 10.5.0.32 to 10.5.0.224 in 10.5.0.0/24 are taken"
    )


def test_one_full_family_is_enough_to_be_out_of_subnets() -> None:
    with pytest.raises(OutOfSubnets, match="fc00::/48"):
        choose_subnets(DUAL, nets("fc00::/49", "fc00:0:0:8000::/49"), (), random.Random(1))


def test_a_nearly_full_space_gives_its_last_subnet() -> None:
    taken = tuple(f"10.5.0.{fourth}/27" for fourth in range(0, 256, 32) if fourth != 160)
    assert drawn(TINY, nets(*taken)) == {("10.5.0.160/27",)}


SUBNETS_IN_TINY = st.builds(
    lambda fourth, length: ip_network(f"10.5.0.{fourth}/{length}", strict=False),
    st.integers(0, 255),
    st.integers(25, 32),
)


@given(
    taken=st.lists(SUBNETS_IN_TINY, max_size=12).map(tuple),
    previous=st.lists(SUBNETS_IN_TINY, max_size=1).map(tuple),
    seed=st.integers(0, 99),
)
def test_a_chosen_subnet_fits_and_is_free_and_there_is_one_whenever_there_can_be(
    taken: tuple[IPNetwork, ...], previous: tuple[IPNetwork, ...], seed: int
) -> None:
    possible = [ip_network(f"10.5.0.{fourth}/27") for fourth in range(32, 256, 32)]
    free = [subnet for subnet in possible if not any(subnet.overlaps(lease) for lease in taken)]
    if not free:
        with pytest.raises(OutOfSubnets):
            choose_subnets(TINY, taken, previous, random.Random(seed))
        return
    (chosen,) = choose_subnets(TINY, taken, previous, random.Random(seed))
    assert chosen in free
    assert chosen in previous or not set(previous) & set(free)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), contended=st.integers(1, 200))
def test_200_hosts_racing_for_200_subnets_each_get_one_and_none_twice(seed: int, contended: int) -> None:
    space = config(Network="10.0.0.0/16", SubnetMin="10.0.1.0", SubnetMax="10.0.200.0")
    rng = random.Random(seed)
    store: dict[IPNetwork, int] = {}  # create only if absent: a compare-and-set
    waiting = list(range(200))
    while waiting:
        # So many look at the same list of leases and choose before any of them writes.
        seen = tuple(store)
        racing, waiting = waiting[:contended], waiting[contended:]
        choices = [(host, choose_subnets(space, seen, (), rng)[0]) for host in racing]
        for host, subnet in choices:
            if store.setdefault(subnet, host) != host:
                waiting.append(host)
    assert sorted(store.values()) == list(range(200))
    with pytest.raises(OutOfSubnets):
        choose_subnets(space, tuple(store), (), rng)


def test_25000_leases_are_no_burden() -> None:
    space = config(Network="10.0.0.0/8")
    taken = tuple(ip_network((0x0A000000 + (number << 8), 24)) for number in range(1, 25_001))
    started = perf_counter()
    (subnet,) = choose_subnets(space, taken, (), random.Random(1))
    assert perf_counter() - started < 1.0
    assert subnet not in set(taken)
