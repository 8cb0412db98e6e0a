"""Which lease is a host's own, and what a host that asks for one is given. Pure: stores that lease by themselves share
it, and add the transaction that makes it so."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec

from .allocation import choose_subnets, fits
from .errors import FlannelError
from .lease import FAMILIES, NOWHERE, Endpoint, Family, IPNetwork, Lease, Malformed
from .lease_json import MalformedLease, lease_key, parse_key
from .netconf import NetworkConfig
from .store import OutOfSubnets, Wish


class Claim(msgspec.Struct, frozen=True):
    """What a host is to hold, to be written in one transaction.

    ``lease`` is to stand under its key. ``held`` is the lease that it replaces (compare-and-set on that one; ``lease``
    has its ``created``, ``revision`` and ``expires``), None: the key must not exist yet. ``given_up`` are the host's
    own leases that no longer fit the configuration.
    """

    lease: Lease
    held: Lease | None
    given_up: tuple[Lease, ...] = ()


def own_leases(leases: Iterable[Lease], wish: Wish) -> list[Lease]:
    """The leases that are this host's own, the likeliest first.

    The remembered one (its ``created`` agrees, so nobody else took the subnet since), then those with our public
    address: reservations, then others by key. IPv4 addresses decide where both sides have one, else IPv6 addresses.
    """
    mine = [lease for lease in leases if _is_remembered(lease, wish) or _has_our_address(lease, wish)]
    return sorted(mine, key=lambda lease: (not _is_remembered(lease, wish), lease.expires is not None, lease.key))


def claim(
    config: NetworkConfig,
    wish: Wish,
    leases: Sequence[Lease],
    malformed: Iterable[Malformed],
    rng: random.Random,
    *,
    whole: bool = False,
) -> Claim:
    """What to write for a host that asks: its own lease if that fits, else the subnets that it had, else free ones.

    With both families on, a host that lacks an address of one is given subnets of both, and what it cannot be reached
    at is told as ``NOWHERE``. One for which there is no IPv6 subnet is given its IPv4 subnet alone (``whole``: it is
    not), and asks again when that may have changed. Never IPv6 alone: the key of such a lease tells Go nodes, which
    have IPv4 on here, that 0.0.0.0/0 is this host's.

    An own lease that does not fit is given up; a reservation stays where the operator put it. The subnet that a
    malformed entry is named after counts as taken. Raises OutOfSubnets, and FlannelError for a family that is on while
    the host has no address of it.
    """
    own = own_leases(leases, wish)
    named = tuple(subnet for entry in malformed for subnet in named_subnets(entry.key))
    unfit = [lease for lease in own if lease.expires is not None and not fits(config, lease.subnets)]
    attempts = [config]
    if len(config.families) > 1:
        attempts.append(config.only([4]))
    for attempt in attempts:
        held = next((lease for lease in own if fits(attempt, lease.subnets)), None)
        given_up = tuple(lease for lease in unfit if lease is not held)
        if held is not None:
            return Claim(described(held.subnets, wish, held), held, given_up)
        taken = [*named, *(subnet for lease in leases if lease not in given_up for subnet in lease.subnets)]
        before = (*wish.previous_subnets, *(subnet for lease in given_up for subnet in lease.subnets))
        try:
            subnets = choose_subnets(attempt, taken, before, rng)
        except OutOfSubnets:
            if whole or wish.public_ipv4 is None or len(attempt.families) == 1:
                raise
            continue
        return Claim(described(subnets, wish), None, given_up)
    raise AssertionError("the last attempt returns or raises")


def described(subnets: tuple[IPNetwork, ...], wish: Wish, before: Lease | None = None) -> Lease:
    """The lease of ``subnets`` that says what ``wish`` wants published.

    Key, ``created``, ``revision`` and ``expires`` are those of ``before``. A family that the host has no address of
    just now keeps the endpoint of ``before``; where there is none it leads nowhere, with data that Go can read. Raises
    FlannelError if the host has no address at all.
    """
    endpoints: dict[int, Endpoint] = {}
    for subnet in subnets:
        family: Family = 4 if subnet.version == 4 else 6
        address, data = (wish.public_ipv4, wish.ipv4_data) if family == 4 else (wish.public_ipv6, wish.ipv6_data)
        last = None if before is None else before.endpoint(family)
        if address is not None:
            endpoints[family] = Endpoint(subnet, address, data)
        elif last is not None:
            endpoints[family] = last
        elif len(subnets) > 1 and (wish.public_ipv4 or wish.public_ipv6):
            endpoints[family] = Endpoint(subnet, NOWHERE[family], wish.ipv4_data or wish.ipv6_data)
        else:
            raise FlannelError(
                f"the network configuration has IPv{family} on, but this host has no IPv{family} address to "
                f"announce; give the external interface one, or set EnableIPv{family} to false"
            )
    ipv4, ipv6 = (endpoints.get(family) for family in FAMILIES)
    if before is None:
        return Lease(key_of(subnets), wish.backend_type, ipv4, ipv6)
    return msgspec.structs.replace(before, backend_type=wish.backend_type, ipv4=ipv4, ipv6=ipv6)


def key_of(subnets: Iterable[IPNetwork]) -> str:
    """The key of the lease of one subnet, or of one of each family."""
    of_family = {subnet.version: subnet for subnet in subnets}
    return lease_key(of_family.get(4), of_family.get(6))


def says_the_same(one: Lease, other: Lease) -> bool:
    """Whether two leases publish the same, whenever they were written and however long they last."""
    return (one.key, one.backend_type, one.ipv4, one.ipv6) == (other.key, other.backend_type, other.ipv4, other.ipv6)


def overlapping(subnets: Iterable[IPNetwork], leases: Iterable[Lease]) -> Lease | None:
    """The first of ``leases`` that shares an address with ``subnets``."""
    wanted = tuple(subnets)
    for lease in leases:
        if any(a.version == b.version and a.overlaps(b) for a in wanted for b in lease.subnets):
            return lease
    return None


def _is_remembered(lease: Lease, wish: Wish) -> bool:
    return lease.key == wish.remembered_key and lease.created == wish.remembered_created


def _has_our_address(lease: Lease, wish: Wish) -> bool:
    for endpoint, address in ((lease.ipv4, wish.public_ipv4), (lease.ipv6, wish.public_ipv6)):
        if endpoint is not None and address is not None and not endpoint.leads_nowhere:
            return endpoint.public_ip == address and not address.is_unspecified
    return False


def named_subnets(key: str) -> tuple[IPNetwork, ...]:
    """The subnets that a key names; none for one that is no lease's."""
    try:
        return tuple(subnet for subnet in parse_key(key) if subnet is not None)
    except MalformedLease:
        return ()


def addresses(lease: Lease) -> str:
    """Where its host is reached, for a person."""
    return " and ".join(str(endpoint.public_ip) for endpoint in lease.endpoints if not endpoint.leads_nowhere)
