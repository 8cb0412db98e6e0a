"""subnet.env as the CNI plugin reads it: what flanneld has leased for this host. Pure.

Not the core's reading of the same file: Go's plugin takes each line as it stands (no quotes, no blanks around a value),
lets a network be a list, and names what is missing.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import NamedTuple

from flannel_core.printable import printable

LARGEST_MTU = 2**32 - 1
_NETWORKS = ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")
_SUBNETS = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET")

Network = IPv4Network | IPv6Network


class SubnetEnv(NamedTuple):
    """The cluster's networks and this host's subnets (IPv4 first), the containers' MTU in bytes, and whether flannel
    masquerades what leaves the network."""

    networks: tuple[Network, ...]
    subnets: tuple[Network, ...]
    mtu: int
    ip_masq: bool


def parse(text: bytes, path: str) -> SubnetEnv:
    """Raises ValueError naming ``path`` and the key that is missing or does not say what it should."""
    values = {}
    for line in text.decode(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if key in (*_NETWORKS, *_SUBNETS, "FLANNEL_MTU", "FLANNEL_IPMASQ"):
            if not equals:
                raise ValueError(f"{path}: {key} has no value")
            values[key] = value
    networks = [_network(path, key, item) for key in _NETWORKS if key in values for item in values[key].split(",")]
    subnets = [_network(path, key, values[key]) for key in _SUBNETS if key in values]
    missing = [*(() if networks else _NETWORKS), *(() if subnets else _SUBNETS)]
    missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if key not in values]
    if missing:
        raise ValueError(f"{path} is missing {', '.join(missing)}")
    mtu = values["FLANNEL_MTU"]
    if not (mtu.isascii() and mtu.isdecimal()) or len(mtu) > 10 or int(mtu) > LARGEST_MTU:
        raise ValueError(f"{path}: FLANNEL_MTU is no number of bytes: '{printable(mtu)}'")
    return SubnetEnv(tuple(dict.fromkeys(networks)), tuple(subnets), int(mtu), values["FLANNEL_IPMASQ"] == "true")


def _network(path: str, key: str, text: str) -> Network:
    """The network around an address with a prefix length."""
    _, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdecimal()) or "%" in text:
            raise ValueError
        return ip_interface(text).network
    except ValueError:
        raise ValueError(f"{path}: {key} is no address with a prefix length: '{printable(text)}'") from None
