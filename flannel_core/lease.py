"""Leases: which host holds which subnet. What every store yields and every backend plans from.

Values only. How a lease looks as a key and as JSON in a store that Go flannel reads is in ``lease_json.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal, TypeAlias

import msgspec

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
Family: TypeAlias = Literal[4, 6]

FAMILIES: tuple[Family, Family] = (4, 6)
NOWHERE: dict[Family, IPAddress] = {4: IPv4Address("192.0.0.8"), 6: IPv6Address("100::1")}
"""What a lease of both families tells for one in which its host cannot be reached: the IPv4 dummy address (RFC 7600)
and one of the discard-only block (RFC 6666). Go nodes crash on a lease that lacks a family or an address."""


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One family of a lease: the subnet, the address that the host is reached at, and the backend's data.

    ``data`` is the JSON of BackendData (BackendV6Data) as raw ``bytes``, or None where it is left out, as long as the
    lease comes from a store. In a lease that admission let through it is the backend's own ``Data`` type instead.
    """

    subnet: IPNetwork
    public_ip: IPAddress
    data: Any = None

    @property
    def leads_nowhere(self) -> bool:
        """True if its host cannot be reached in this family just now, see ``NOWHERE``."""
        return self.public_ip == NOWHERE[4 if self.public_ip.version == 4 else 6]


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A subnet held by a host, in one family or both.

    ``key`` names the lease in its store (``10.5.43.0-24``, ``10.5.43.0-24&fc00::-64``; a node's name in Kubernetes).
    ``created`` orders leases by age and, with the key, tells one holder from the next; ``revision`` is the store's
    revision of this very value. ``expires`` is Unix time in seconds; None where it never does (a reservation, or a
    store without expiry).
    """

    key: str
    backend_type: str = ""
    ipv4: Endpoint | None = None
    ipv6: Endpoint | None = None
    created: int = 0
    revision: int = 0
    expires: float | None = None

    def endpoint(self, family: Family) -> Endpoint | None:
        return self.ipv4 if family == 4 else self.ipv6

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that this lease has, IPv4 first."""
        if self.ipv6 is None:
            return () if self.ipv4 is None else (self.ipv4,)
        return (self.ipv6,) if self.ipv4 is None else (self.ipv4, self.ipv6)

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        return tuple(e.subnet for e in self.endpoints)

    def only(self, families: Collection[Family]) -> Lease:
        """This lease without its endpoints of other families."""
        ipv4, ipv6 = (self.endpoint(family) if family in families else None for family in FAMILIES)
        return msgspec.structs.replace(self, ipv4=ipv4, ipv6=ipv6)

    def continues(self, before: Lease) -> bool:
        """True if this is ``before`` as it is now: of the same creation, its host reached at the same addresses, a
        reservation if it was one."""
        return (self.key, self.created, self.expires is None) == (
            before.key,
            before.created,
            before.expires is None,
        ) and [e.public_ip for e in self.endpoints] == [e.public_ip for e in before.endpoints]


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """An entry in the store that is no lease. It is shown in the status and harms nobody.

    ``reason`` says what is wrong with it; text that came from the store is already escaped and cut in it.
    """

    key: str
    reason: str
    revision: int = 0
