"""What looks like flannel's and is not provably ours: a Go flannel's, the CNI plugin's, somebody's own. Only named."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import msgspec

from .. import subnet_env
from ..firewall.chains import Line, foreign_in, is_empty, merged, networks_in
from ..firewall.iptables import IptablesTarget
from ..firewall.iptables_text import OUR_CHAINS, OurChain, SavedTable, parse_rule, spell
from ..firewall.nftables import NftablesTarget
from ..firewall.nftables_text import TABLES
from ..firewall.rules import MARKED, owner
from ..lease import FAMILIES, IPNetwork
from ..netlink import links, routes
from ..netlink.devices import link_names
from ..netlink.reader import dump
from ..netlink.socket import NetlinkSocket
from ..objects import BOOT_PROTOCOL, FLANNEL_PROTOCOL, MAIN_TABLE, Link, Object, Route
from ..ownership import Owned

DEVICES = re.compile(r"flannel\.\w+|flannel-v6\.\d+|flannel-wg(-v6)?|flannel\d+")
BRIDGE = "cni0"
"""Of the CNI plugin flannel, unless its configuration names another."""


class LookAlike(msgspec.Struct, frozen=True):
    """``what`` it is, in the words of its tool, ``why`` it is left, and the ``commands`` that remove it."""

    what: str
    why: str
    commands: tuple[str, ...]


def look_alikes(
    subnet_file: Path,
    ours: Owned,
    theirs: Owned,
    removed: Sequence[Object],
    iptables: IptablesTarget,
    nftables: NftablesTarget,
    *,
    is_recorded: bool,
) -> Iterator[LookAlike]:
    """All of it on this host. ``ours`` was on record, and ``removed`` is gone or would be; ``theirs`` belongs to
    flannelds at work here, and is passed over. The two targets have just been read."""
    env, _ = subnet_env.read(subnet_file)
    networks = ours.networks.union(map(str, env.networks) if env else ())
    gone = {item.identity for item in removed}
    yield from _in_the_kernel(gone, [ip_network(network) for network in networks - theirs.networks], theirs)
    cleared = ours.networks if is_recorded else frozenset()
    yield from _chains(iptables, cleared, theirs.networks, was_swept=is_recorded)
    yield from _tables(nftables, cleared, theirs.networks, was_swept=is_recorded)
    if not is_recorded and subnet_file.exists():
        why = "no record beside it says that an agent of ours wrote it"
        yield LookAlike(str(subnet_file), why, (f"rm {subnet_file}",))


# --- devices and routes ----------------------------------------------------------------------------------------------


def _in_the_kernel(gone: set[tuple[object, ...]], networks: Sequence[IPNetwork], theirs: Owned) -> Iterator[LookAlike]:
    with NetlinkSocket() as kernel:
        names = link_names(kernel.dump(links.dump()))
        found = sorted(name for name in names.values() if (Link.kind, name) not in gone | _links(theirs))
        devices = [name for name in found if DEVICES.fullmatch(name)]
        for name in devices:
            yield LookAlike(f"device {name}", "it is on no record here; a Go flannel's?", (f"ip link del {name}",))
        if BRIDGE in found:
            why = "the CNI plugin's bridge; containers that still run lose their network with it"
            yield LookAlike(f"device {BRIDGE}", why, (f"ip link del {BRIDGE}",))
        away = {*devices, *theirs.devices, *(str(identity[1]) for identity in gone if identity[0] == Link.kind)}
        for family in FAMILIES:
            for message in dump(kernel, routes.dump(family, table=MAIN_TABLE)):
                row = routes.decode(message, names)
                if row is None or row.route.identity in gone or row.route.device in away:
                    continue
                if reason := _why_a_route(row.route, networks, [ip_network(network) for network in theirs.networks]):
                    tool = "ip -6 route" if family == 6 else "ip route"
                    yield LookAlike(row.route.describe(), reason, (f"{tool} del {routes.describe(row.route)}",))


def _links(theirs: Owned) -> set[tuple[object, ...]]:
    return {(Link.kind, name) for name in theirs.devices}


def _why_a_route(route: Route, networks: Sequence[IPNetwork], theirs: Sequence[IPNetwork]) -> str | None:
    destination = ip_network(route.destination)
    if _lies_in(destination, theirs):
        return None
    if route.protocol == FLANNEL_PROTOCOL:
        return f"it has our protocol number {FLANNEL_PROTOCOL}, but leads into no network on record here"
    if route.protocol == BOOT_PROTOCOL and destination not in networks and _lies_in(destination, networks):
        return "it leads to a subnet of the network, but was not made by us; a Go flannel's?"
    return None


def _lies_in(destination: IPNetwork, networks: Collection[IPNetwork]) -> bool:
    return any(destination.version == n.version and destination.subnet_of(n) for n in networks)  # type: ignore[arg-type]


# --- traffic rules ---------------------------------------------------------------------------------------------------


def _chains(
    iptables: IptablesTarget, cleared: Collection[str], theirs: Collection[str], *, was_swept: bool
) -> Iterator[LookAlike]:
    for program, tables in iptables.saved.items():
        for name, ours in OUR_CHAINS.items():
            table = tables.get(name)
            if table is None or ours.name not in table.chains:
                continue
            chain = [parse_rule(rule) for rule in table.chains[ours.name]]
            for network in cleared:
                chain = merged(chain, network, ())
            of_others = networks_in(chain).intersection(theirs)
            if (is_empty(chain) and was_swept) or (of_others and not _strangers(chain, of_others)):
                continue
            tool = f"{program} -t {name}"
            commands = (
                tuple(
                    f"{tool} -D {ours.name} {line if isinstance(line, str) else spell(line, ours.comment)}"
                    for line in _strangers(chain, of_others)
                )
                if of_others
                else _whole_chain(tool, table, ours)
            )
            yield LookAlike(f"{tool} chain {ours.name}", _whose(chain, of_others), commands)


def _whole_chain(tool: str, table: SavedTable, ours: OurChain) -> tuple[str, ...]:
    jumps = [rule for rule in table.chains.get(ours.hook, []) if rule.endswith(f"-j {ours.name}")]
    return (
        *(f"{tool} -D {ours.hook} {jump}" for jump in jumps),
        f"{tool} -F {ours.name}",
        f"{tool} -X {ours.name}",
    )


def _tables(
    nftables: NftablesTarget, cleared: Collection[str], theirs: Collection[str], *, was_swept: bool
) -> Iterator[LookAlike]:
    chains = [chain for table in nftables.tables.values() for chain in table.chains.values()]
    in_use = any(networks_in(chain).intersection(theirs) for chain in chains)
    for family, table in nftables.tables.items():
        lines: list[Line] = [line for chain in table.chains.values() for line in chain]
        lines += table.strangers
        for network in cleared:
            lines = merged(lines, network, ())
        of_others = networks_in(lines).intersection(theirs)
        name = f"{family} {TABLES[family]}"
        if is_empty(lines) and (was_swept or in_use):
            continue
        if of_others:
            if _strangers(lines, of_others):
                yield LookAlike(f"nft table {name}", _whose(lines, of_others), (f"nft -a list table {name}",))
            continue
        yield LookAlike(f"nft table {name}", _whose(lines, of_others), (f"nft delete table {name}",))


def _strangers(chain: Sequence[Line], of_others: Collection[str]) -> list[Line]:
    """The rules that are not of flannelds at work here."""
    return [line for line in chain if line != MARKED and (isinstance(line, str) or owner(line) not in of_others)]


def _whose(chain: Sequence[Line], of_others: Collection[str]) -> str:
    networks = sorted(networks_in(chain).difference(of_others))
    parts = [f"rules of {' and '.join(networks)}, which is on no record here"] if networks else []
    if foreign_in(chain):
        parts.append("something that no flannel made")
    return "it holds " + " and ".join(parts) if parts else "it is empty and on no record here"
