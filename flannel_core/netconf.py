"""net-conf.json -> NetworkConfig."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import msgspec

from .lease import Family, IPAddress, IPNetwork


class Space(msgspec.Struct, frozen=True):
    """One family's address space: hosts get subnets of ``subnet_length`` out of ``network``, the first at
    ``subnet_min``, the last at ``subnet_max`` (both are the first address of a subnet)."""

    network: IPNetwork
    subnet_length: int
    subnet_min: IPAddress
    subnet_max: IPAddress

    @property
    def capacity(self) -> int:
        """How many subnets there are to lease."""
        step = 1 << (self.network.max_prefixlen - self.subnet_length)
        return max(0, (int(self.subnet_max) - int(self.subnet_min)) // step + 1)


class NetworkConfig(msgspec.Struct, frozen=True):
    """A valid net-conf.json. A family that is switched off is None; at least one is not.

    ``backend_type`` is in lower case; ``backend`` holds the other keys of "Backend" as they were written (nulls
    dropped), for ``backend_options``.
    """

    ipv4: Space | None
    ipv6: Space | None
    backend_type: str
    backend: Mapping[str, Any]
    enable_nftables: bool = False

    def space(self, family: Family) -> Space | None:
        return self.ipv4 if family == 4 else self.ipv6

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(s.network for s in (self.ipv4, self.ipv6) if s is not None)
