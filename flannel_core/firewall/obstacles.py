"""What else on this host drops the packets that it should forward for the network, and the command that opens it. Pure.

Accepting a packet in flannel's chain saves it from what comes later in the same table, and from nothing else: every
table, every program's, has its own say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network

import msgspec

from ..lease import IPNetwork
from .iptables_text import SavedTable
from .nftables_text import TABLES
from .rules import IPTABLES, NFT_FAMILIES

FIREWALLD = "firewalld"
"""The table of firewalld, in the family inet."""
_FIREWALLD_CHAIN = re.compile(r"FORWARD_(direct|IN_ZONES|ZONES|POLICIES_pre)")
"""What firewalld makes where it uses iptables."""


def iptables_obstacle(program: str, table: SavedTable, network: IPNetwork) -> str | None:
    """A sentence on what in ``program``'s table filter drops packets of ``network``; None if they pass."""
    culprit = _Walk(table, network).culprit()
    if culprit is None:
        return None
    if any(chain.startswith("ufw-") for chain in table.chains):
        command = f"ufw route allow from {network} && ufw route allow to {network}"
    elif any(_FIREWALLD_CHAIN.match(chain) for chain in table.chains):
        command = _firewalld(network)
    else:
        command = _iptables(program, network)
    return _sentence(f"{program} -t filter: {culprit}", network, command)


class ForwardChain(msgspec.Struct, frozen=True):
    """A chain of nft that sees every forwarded packet, not flannel's. ``rules`` are the lines that ``listed_by``, a
    command of nft, tells of its table."""

    family: str
    table: str
    name: str
    drops: bool
    rules: tuple[str, ...] = ()

    @property
    def is_of_iptables(self) -> bool:
        """True for the one that iptables' nft variant keeps."""
        return self.family in NFT_FAMILIES.values() and (self.table, self.name) == ("filter", "FORWARD")

    @property
    def listed_by(self) -> str:
        """Where something may be accepted in another chain of the table, all of it; it can be long."""
        if self.drops or self.table == FIREWALLD:
            return f"list table {self.family} {self.table}"
        return f"list chain {self.family} {self.table} {self.name}"

    def with_rules(self, text: str) -> ForwardChain:
        """With its rules out of what nft printed."""
        head = rf"^table {self.family} {re.escape(self.table)} \{{\n"
        blocks = re.findall(rf"{head}(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
        return msgspec.structs.replace(self, rules=tuple("".join(blocks).splitlines()))

    def obstacle(self, network: IPNetwork) -> str | None:
        """A sentence if it drops packets of ``network``."""
        family = NFT_FAMILIES[network.version]
        refusal = self._refusal()
        if self.family not in ("inet", family) or refusal is None or self._opened(family, network):
            return None
        place = f"nft table {self.family} {self.table}: chain {self.name} {refusal}"
        if self.table == FIREWALLD:
            return _sentence(place, network, _firewalld(network))
        if self.is_of_iptables:
            return _sentence(place, network, _iptables("iptables" if network.version == 4 else "ip6tables", network))
        insert = f"nft insert rule {self.family} {self.table} {self.name} {family}"
        return _sentence(place, network, f"{insert} saddr {network} accept && {insert} daddr {network} accept")

    def _refusal(self) -> str | None:
        if self.drops:
            return "has the policy drop"
        chain = "\n".join(self.rules).partition(f"\tchain {self.name} {{\n")[2].partition("\n\t}")[0]
        last = re.search(r"^\t\t(?:counter (?:packets \d+ bytes \d+ )?)?((?:drop|reject)\b.*)$", chain, re.MULTILINE)
        return f"ends in `{last[1]}`" if last else None

    def _opened(self, family: str, network: IPNetwork) -> bool:
        verdict = "" if self.table == FIREWALLD else r".*\baccept"  # a zone's source is accepted further on
        ends = set()
        for line in self.rules:
            for end, prefix in re.findall(rf"{family} ([sd]addr) ([0-9a-f.:/]+){verdict}", line):
                if _covers(prefix, network):
                    ends.add(end)
        return ends == {"saddr", "daddr"} or (self.table == FIREWALLD and "saddr" in ends)


def forward_chains(listed: str) -> list[ForwardChain]:
    """Of what ``nft list chains`` printed, those that see forwarded packets and are not flannel's."""
    chains = []
    table, name = ("", ""), ""
    for line in listed.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = (words[1], words[2])
        elif words[:1] == ["chain"]:
            name = words[1]
        elif "hook forward " in line and table[1] not in TABLES.values() and table[0] in ("inet", "ip", "ip6"):
            chains.append(ForwardChain(*table, name, "policy drop" in line))
    return chains


_ACCEPTING = re.compile(r'(-[sd]) (\S+) (?:-m comment --comment (?:"[^"]*"|\S+) )?-[jg] (\S+)')
_ALWAYS = re.compile(r'(?:-m comment --comment (?:"[^"]*"|\S+) )?-[jg] (\S+)(?: --reject-with \S+)?')


class _Walk:
    """A packet of ``network`` on its way through FORWARD, as far as it can be told from rules without conditions and
    those on the network itself."""

    def __init__(self, table: SavedTable, network: IPNetwork) -> None:
        self._table = table
        self._network = network
        self._accepted: set[str] = set()

    def culprit(self) -> str | None:
        """What drops it; None if nothing does."""
        for outcome in self._outcomes("FORWARD"):
            return outcome or None
        return "chain FORWARD has the policy DROP" if self._table.policies.get("FORWARD") == "DROP" else None

    def _outcomes(self, chain: str) -> Iterator[str]:
        """Yields how it ends, if it ends in ``chain``: "" accepted, else what drops it."""
        for rule in self._table.chains.get(chain, []):
            if (match := _ACCEPTING.fullmatch(rule)) and _covers(match[2], self._network):
                if match[3] == "ACCEPT" or "" in self._outcomes(match[3]):
                    self._accepted.add(match[1])
                if self._accepted == {"-s", "-d"}:
                    yield ""
            elif match := _ALWAYS.fullmatch(rule):
                target = match[1]
                if target == "RETURN":
                    return
                if target in ("DROP", "REJECT"):
                    yield f"chain {chain} has the rule `{rule}`"
                elif target == "ACCEPT":
                    yield ""
                else:
                    yield from self._outcomes(target)


def iptables_obstacles(saved: Mapping[str, Mapping[str, SavedTable]], networks: Sequence[IPNetwork]) -> Iterator[str]:
    """For each program that was asked."""
    for program, tables in saved.items():
        if "filter" not in tables or program.endswith("-nft"):  # nft shows those as well
            continue
        for network in networks:
            fits = program.startswith(IPTABLES[network.version])
            if fits and (sentence := iptables_obstacle(program, tables["filter"], network)):
                yield sentence


def _covers(prefix: str, network: IPNetwork) -> bool:
    try:
        other = ip_network(prefix)
    except ValueError:
        return False
    return other.version == network.version and network.subnet_of(other)  # type: ignore[arg-type]


def _firewalld(network: IPNetwork) -> str:
    return f"firewall-cmd --permanent --zone=trusted --add-source={network} && firewall-cmd --reload"


def _iptables(program: str, network: IPNetwork) -> str:
    insert = f"{program} -I FORWARD"
    return f"{insert} -s {network} -j ACCEPT && {insert} -d {network} -j ACCEPT"


def _sentence(place: str, network: IPNetwork, command: str) -> str:
    return f"{place}, which drops what this host forwards for {network}. To open it: `{command}`"
