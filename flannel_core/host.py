"""This host as values: the external interface, its addresses and MTU, the devices there are."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .lease import FAMILIES, Family, IPAddress, IPNetwork, Lease
from .objects import Link


class Host(msgspec.Struct, frozen=True):
    """What the backends may know of this host.

    ``interface`` is the external interface's name, ``mtu`` its MTU in bytes, ``mac`` its address. ``ipv4`` and ``ipv6``
    are its own addresses (None: it has none, or the family is off), ``public_ipv4`` and ``public_ipv6`` what peers
    reach this host at (--public-ip, else the same). ``connected`` are the networks on-link at any device, with the
    device. ``links`` are all devices by name. ``reason`` says why this interface was chosen, ``others`` which others
    there were. ``kernel`` is the release of the running one, (6, 18), None if it is not known. ``advertised`` are the
    devices that a route by IPv6 router advertisement leaves through. ``lacks`` says of a family that is on why it
    cannot be used here; its addresses are None, or the last ones that there were.
    """

    interface: str
    index: int
    mtu: int
    mac: str
    ipv4: IPAddress | None = None
    ipv6: IPAddress | None = None
    public_ipv4: IPAddress | None = None
    public_ipv6: IPAddress | None = None
    connected: tuple[tuple[IPNetwork, str], ...] = ()
    links: Mapping[str, Link] = {}
    addresses: tuple[IPAddress, ...] = ()
    reason: str = ""
    others: tuple[str, ...] = ()
    kernel: tuple[int, int] | None = None
    advertised: tuple[str, ...] = ()
    lacks: Mapping[Family, str] = {}

    def ip(self, family: Family) -> IPAddress | None:
        """The external interface's own address of one family."""
        return self.ipv4 if family == 4 else self.ipv6

    def public_ip(self, family: Family) -> IPAddress | None:
        """The address of one family that peers reach this host at."""
        return self.public_ipv4 if family == 4 else self.public_ipv6

    @property
    def families(self) -> tuple[Family, ...]:
        """Those that peers can be told an address of."""
        return tuple(family for family in FAMILIES if self.public_ip(family) is not None)

    def without(self, family: Family, why: str) -> Host:
        """This host as one that ``family`` cannot be used on."""
        lacks = {**self.lacks, family: why}
        if family == 4:
            return msgspec.structs.replace(self, ipv4=None, public_ipv4=None, lacks=lacks)
        return msgspec.structs.replace(self, ipv6=None, public_ipv6=None, lacks=lacks)

    def keeping(self, last: Host | Lease | None) -> Host:
        """This host with the addresses that it had ``last``, or was announced with, in each family that it lacks."""
        ipv4, ipv6, public_ipv4, public_ipv6 = self.ipv4, self.ipv6, self.public_ipv4, self.public_ipv6
        if 4 in self.lacks:
            ipv4, public_ipv4 = _addresses(last, 4)
        if 6 in self.lacks:
            ipv6, public_ipv6 = _addresses(last, 6)
        return msgspec.structs.replace(self, ipv4=ipv4, ipv6=ipv6, public_ipv4=public_ipv4, public_ipv6=public_ipv6)

    def is_translated(self, family: Family) -> bool:
        """True if the address that peers reach this host at is none of its own: something on the way rewrites it."""
        public = self.public_ip(family)
        return public not in (None, self.ip(family), *self.addresses)

    def on_link(self, address: IPAddress) -> str | None:
        """The device through which ``address`` is reached without a gateway, by longest prefix; None: there is none."""
        best: tuple[int, str] | None = None
        for network, device in self.connected:
            if (
                network.version == address.version
                and address in network
                and (best is None or network.prefixlen > best[0])
            ):
                best = (network.prefixlen, device)
        return best[1] if best else None


def _addresses(last: Host | Lease | None, family: Family) -> tuple[IPAddress | None, IPAddress | None]:
    """Its own one and the one that peers were told."""
    if isinstance(last, Host):
        return last.ip(family), last.public_ip(family)
    endpoint = None if last is None else last.endpoint(family)
    if endpoint is None or endpoint.public_ip.is_unspecified or endpoint.leads_nowhere:
        return None, None
    return endpoint.public_ip, endpoint.public_ip
