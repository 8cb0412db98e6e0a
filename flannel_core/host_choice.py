"""Which interface and which addresses other hosts reach this one at: a pure choice from the kernel's tables.

docs/reference/interface-choice.md states the rules for users. They are those of Go flannel v0.28.9; where it crashes
or misreads there is an error that says what to write instead.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import msgspec

from .errors import FlannelError, UsageError
from .host import Host
from .lease import FAMILIES, Family, IPAddress
from .printable import printable

if TYPE_CHECKING:
    from .netlink.tables import AddressRow, LinkRow, RouteRow

IFA_F_TEMPORARY = 0x01
"""linux/if_addr.h: an IPv6 privacy address; on an IPv4 address the same bit is IFA_F_SECONDARY."""
IFA_F_DEPRECATED = 0x20
"""linux/if_addr.h: no new connection should use it."""
IFA_F_PERMANENT = 0x80
"""linux/if_addr.h: not from DHCP or a router advertisement, has no lifetime."""

BROADCAST = IPv4Address("255.255.255.255")
MANY_LINKS = 10
"""How many interfaces a message names before it only counts them."""
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
PUBLIC_OPTION: dict[Family, str] = {4: "--public-ip", 6: "--public-ipv6"}


class HostOptions(msgspec.Struct, frozen=True):
    """flanneld's options about this host, as they were written. "" and () are "not given"."""

    iface: tuple[str, ...] = ()
    iface_regex: tuple[str, ...] = ()
    iface_can_reach: str = ""
    public_ip: str = ""
    public_ipv6: str = ""

    def public(self, family: Family) -> IPAddress | None:
        """--public-ip or --public-ipv6 as an address, None where it is not given. Raises UsageError."""
        text = self.public_ip if family == 4 else self.public_ipv6
        if not text:
            return None
        address = parse_address(text)
        if address is None or address.version != family:
            raise UsageError(f"{PUBLIC_OPTION[family]} {printable(text)}: not an IPv{family} address")
        return address

    def reached_at(self, ipv4: IPAddress | None, ipv6: IPAddress | None) -> HostOptions:
        """These options, with the addresses that are given (not None) in place of --public-ip and --public-ipv6."""
        return HostOptions(
            self.iface,
            self.iface_regex,
            self.iface_can_reach,
            self.public_ip if ipv4 is None else str(ipv4),
            self.public_ipv6 if ipv6 is None else str(ipv6),
        )

    def can_reach(self) -> IPAddress | None:
        """--iface-can-reach as an address, None where it is not given. Raises UsageError."""
        if not self.iface_can_reach:
            return None
        address = parse_address(self.iface_can_reach)
        if address is None:
            raise UsageError(f"--iface-can-reach {printable(self.iface_can_reach)}: not an IP address")
        return address

    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """Every --iface-regex, compiled. Raises UsageError, also for what Go's syntax has and Python's reads
        otherwise (``[[:digit:]]``)."""
        compiled = []
        for text in self.iface_regex:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", FutureWarning)
                    compiled.append(re.compile(text))
            except (re.error, FutureWarning, RecursionError, OverflowError) as error:
                raise UsageError(
                    f"--iface-regex {printable(text)}: not a regular expression of Python's re: {error}"
                ) from error
        return tuple(compiled)

    def check(self) -> None:
        """Raise UsageError for the first option whose value can fit no host."""
        self.patterns()
        self.can_reach()
        for family in FAMILIES:
            self.public(family)


class Tables(msgspec.Struct, frozen=True):
    """The kernel's tables as one look at them showed them.

    ``routes`` are the main table's, both families, each in the kernel's order. ``reach`` is the kernel's answer for
    --iface-can-reach, None if that is not given or it has no route there.
    """

    links: Sequence[LinkRow] = ()
    addresses: Sequence[AddressRow] = ()
    routes: Sequence[RouteRow] = ()
    reach: RouteRow | None = None


class Choice(msgspec.Struct, frozen=True):
    """The external interface. An address is None exactly if its family is off or in ``lacks``, with why it has none;
    ``public`` is what peers are told.

    ``reason`` completes "eth0 because ..."; ``others`` are the interfaces that had addresses too: ``eth1 (10.0.0.5)``.
    """

    link: LinkRow
    ipv4: IPAddress | None
    ipv6: IPAddress | None
    public_ipv4: IPAddress | None
    public_ipv6: IPAddress | None
    reason: str
    others: tuple[str, ...]
    lacks: Mapping[Family, str] = {}


class _NoMatch(Exception):
    """One option fits nothing on this host; the next may."""


class _Match(msgspec.Struct, frozen=True):
    """What one option says: the link, the addresses it names (the others follow from the link), and why."""

    link: LinkRow
    reason: str
    named: tuple[IPAddress, ...] = ()


