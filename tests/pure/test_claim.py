"""Whose lease is whose, and what a host that asks is given."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.claim import Claim, claim, described, key_of, overlapping, own_leases, says_the_same
from flannel_core.errors import FlannelError
from flannel_core.lease import NOWHERE, Endpoint, Family, Lease, Malformed
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.store import OutOfSubnets, Wish

IPV4 = parse_config(b'{"Network":"10.5.0.0/16"}', "test")
DUAL = parse_config(b'{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}', "test")
IPV6 = parse_config(b'{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}', "test")
FOUR = parse_config(b'{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.4.0"}', "test")

A4, B4 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def lease(
    subnet: str = "10.5.7.0/24",
    address: IPv4Address | None = A4,
    *,
    six: IPv6Address | None = None,
    expires: float | None = 1e10,
    created: int = 5,
) -> Lease:
    ipv4 = None if address is None else Endpoint(IPv4Network(subnet), address)
    ipv6 = None if six is None else Endpoint(IPv6Network("fd00:5:0:7::/64"), six)
    key = key_of([endpoint.subnet for endpoint in (ipv4, ipv6) if endpoint is not None])
    return Lease(key, "vxlan", ipv4, ipv6, created, created, expires)


def wish(ipv4: IPv4Address | None = A4, ipv6: IPv6Address | None = None, **more: Any) -> Wish:
    return Wish(ipv4, ipv6, "vxlan", **more)


def claimed(config: NetworkConfig, who: Wish, *leases: Lease, malformed: tuple[Malformed, ...] = ()) -> Any:
    return claim(config, who, leases, malformed, random.Random(1))


def test_what_is_remembered_goes_before_a_reservation_and_that_before_the_first_by_key() -> None:
    first, second = lease("10.5.1.0/24"), lease("10.5.2.0/24")
    reserved, remembered = lease("10.5.3.0/24", expires=None), lease("10.5.4.0/24", B4, created=9)
    who = wish(remembered_key=remembered.key, remembered_created=9)
    assert own_leases([second, first, reserved, remembered], who) == [remembered, reserved, first, second]


@pytest.mark.parametrize(
    ("theirs", "who"),
    [
        (lease(address=B4), wish(A4)),
        (lease(address=IPv4Address(0)), wish(IPv4Address(0))),
        (lease(address=None, six=IPv6Address(0)), wish(None, IPv6Address(0))),
        (lease(address=B4, six=A6), wish(A4, A6)),
        (lease(address=B4, created=6), wish(A4, remembered_key="10.5.7.0-24", remembered_created=5)),
        (lease(address=B4, created=5), wish(A4, remembered_key="10.5.8.0-24", remembered_created=5)),
        (lease(), wish(None, A6)),
    ],
    ids=[
        "another address",
        "no address",
        "no IPv6 address",
        "our IPv6 address beside another's IPv4 address",
        "the remembered subnet, leased anew",
        "another subnet of that age",
        "no family in common",
    ],
)
def test_what_is_not_ours(theirs: Lease, who: Wish) -> None:
    assert own_leases([theirs], who) == []


def test_an_ipv6_lease_is_found_by_its_address() -> None:
    ours = lease(address=None, six=A6)
    assert own_leases([ours], wish(None, A6)) == [ours]


def test_our_lease_is_taken_over_with_what_is_published_now() -> None:
    held = lease()
    found = claimed(IPV4, wish(ipv4_data=b"{}"), held, lease("10.5.8.0/24", B4))
    assert (found.held, found.given_up) == (held, ())
    assert found.lease == msgspec.structs.replace(held, ipv4=Endpoint(held.subnets[0], A4, b"{}"))


@pytest.mark.parametrize("config", [DUAL, IPV6], ids=["dual stack now", "IPv6 now"])
def test_a_lease_that_does_not_fit_is_given_up(config: NetworkConfig) -> None:
    held = lease()
    found = claimed(config, wish(A4, A6), held)
    assert (found.held, found.given_up) == (None, (held,))
    assert (found.lease.created, found.lease.revision) == (0, 0)
    assert len(found.lease.subnets) == len(config.networks)


def test_a_subnet_that_is_given_up_may_be_a_part_of_the_new_lease() -> None:
    held = lease()
    assert claimed(DUAL, wish(A4, A6, previous_subnets=held.subnets), held).lease.subnets[0] == held.subnets[0]


def test_a_reservation_that_does_not_fit_stays_where_the_operator_put_it() -> None:
    reserved = lease("10.6.7.0/24", expires=None)
    found = claimed(IPV4, wish(), reserved)
    assert (found.held, found.given_up) == (None, ())
    again = msgspec.structs.replace(found.lease, created=7, expires=1e10)
    assert claimed(IPV4, wish(), reserved, again).held == again


def test_a_subnet_named_by_a_malformed_entry_is_taken_and_other_keys_take_nothing() -> None:
    malformed = tuple(Malformed(key, "") for key in ("10.5.1.0-24", "10.5.2.0-24&fd00:5::-64", "10.5.3.0-24", "what?"))
    assert claimed(FOUR, wish(), malformed=malformed).lease.key == "10.5.4.0-24"
    with pytest.raises(OutOfSubnets):
        claimed(FOUR, wish(), lease("10.5.4.0/24", B4), malformed=malformed)


@pytest.mark.parametrize(
    ("config", "who", "family"), [(IPV4, wish(None, A6), 4), (IPV6, wish(A4), 6), (DUAL, wish(None), 4)]
)
def test_a_family_without_an_address_is_named_with_the_cure(config: NetworkConfig, who: Wish, family: int) -> None:
    with pytest.raises(FlannelError, match=f"no IPv{family} address to announce; .* or set EnableIPv{family} to false"):
        claimed(config, who)


@pytest.mark.parametrize(("who", "family"), [(wish(A4, ipv4_data=b"{}"), 6), (wish(None, A6, ipv6_data=b"{}"), 4)])
def test_in_dual_stack_a_host_without_an_address_of_one_family_has_subnets_of_both_and_leads_nowhere_in_that_one(
    who: Wish, family: Family
) -> None:
    first = claimed(DUAL, who).lease
    assert [subnet.version for subnet in first.subnets] == [4, 6]
    endpoint = first.endpoint(family)
    assert endpoint is not None
    assert (endpoint.public_ip, endpoint.leads_nowhere, endpoint.data) == (NOWHERE[family], True, b"{}")
    held = msgspec.structs.replace(first, created=5, expires=1e10)
    assert claimed(DUAL, who, held) == Claim(held, held)
    complete = claimed(DUAL, wish(A4, A6), held)
    assert (complete.held, complete.lease.subnets) == (held, held.subnets)
    assert not any(each.leads_nowhere for each in complete.lease.endpoints)


def test_what_leads_nowhere_is_nobodys_address() -> None:
    theirs = lease("10.5.1.0/24", A4, six=NOWHERE[6])  # type: ignore[arg-type]
    assert own_leases([theirs], wish(None, NOWHERE[6])) == []  # type: ignore[arg-type]
    ours = lease("10.5.1.0/24", NOWHERE[4], six=A6)  # type: ignore[arg-type]
    assert own_leases([theirs, ours], wish(A4, A6)) == [theirs, ours]


def test_a_lease_of_ipv4_alone_is_completed_and_its_subnet_stays() -> None:
    held = lease("10.5.9.0/24")
    found = claimed(DUAL, wish(A4, A6), held)
    assert (found.held, found.given_up) == (None, (held,))
    assert (found.lease.subnets[0], len(found.lease.subnets)) == (held.subnets[0], 2)


def test_a_lease_of_both_families_is_kept_by_a_host_that_has_one_address_just_now() -> None:
    held = lease(six=A6)
    for who in (wish(A4), wish(None, A6)):
        assert claimed(DUAL, who, held) == Claim(held, held)


def test_without_a_free_ipv6_subnet_there_is_an_ipv4_subnet_but_never_the_other_way_round() -> None:
    few = parse_config(
        b'{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.2.0","EnableIPv6":true,'
        b'"IPv6Network":"fd00:5::/48","IPv6SubnetMin":"fd00:5:0:7::","IPv6SubnetMax":"fd00:5:0:7::"}',
        "test",
    )
    other = lease("10.5.1.0/24", B4, six=B6)
    found = claimed(few, wish(A4, A6), other)
    assert found.lease.subnets == (IPv4Network("10.5.2.0/24"),)
    with pytest.raises(OutOfSubnets):
        claimed(few, wish(None, A6), other)
    with pytest.raises(OutOfSubnets):
        claim(few, wish(A4, A6), [other], (), random.Random(1), whole=True)
    with pytest.raises(OutOfSubnets):
        claimed(few, wish(A4, A6), lease("10.5.1.0/24", B4), lease("10.5.2.0/24", B4))


def test_a_host_that_lost_an_address_keeps_what_it_announced_of_that_family() -> None:
    before = lease(six=A6)
    now = described(before.subnets, wish(B4), before)
    assert now.ipv4 is not None
    assert (now.ipv4.public_ip, now.ipv6) == (B4, before.ipv6)


def test_two_leases_say_the_same_whenever_they_were_written() -> None:
    one = lease()
    assert says_the_same(one, msgspec.structs.replace(one, created=1, revision=2, expires=None))
    assert not says_the_same(one, msgspec.structs.replace(one, backend_type="host-gw"))
    assert not says_the_same(one, lease(address=B4))


def test_overlapping_leases_are_found_whatever_their_length() -> None:
    wide = lease("10.5.0.0/20", B4)
    assert overlapping(lease().subnets, [lease("10.5.99.0/24"), wide]) == wide
    assert overlapping(lease().subnets, [lease(address=None, six=A6)]) is None


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["ask", "leave"])), max_size=30), st.integers(0, 1000))
def test_whoever_asks_in_whatever_order_no_subnet_is_held_twice(asked: list[tuple[int, str]], seed: int) -> None:
    rng, held, clock = random.Random(seed), dict[str, Lease](), 0
    for number, what in asked:
        clock += 1
        address = IPv4Address("192.0.2.0") + number
        if what == "leave":
            held = {key: entry for key, entry in held.items() if entry.endpoints[0].public_ip != address}
            continue
        try:
            found = claim(FOUR, wish(address), tuple(held.values()), (), rng)
        except OutOfSubnets:
            assert len(held) == 4
            assert address not in {entry.endpoints[0].public_ip for entry in held.values()}
            continue
        assert found.given_up == ()
        assert (found.lease.key in held) == (found.held is not None)
        held[found.lease.key] = msgspec.structs.replace(found.lease, created=found.lease.created or clock)
        owners = [entry.endpoints[0].public_ip for entry in held.values()]
        assert len(owners) == len(set(owners)), "one lease a host"
