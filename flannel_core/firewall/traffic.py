"""The traffic rules of one agent: what it wants, where that lives, and what stands in the way."""

from __future__ import annotations

from ..lease import FAMILIES, Family, IPNetwork, Lease
from ..netconf import NetworkConfig
from ..objects import Object
from ..target import Target
from . import iptables, nftables
from .iptables import IptablesTarget
from .nftables import NftablesTarget
from .obstacles import iptables_obstacles
from .rules import IPTABLES, RuleOptions, traffic_rules

KUBE_SERVICES = "KUBE-SERVICES"
"""The chain that kube-proxy keeps in the table nat, in its modes iptables and ipvs (pkg/proxy of Kubernetes)."""


class TrafficRules:
    """Both targets are used whatever the configuration says: what another mode left behind is taken away."""

    def __init__(
        self, *, masquerade: bool, random_fully: bool, forward: bool, excludes: tuple[IPNetwork, ...], seconds: float
    ) -> None:
        """``random_fully`` False: not even where it is known. ``seconds``: how often the rules are looked after."""
        self._options = RuleOptions(masquerade, forward, random_fully, excludes)
        self._iptables = IptablesTarget(seconds)
        self._nftables = NftablesTarget(seconds)

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._iptables, self._nftables

    async def wanted(self, config: NetworkConfig, lease: Lease) -> list[Object]:
        """For our own ``lease``."""
        options = self._options
        if options.masquerade and options.random_fully:
            known = nftables.knows_random_fully() if config.enable_nftables else iptables.knows_random_fully()
            options = RuleOptions(True, options.forward, await known, options.excludes)
        return list(traffic_rules(config, lease, options))

    @property
    def services(self) -> frozenset[Family]:
        """The families in which kube-proxy has its rules in iptables, as last read."""
        saved = self._iptables.saved
        programs = {name for name, tables in saved.items() if "nat" in tables and KUBE_SERVICES in tables["nat"].chains}
        return frozenset(family for family in FAMILIES if any(name.startswith(IPTABLES[family]) for name in programs))

    def problems(self, config: NetworkConfig) -> list[str]:
        """A sentence for everything that an operator should know, as last read."""
        sentences = [*self._iptables.foreign_rules(), *self._nftables.foreign_rules()]
        sentences += iptables_obstacles(self._iptables.saved, config.networks)
        for network in config.networks:
            seen = self._iptables.shows_what_nft_has(IPTABLES[network.version])
            for chain in self._nftables.forward_chains:
                if not (seen and chain.is_of_iptables) and (sentence := chain.obstacle(network)):
                    sentences.append(sentence)
        return sentences
