"""Which host a pod's address is on. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

REMEMBERED = 1 << 16
"""Addresses that were looked up lately: more than that many pods talk to a host at no time."""


class PeerTable:
    """Subnets and the public addresses of the hosts that have them. The longest prefix counts."""

    def __init__(self) -> None:
        self.peers: dict[str, str] = {}
        """Subnet -> address, as text: 10.5.3.0/24 -> 192.0.2.3."""
        self._by_mask: dict[int, dict[int, str]] = {}
        """Netmask -> network -> address, the longest mask first."""
        self._found: dict[bytes, str] = {}

    def put(self, subnet: str, address: str) -> None:
        """Raises ValueError for text that is no subnet or no address, and changes nothing then."""
        network = IPv4Network(subnet)
        IPv4Address(address)
        mask = int(network.netmask)
        if mask not in self._by_mask:
            self._by_mask = dict(sorted({**self._by_mask, mask: {}}.items(), reverse=True))
        self._by_mask[mask][int(network.network_address)] = address
        self.peers[subnet] = address
        self._found.clear()

    def remove(self, subnet: str) -> None:
        """What is not there is passed over."""
        if self.peers.pop(subnet, None) is not None:
            network = IPv4Network(subnet)
            del self._by_mask[int(network.netmask)][int(network.network_address)]
            self._found.clear()

    def find(self, address: bytes) -> str | None:
        """The public address of the host that ``address`` (4 bytes) is on."""
        return self._found.get(address) or self._look_up(address)

    def _look_up(self, address: bytes) -> str | None:
        number = int.from_bytes(address, "big")
        for mask, networks in self._by_mask.items():
            host = networks.get(number & mask)
            if host is not None:
                if len(self._found) >= REMEMBERED:
                    self._found.clear()
                self._found[address] = host
                return host
        return None
