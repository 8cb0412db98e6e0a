"""Which of the things in the kernel are ours: rules only, nothing is read or written here."""

from __future__ import annotations

from ipaddress import ip_network

from ..objects import FLANNEL_PROTOCOL, MAIN_TABLE, FdbEntry, Neighbour, Route
from ..target import Scope
from .addresses import RT_SCOPE_LINK, AddressRow
from .message import address_bytes
from .routes import RTPROT_KERNEL, RTPROT_RA


class Ours:
    """The rules of a scope, compiled once because they are asked about every object that is read or notified."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.heeded = scope.devices | scope.external
        """The devices whose links and addresses matter."""
        self._networks = [
            (len(network.network_address.packed), network.max_prefixlen - network.prefixlen, network.prefixlen, network)
            for network in map(ip_network, scope.networks)
        ]

    def address(self, row: AddressRow, device: str) -> bool:
        """Of our own devices, those inside a Network, and IPv4's /32: those of a Network that is forgotten."""
        if device not in self.scope.devices or device in self.scope.external or row.scope == RT_SCOPE_LINK:
            return False
        if row.address.is_link_local:
            return False
        return self.inside(row.address.packed, row.prefixlen) or (row.address.version == 4 and row.prefixlen == 32)

    def neighbour(self, entry: Neighbour | FdbEntry) -> bool:
        """All of our own devices, but for what the kernel keeps there by itself. Whether it is permanent is the
        caller's question."""
        if entry.device not in self.scope.devices:
            return False
        return not isinstance(entry, FdbEntry) or _is_unicast(entry.mac)

    def route(self, route: Route) -> bool:
        """What anybody but the kernel put on our own devices, and what has our number and leads into a Network."""
        if route.device in self.scope.devices and route.table == MAIN_TABLE:
            return route.protocol not in (RTPROT_KERNEL, RTPROT_RA)
        if route.protocol != FLANNEL_PROTOCOL:
            return False
        address, _, length = route.destination.partition("/")
        return self.inside(address_bytes(address), int(length))

    def inside(self, address: bytes, prefixlen: int) -> bool:
        """True for a prefix that lies in one of the scope's networks."""
        value = int.from_bytes(address, "big")
        return any(
            len(address) == size
            and prefixlen >= length
            and value >> host_bits == int(network.network_address) >> host_bits
            for size, host_bits, length, network in self._networks
        )


def _is_unicast(mac: str) -> bool:
    """False for the all-zero default entry of a VXLAN device and for multicast."""
    return mac not in ("", "00:00:00:00:00:00") and not int(mac[:2], 16) & 1
