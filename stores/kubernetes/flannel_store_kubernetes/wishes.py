"""What this host says of itself, in the families of its subnets and at the addresses it is to be reached at. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from flannel_core.lease import FAMILIES, IPNetwork, Lease
from flannel_core.store import PublicAddresses, Wish


def reachable(subnets: tuple[IPNetwork, ...], wish: Wish) -> tuple[IPNetwork, ...]:
    """Those in whose family the host has an address; all if it has none, so that somebody is told."""
    addresses = {4: wish.public_ipv4, 6: wish.public_ipv6}
    return tuple(subnet for subnet in subnets if addresses[subnet.version] is not None) or subnets


def about(wish: Wish, subnets: tuple[IPNetwork, ...]) -> Wish:
    """``wish`` in the families of ``subnets`` alone."""
    versions = {subnet.version for subnet in subnets}
    off = [family for family in FAMILIES if family not in versions]
    nothing: dict[str, Any] = {f"public_ipv{family}": None for family in off} | {
        f"ipv{family}_data": None for family in off
    }
    return msgspec.structs.replace(wish, **nothing)


def completed(wish: Wish, lease: Lease) -> Wish:
    """``wish`` in the families of ``lease``; one that the host has no address of just now stays as it is."""
    wish = about(wish, lease.subnets)
    if wish.public_ipv4 is None and lease.ipv4 is not None:
        wish = msgspec.structs.replace(wish, public_ipv4=lease.ipv4.public_ip, ipv4_data=lease.ipv4.data)
    if wish.public_ipv6 is None and lease.ipv6 is not None:
        wish = msgspec.structs.replace(wish, public_ipv6=lease.ipv6.public_ip, ipv6_data=lease.ipv6.data)
    return wish


def reached_at(lease: Lease, overwrite: PublicAddresses) -> Lease:
    """``lease`` with the addresses that an operator has put in place of the host's own."""
    ipv4, ipv6 = lease.ipv4, lease.ipv6
    if ipv4 is not None and overwrite.ipv4 is not None:
        ipv4 = msgspec.structs.replace(ipv4, public_ip=overwrite.ipv4)
    if ipv6 is not None and overwrite.ipv6 is not None:
        ipv6 = msgspec.structs.replace(ipv6, public_ip=overwrite.ipv6)
    return msgspec.structs.replace(lease, ipv4=ipv4, ipv6=ipv6)
