"""Whether a lease can be trusted, judged by itself: what admission asks before it compares leases."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import msgspec

from .backend import Backend
from .lease import FAMILIES, Endpoint, Family, IPNetwork, Lease
from .netconf import NetworkConfig
from .printable import printable

_BAD_ADDRESSES: dict[Family, tuple[tuple[IPNetwork, str], ...]] = {
    4: (
        (IPv4Network("0.0.0.0/32"), "unspecified"),
        (IPv4Network("127.0.0.0/8"), "a loopback address"),
        (IPv4Network("169.254.0.0/16"), "link-local"),
        (IPv4Network("224.0.0.0/4"), "a multicast address"),
        (IPv4Network("255.255.255.255/32"), "the broadcast address"),
    ),
    6: (
        (IPv6Network("::/128"), "unspecified"),
        (IPv6Network("::1/128"), "the loopback address"),
        (IPv6Network("::ffff:0:0/96"), "an IPv4 address"),
        (IPv6Network("fe80::/10"), "link-local"),
        (IPv6Network("ff00::/8"), "a multicast address"),
    ),
}
"""Addresses that no host is reached at (RFC 6890, RFC 4291)."""
_DATA_KEYS: dict[Family, str] = {4: "BackendData", 6: "BackendV6Data"}
_ADDRESS_KEYS: dict[Family, str] = {4: "PublicIP", 6: "PublicIPv6"}


class Refusal(Exception):
    """``str(error)`` says why, on one line that is safe to print."""


class PeerRules:
    """The rules of one configuration and one backend."""

    def __init__(self, config: NetworkConfig, backend: Backend[Any, Any]) -> None:
        self._config = config
        self._backend = backend
        self._decode: Callable[[bytes], Any] | None = None
        if backend.Data is not None:
            self._decode = msgspec.json.Decoder(backend.Data).decode
        self._bad_addresses = {
            family: [(*_ends(network), what) for network, what in self._inside_or_bad(family)] for family in FAMILIES
        }
        """The first and the last address of each block as numbers, and what it is."""

    def families(self, lease: Lease) -> tuple[Family, ...]:
        """The families of ``lease`` that are on here and that its host can be reached in. Raises Refusal if there is
        none, or if its type is not ours."""
        reached: Collection[Endpoint] = lease.endpoints
        if len(reached) > 1:
            reached = [e for e in reached if not e.leads_nowhere]
        if not reached:
            raise Refusal("its host can be reached in no family just now, as it says itself")
        families = tuple([f for f in FAMILIES if lease.endpoint(f) in reached and self._config.space(f) is not None])
        if not families:
            raise Refusal(
                f"it has {' and '.join(f'IPv{e.subnet.version}' for e in lease.endpoints)} only, which is off"
            )
        if lease.backend_type not in self._backend.accepts:
            raise Refusal(
                f"its BackendType is '{printable(lease.backend_type, 40)}', and the backend here, "
                f"{self._config.backend_type}, forwards to {_listed(self._backend)} only"
            )
        return families

    def judge(self, lease: Lease, family: Family) -> tuple[Lease, tuple[object, ...]]:
        """``lease`` with that family alone and its data decoded, and the identities that it claims. Raises Refusal."""
        endpoint, space = lease.endpoint(family), self._config.space(family)
        if endpoint is None or space is None:
            raise ValueError(f"IPv{family} is none of families()")
        if not _is_part(endpoint.subnet, space.network):
            raise Refusal(f"its subnet {endpoint.subnet} is not a part of {space.network}, the Network")
        address = int(endpoint.public_ip)
        for first, last, what in self._bad_addresses[family]:
            if first <= address <= last:
                raise Refusal(f"its {_ADDRESS_KEYS[family]} {endpoint.public_ip} is {what}")
        only = self._decoded(lease, family)
        try:
            reason = self._backend.refusal(only)
            identities = tuple(dict.fromkeys(self._backend.identities(only)))
        except Exception as error:  # a backend that trips over one peer's data harms no other peer
            reason = f"the backend failed on its {_DATA_KEYS[family]}: {error}"
        if reason is not None:
            raise Refusal(printable(reason, 300))
        return only, identities

    def own_identities(self, lease: Lease, family: Family) -> tuple[object, ...]:
        """What our own lease claims in a family that it has; its data may be decoded already."""
        try:
            return tuple(dict.fromkeys(self._backend.identities(self._decoded(lease, family))))
        except Refusal:  # written by an earlier run with another backend
            return ()

    def _decoded(self, lease: Lease, family: Family) -> Lease:
        """``lease`` with that family alone, its data as the backend's Data. Raises Refusal if it does not fit."""
        endpoint = lease.endpoint(family)
        assert endpoint is not None
        only = Endpoint(endpoint.subnet, endpoint.public_ip, self._decoded_data(endpoint.data, family))
        ipv4, ipv6 = (only, None) if family == 4 else (None, only)
        return Lease(lease.key, lease.backend_type, ipv4, ipv6, lease.created, lease.revision, lease.expires)

    def _decoded_data(self, data: Any, family: Family) -> Any:
        if self._decode is None:
            return None
        if data is not None and not isinstance(data, bytes):
            return data
        try:
            return self._decode(b"null" if data is None else data)
        except RecursionError:
            reason = "is nested too deep"
        except ValueError as error:
            reason = "is missing" if data is None else f"{printable(data)} does not fit: {printable(str(error), 120)}"
        raise Refusal(f"its {_DATA_KEYS[family]} {reason}")

    def _inside_or_bad(self, family: Family) -> tuple[tuple[IPNetwork, str], ...]:
        space = self._config.space(family)
        inside = () if space is None else ((space.network, f"inside {space.network}, the Network itself"),)
        return _BAD_ADDRESSES[family] + inside


def _ends(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _is_part(subnet: IPNetwork, network: IPNetwork) -> bool:
    return subnet.prefixlen > network.prefixlen and subnet.network_address in network


def _listed(backend: Backend[Any, Any]) -> str:
    return " and ".join(sorted(f"'{name}'" for name in backend.accepts)) or "none"