def choose(options: HostOptions, families: Sequence[Family], tables: Tables) -> Choice:
    """The external interface and its addresses in ``families`` (those that the network config has on): in all of them
    where any interface that fits has them all, else in the first that one has alone.

    Raises UsageError for an option that can fit no host, FlannelError naming option, value and the interfaces that
    there are if this host has no such interface, or the interface lacks an address.
    """
    options.check()
    chooser = _Chooser(options, families, tables)
    try:
        return chooser.choose()
    except _NoMatch as reason:
        refused = str(reason)
    for family, other in (families, families[::-1]) if len(families) > 1 else ():
        try:
            alone = _Chooser(options, (family,), tables).choose()
        except _NoMatch:
            continue
        return msgspec.structs.replace(alone, lacks={other: refused})
    there_are = ", ".join(chooser.described()) or "no interface with a global address"
    raise FlannelError(f"{refused}; this host has {there_are}")


def usable_addresses(link: LinkRow, family: Family, tables: Tables) -> list[IPAddress]:
    """The addresses of ``link`` that may be announced, the preferred one first: not deprecated, global before
    link-local, permanent before dynamic, primary and non-temporary before the rest, else in the kernel's order. An
    IPv6 link-local one is none: no peer can reach it without knowing through which of its own interfaces."""
    rows = [
        row
        for row in tables.addresses
        if row.index == link.index
        and row.address.version == family
        and not row.flags & IFA_F_DEPRECATED
        and is_unicast(row.address)
        and not (family == 6 and row.address.is_link_local)
    ]
    rows.sort(
        key=lambda row: (
            row.address.is_link_local,
            not row.flags & IFA_F_PERMANENT,
            bool(row.flags & IFA_F_TEMPORARY),
        )
    )
    return [row.address for row in rows]


def is_unicast(address: IPAddress) -> bool:
    """True for what a host can be reached at from another one, private and link-local addresses included."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address == ip_address("255.255.255.255")
    )


def parse_address(text: str) -> IPAddress | None:
    """``text`` as an address, None if it is none. ``::ffff:192.0.2.1`` is 192.0.2.1, as in Go; a zone is refused."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def sentence(host: Host) -> str:
    """The log line about the choice. It begins as Go flannel's does, which people search their logs for."""
    own = " and ".join(
        f"{word} {address}" for word, address in (("address", host.ipv4), ("v6 address", host.ipv6)) if address
    )
    told = [
        str(public) for public in (host.public_ipv4, host.public_ipv6) if public not in (None, host.ipv4, host.ipv6)
    ]
    public = f", announced as {' and '.join(told)}" if told else ""
    others = f"; others: {', '.join(host.others)}" if host.others else ""
    return f"Using interface with name {host.interface} and {own}{public}, because {host.reason}{others}"


