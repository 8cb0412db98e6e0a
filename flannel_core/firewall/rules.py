"""Which rules a host needs, as values. Their text for iptables and nft is in ``iptables_text`` and ``nftables_text``.

What both tools print for them is exactly what Go flannel leaves behind; only ``--ip-masq-exclude`` adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import ClassVar, Literal

import msgspec

from ..lease import FAMILIES, IPNetwork, Lease
from ..netconf import NetworkConfig
from ..objects import Identity, Object

Verdict = Literal["return", "accept", "masquerade", "masquerade fully-random"]
Table = Literal["nat", "filter"]
NftFamily = Literal["ip", "ip6"]

MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
NFT_FAMILIES: dict[int, NftFamily] = {4: "ip", 6: "ip6"}
IPTABLES = {4: "iptables", 6: "ip6tables"}
"""The program of each family, as the host has it: of the legacy or the nft variant."""


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One rule of ours, or of another flannel. Prefixes are canonical text (``10.5.0.0/16``), "" matches any address;
    ``marked`` matches kube-proxy's mark. ``excepts`` names the network whose masquerading the rule is an exception of
    (--ip-masq-exclude)."""

    verdict: Verdict
    source: str = ""
    destination: str = ""
    not_source: bool = False
    not_destination: bool = False
    marked: bool = False
    excepts: str = ""


def rule_found(verdict: Verdict, match: re.Match[str]) -> Rule:
    """The rule whose parts a tool's pattern has found under the names of Rule's fields. Raises ValueError for a prefix
    that is none (``10.0.0.0/255.0.255.0``)."""
    source, destination = (str(ip_network(match[side])) if match[side] else "" for side in ("source", "destination"))
    return Rule(
        verdict,
        source,
        destination,
        not_source=bool(match["not_source"]),
        not_destination=bool(match["not_destination"]),
        marked=bool(match["marked"]),
        excepts=match["excepts"] or "",
    )


MARKED = Rule("return", marked=True)
"""kube-proxy masquerades what it marked, and some kernels break what is translated twice. All networks share it."""


class RuleOptions(msgspec.Struct, frozen=True):
    """What decides beside the network configuration. ``excludes`` are destinations and sources that are never
    masqueraded (--ip-masq-exclude), of both families."""

    masquerade: bool = False
    forward: bool = True
    random_fully: bool = True
    excludes: tuple[IPNetwork, ...] = ()


class IptablesRules(Object, frozen=True, gc=False):
    """The rules of ``network`` in our chain of ``table``, and the jump there: one unit, because their order counts.

    ``program`` is ``iptables`` or ``ip6tables``; ``iptables-legacy`` and the like for what is left over in the variant
    that the host does not use. ``network`` "" is a chain of ours that holds nobody's rules. ``jumped_to`` False, never
    wanted: the jump is missing, doubled, or not where it was put.
    """

    kind: ClassVar[str] = "iptables"

    program: str
    table: Table
    network: str
    rules: tuple[Rule, ...]
    jumped_to: bool = True

    @property
    def identity(self) -> Identity:
        return (self.kind, self.program, self.table, self.network)

    def describe(self) -> str:
        return f"{self.program} -t {self.table} rules" + (f" of {self.network}" if self.network else " of nobody")


class NftablesRules(Object, frozen=True, gc=False):
    """The rules of ``network`` in flannel's table of ``family``, and the table with it. ``network`` "": only the table,
    which Go flannel makes also for a family that is off. ``intact`` False, never wanted: a comment or a hook is not as
    it was made."""

    kind: ClassVar[str] = "nftables"

    family: NftFamily
    network: str = ""
    postrtg: tuple[Rule, ...] = ()
    forward: tuple[Rule, ...] = ()
    intact: bool = True

    @property
    def identity(self) -> Identity:
        return (self.kind, self.family, self.network)

    def describe(self) -> str:
        return f"nft {self.family} rules of {self.network}" if self.network else f"nft {self.family} table"


def traffic_rules(config: NetworkConfig, lease: Lease, options: RuleOptions) -> Iterator[Object]:
    """Everything that ``lease``, this host's own, needs for traffic to pass and to be masqueraded."""
    for family in FAMILIES:
        space, endpoint = config.space(family), lease.endpoint(family)
        if space is None or endpoint is None:
            if config.enable_nftables:
                yield NftablesRules(NFT_FAMILIES[family])
            continue
        network = str(space.network)
        masquerade = _masquerade(space.network, endpoint.subnet, options, nft=config.enable_nftables)
        masquerade = masquerade if options.masquerade else ()
        forward = (Rule("accept", source=network), Rule("accept", destination=network)) if options.forward else ()
        if config.enable_nftables:
            network = network if masquerade or forward else ""
            yield NftablesRules(NFT_FAMILIES[family], network, masquerade, forward)
            continue
        if masquerade:
            yield IptablesRules(IPTABLES[family], "nat", network, masquerade)
        if forward:
            yield IptablesRules(IPTABLES[family], "filter", network, forward)


def _masquerade(network: IPNetwork, pods: IPNetwork, options: RuleOptions, *, nft: bool) -> tuple[Rule, ...]:
    everyone, ours = str(network), str(pods)
    # What comes from outside for our own pods keeps its source. Go's nft rules say it in another way, which also
    # leaves alone what this host itself sends to the pods of others.
    from_outside = (
        Rule("return", ours, everyone, not_source=True) if nft else Rule("return", everyone, ours, not_source=True)
    )
    verdict: Verdict = "masquerade fully-random" if options.random_fully else "masquerade"
    return (
        MARKED,
        Rule("return", ours, everyone),
        Rule("return", everyone, ours),
        *_exceptions(everyone, (prefix for prefix in options.excludes if prefix.version == network.version)),
        from_outside,
        Rule(verdict, everyone, MULTICAST[network.version], not_destination=True),
        Rule(verdict, everyone, everyone, not_source=True),
    )


def _exceptions(network: str, excludes: Iterable[IPNetwork]) -> Iterator[Rule]:
    for prefix in excludes:
        other = str(prefix) if prefix.prefixlen else ""
        yield Rule("return", network, other, excepts=network)
        yield Rule("return", other, network, excepts=network)


def owner(rule: Rule) -> str | None:
    """The network that ``rule`` was made for. None for :data:`MARKED`, which all share, and where it shows none."""
    if rule.excepts:
        return rule.excepts
    prefixes = [ip_network(prefix) for prefix in (rule.source, rule.destination) if prefix]
    if rule.verdict.startswith("masquerade") and rule.not_destination:
        prefixes = prefixes[:1]
    if not prefixes:
        return None
    widest = min(prefixes, key=lambda prefix: prefix.prefixlen)
    if all(prefix.version == widest.version and prefix.subnet_of(widest) for prefix in prefixes):  # type: ignore[arg-type]
        return str(widest)
    return None
