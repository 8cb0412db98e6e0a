"""Which subnet a host takes. Pure: the stores that lease by themselves share it and add compare-and-set."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice

from .lease import FAMILIES, IPNetwork
from .netconf import NetworkConfig, Space
from .store import OutOfSubnets

CANDIDATES = 100
"""A new subnet is drawn from the first 100 free ones, as Go does: hosts that start together seldom meet."""


def fits(config: NetworkConfig, subnets: tuple[IPNetwork, ...], *, partly: bool = False) -> bool:
    """True if a host with these subnets needs no other: for each family that is on exactly one subnet of SubnetLen
    between SubnetMin and SubnetMax, none for one that is off. ``partly``: a family that is on may have none."""
    for family in FAMILIES:
        own = [subnet for subnet in subnets if subnet.version == family]
        space = config.space(family)
        if partly and not own:
            continue
        if len(own) != (space is not None) or (space is not None and not _fits(space, own[0])):
            return False
    return True


def choose_subnets(
    config: NetworkConfig, taken: Iterable[IPNetwork], previous: tuple[IPNetwork, ...], rng: random.Random
) -> tuple[IPNetwork, ...]:
    """One subnet per family that is on, IPv4 first.

    In each family on its own: the one of ``previous`` if it fits and overlaps none of ``taken``, else a random one of
    the first CANDIDATES free ones from SubnetMin up. ``taken`` are the subnets of all other leases, of any length; one
    that covers the whole Network is no lease of this network (admission refuses it) and takes nothing. Raises
    OutOfSubnets.
    """
    taken = tuple(taken)
    chosen = []
    for family in FAMILIES:
        if (space := config.space(family)) is not None:
            spans = _spans(space, taken)
            before = next((subnet for subnet in previous if subnet.version == family and _fits(space, subnet)), None)
            chosen.append(before if before is not None and _is_free(before, spans) else _draw(space, spans, rng))
    return tuple(chosen)


_Span = tuple[int, int]
"""First and last address, as numbers."""


def _fits(space: Space, subnet: IPNetwork) -> bool:
    first = int(subnet.network_address)
    return subnet.prefixlen == space.subnet_length and int(space.subnet_min) <= first <= int(space.subnet_max)


def _span(network: IPNetwork) -> _Span:
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def _spans(space: Space, taken: tuple[IPNetwork, ...]) -> list[_Span]:
    network = space.network
    return sorted(_span(t) for t in taken if t.version == network.version and t.prefixlen > network.prefixlen)


def _is_free(subnet: IPNetwork, spans: list[_Span]) -> bool:
    first, last = _span(subnet)
    return not any(begin <= last and end >= first for begin, end in spans)


def _draw(space: Space, spans: list[_Span], rng: random.Random) -> IPNetwork:
    candidates = list(islice(_free(space, spans), CANDIDATES))
    if not candidates:
        raise OutOfSubnets(
            f"out of subnets: all {space.capacity} of length /{space.subnet_length} from {space.subnet_min} to "
            f"{space.subnet_max} in {space.network} are taken; release leases that nobody needs (flannelctl lease "
            f"release) or change the network configuration to hold more"
        )
    return type(space.network)((rng.choice(candidates), space.subnet_length))


def _free(space: Space, spans: list[_Span]) -> Iterator[int]:
    """The first addresses of the free subnets, upwards. ``spans`` is sorted, so one walk along both suffices."""
    step = 1 << (space.network.max_prefixlen - space.subnet_length)
    candidate, end = int(space.subnet_min), int(space.subnet_max) + step
    for first, last in [*spans, (end, end)]:
        while candidate + step <= min(first, end):
            yield candidate
            candidate += step
        if last >= candidate:  # on to the first boundary after this lease
            candidate += -(-(last + 1 - candidate) // step) * step