class _Chooser:
    """The rules. Each ``by_...`` returns a match or raises _NoMatch."""

    def __init__(self, options: HostOptions, families: Sequence[Family], tables: Tables) -> None:
        self.options, self.families, self.tables = options, families, tables
        self.links = sorted(tables.links, key=lambda link: link.index)
        self.public = {family: options.public(family) for family in families}

    def choose(self) -> Choice:
        """The first attempt that succeeds. Raises _NoMatch with why none does."""
        refused = []
        for attempt in self.attempts():
            try:
                return self.complete(attempt())
            except _NoMatch as reason:
                refused.append(str(reason))
        raise _NoMatch("; ".join(refused))

    def attempts(self) -> Iterator[Callable[[], _Match]]:
        """What to try, in order: every --iface, every --iface-regex, --iface-can-reach; without any of them the
        holder of the public address, else the default route. An empty value is the default route, as in Go."""
        options = self.options
        for value in options.iface:
            yield partial(self.by_iface, value)
        for pattern in options.patterns():
            yield partial(self.by_regex, pattern)
        if options.iface_can_reach:
            yield self.by_reach
        elif not options.iface and not options.iface_regex:
            yield self.by_public_address if any(self.public.values()) else self.by_default_route

    def by_iface(self, value: str) -> _Match:
        if not value:
            return self.by_default_route()
        option = f"--iface {printable(value)}"
        address = parse_address(value)
        if address is not None:
            return self.by_address(address, option, f"{option} is its address")
        for link in self.links:
            if link.name == value:
                return _Match(link, option)
        raise _NoMatch(f"{option}: no such interface or address")

    def by_address(self, address: IPAddress, option: str, reason: str) -> _Match:
        """The link that holds ``address``. In dual stack --public-ipv6 then has to be an address of it too."""
        if address.version not in self.families:
            raise _NoMatch(f"{option}: the network config has IPv{address.version} off")
        link = self.holder(address)
        if link is None:
            raise _NoMatch(f"{option}: no interface has this address")
        second = self.public.get(6) if 4 in self.families else None
        if second is None:
            return _Match(link, reason, (address,))
        other = self.holder(second)
        if other is None or other.index != link.index:
            where = f"on {other.name}" if other else "on no interface"
            raise _NoMatch(
                f"{option} is an address of {link.name}, but --public-ipv6 {second} is {where}: "
                f"both have to be on one interface; name it (--iface {link.name}) if one is translated elsewhere"
            )
        return _Match(link, reason, (second, address))

    def by_public_address(self) -> _Match:
        family = next(family for family in self.families if self.public[family])
        address = self.public[family]
        assert address is not None
        option = f"{PUBLIC_OPTION[family]} {address}"
        if self.holder(address) is None:
            raise _NoMatch(f"{option}: no interface has this address; say with --iface which one it is translated to")
        return self.by_address(address, option, f"it has the address of {option}")

    def by_regex(self, pattern: re.Pattern[str]) -> _Match:
        if not pattern.pattern:
            return self.by_default_route()
        option = f"--iface-regex {printable(pattern.pattern)}"
        for link in self.links:
            matched = [
                next((a for a in usable_addresses(link, family, self.tables) if pattern.search(str(a))), None)
                for family in self.families
            ]
            named = tuple(address for address in matched if address is not None)
            if len(named) == len(self.families):
                return _Match(link, f"{option} matches {' and '.join(map(str, named))}", named)
        for link in self.links:
            if pattern.search(link.name):
                return _Match(link, f"{option} matches its name")
        both = " (an IPv4 and an IPv6 address of one interface, as both families are on)"
        raise _NoMatch(f"{option}: matches no address{both if len(self.families) == 2 else ''} and no name")

    def by_reach(self) -> _Match:
        option = f"--iface-can-reach {self.options.iface_can_reach}"
        reach = self.tables.reach
        if reach is None:
            raise _NoMatch(f"{option}: the kernel has no route to it")
        target = self.options.can_reach()
        assert target is not None
        # The way to an address of our own is lo, which no peer can use: take the link that holds it.
        link = self.holder(target) or self.at(reach.index)
        if link is None:
            raise _NoMatch(f"{option}: its route has no interface")
        source = parse_address(reach.route.source) if reach.route.source else None
        return _Match(link, f"{option} is reached through it", (source,) if source else ())

    def by_default_route(self) -> _Match:
        links = {family: self.default_link(family) for family in self.families}
        first, last = links[self.families[0]], links[self.families[-1]]
        if first.index != last.index:
            raise _NoMatch(
                f"the IPv4 default route is on {first.name}, the IPv6 one on {last.name}: both have to be on one "
                f"interface, or one has to be named with --iface"
            )
        return _Match(first, "the default route is on it")

    def default_link(self, family: Family) -> LinkRow:
        for row in self.tables.routes:
            if row.route.destination != DEFAULT[family] or row.route.type != "unicast":
                continue
            if row.route.nexthops > 1:
                raise _NoMatch(f"the IPv{family} default route has several next hops; name an interface with --iface")
            link = self.at(row.index)
            if link is None:
                raise _NoMatch(f"the IPv{family} default route has no interface; name one with --iface")
            return link
        raise _NoMatch(f"there is no IPv{family} default route in the main table; name an interface with --iface")

    def complete(self, match: _Match) -> Choice:
        """The match with an address of each family. Raises _NoMatch if the link lacks one."""
        link = match.link
        own: dict[Family, IPAddress | None] = {4: None, 6: None}
        for family in self.families:
            named = (address for address in match.named if address.version == family)
            own[family] = next(named, None) or next(iter(usable_addresses(link, family, self.tables)), None)
            if own[family] is None:
                raise _NoMatch(f"{link.name} ({match.reason}) has no usable IPv{family} address")
        if link.mtu == 0:
            raise _NoMatch(f"{link.name} ({match.reason}) has no MTU")
        public = {family: self.public.get(family) or own[family] for family in FAMILIES}
        return Choice(link, own[4], own[6], public[4], public[6], match.reason, tuple(self.described(link)))

    def holder(self, address: IPAddress) -> LinkRow | None:
        """The first link by index that has exactly this address, usable or not."""
        holders = {row.index for row in self.tables.addresses if row.address == address}
        return next((link for link in self.links if link.index in holders), None)

    def at(self, index: int) -> LinkRow | None:
        return next((link for link in self.links if link.index == index), None)

    def described(self, without: LinkRow | None = None) -> list[str]:
        """Each link that has a global address, with those addresses: ``eth0 (192.0.2.11, fc00::11)``. A host full of
        containers has hundreds of links, most with nothing but a link-local address, and no reader for them all."""
        found: dict[int, list[str]] = {}
        for row in self.tables.addresses:
            if is_unicast(row.address) and not row.address.is_link_local and not row.flags & IFA_F_DEPRECATED:
                found.setdefault(row.index, []).append(str(row.address))
        links = [link for link in self.links if link.index in found and link is not without]
        shown = [f"{link.name} ({', '.join(found[link.index])})" for link in links[:MANY_LINKS]]
        return [*shown, f"{len(links) - MANY_LINKS} more"] if len(links) > MANY_LINKS else shown
