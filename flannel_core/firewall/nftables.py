"""Flannel's nft tables as a target. Needs nft, and no iptables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

from ..objects import Object
from ..target import Actual, Changed, Failure, Put, Scope, Target, Unknown
from .chains import foreign_in, merged, networks_in, rules_of
from .nftables_text import CHAINS, RANDOM_FULLY_PROBE, TABLES, NftTable, parse_tables, table_changes
from .obstacles import ForwardChain, forward_chains
from .programs import ProgramFailed, find, run
from .rules import NftablesRules, NftFamily

Wish = tuple[NftablesRules, bool]
"""An object, and whether it is wanted."""


class NftablesTarget(Target):
    """Rules of ours are those of the recorded networks in the tables that every flannel uses. What other networks or
    strangers have there is written along whenever a table is. Read every ``seconds``."""

    name: ClassVar[str] = "nftables"
    stages: ClassVar[Mapping[type[Object], int]] = {NftablesRules: 50}

    def __init__(self, seconds: float) -> None:
        self.forward_chains: list[ForwardChain] = []
        """What else sees forwarded packets, as last read."""
        self.tables: dict[NftFamily, NftTable] = {}
        """Flannel's, as last read."""
        self._seconds = seconds

    async def read(self, scope: Scope) -> list[Actual]:
        """Always reads all: nothing of it lies on a device. Without nft there is nothing."""
        self.scope = scope
        try:
            chains = await run("nft", "list", "chains") if find("nft") else ""
            others = forward_chains(chains)
            listed = [
                f"list table {family} {name}" for family, name in TABLES.items() if f"table {family} {name} " in chains
            ]
            listed += [chain.listed_by for chain in others]
            text = await _list(dict.fromkeys(listed))
        except ProgramFailed:
            self.tables, self.forward_chains = {}, []
            return []
        self.tables = parse_tables(text)
        self.forward_chains = [chain.with_rules(text) for chain in others]
        return [Actual(item) for family in self.tables for item in self._ours_in(family)]

    async def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        """Read again in a while."""
        while True:
            await asyncio.sleep(self._seconds)
            yield Unknown(None)

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        """One transaction; if that fails, one per family."""
        items = (*((put.object, True) for put in puts), *((item, False) for item in removes))
        wishes = [(item, wanted) for item, wanted in items if isinstance(item, NftablesRules)]
        return await self._change(wishes)

    def foreign_rules(self) -> list[str]:
        """A sentence for each rule in our chains, and each table of ours with other things, that no flannel made."""
        sentences = []
        for family, table in self.tables.items():
            name = TABLES[family]
            for chain, lines in table.chains.items():
                sentences += [
                    f"nft table {family} {name}: our chain {chain} holds a rule that is not flannel's; it is left"
                    f" there: `{rule}`. `nft -a list chain {family} {name} {chain}` tells the handle to delete it by"
                    for rule in foreign_in(lines)
                ]
            sentences += [
                f"nft table {family} {name} holds a {what} that is not flannel's; it is left there"
                for what in table.strangers
            ]
        return sentences

    def _ours_in(self, family: NftFamily) -> list[NftablesRules]:
        table = self.tables[family]
        postrtg, forward = (table.chains.get(name, []) for name in CHAINS)
        networks = networks_in([*postrtg, *forward])
        found = [
            NftablesRules(family, network, rules_of(postrtg, network), rules_of(forward, network), table.intact)
            for network in sorted(networks.intersection(self.scope.networks))
        ]
        nobodys = (NftablesRules.kind, family, "")
        if nobodys in self.scope.wanted or (not found and table.is_empty and not self._is_kept(family, self.tables)):
            found.append(NftablesRules(family, intact=table.intact))
        return found

    def _is_kept(self, family: NftFamily, tables: Mapping[NftFamily, NftTable]) -> bool:
        """True if the table of ``family`` stays even when nothing is in it: we want it, or another flannel has rules in
        one of the two, and so wants both."""
        if any(identity[:2] == (NftablesRules.kind, family) for identity in self.scope.wanted):
            return True
        chains = (chain for table in tables.values() for chain in table.chains.values())
        return any(networks_in(chain).difference(self.scope.networks) for chain in chains)

    async def _change(self, wishes: Sequence[Wish]) -> list[Failure]:
        """Reads anew, because what others have in the tables is written along."""
        families = list(dict.fromkeys(item.family for item, _ in wishes))
        try:
            tables = parse_tables(await _listed())
            lines: list[str] = []
            for family in families:
                table = tables.setdefault(family, NftTable(family, intact=False))
                before = msgspec.structs.replace(table, chains=dict(table.chains))
                for item, wanted in wishes:
                    if item.family == family:
                        _apply(table, item, wanted=wanted)
                kept = self._is_kept(family, tables)
                if table != before or not table.intact or (table.is_empty and not kept):
                    lines += table_changes(table, kept=kept)
            if lines:
                await run("nft", "-f", "-", input="".join(f"{line}\n" for line in lines))
        except ProgramFailed as error:
            if len(families) > 1 and error.exit_code is not None:
                parts = ([wish for wish in wishes if wish[0].family == family] for family in families)
                return [failure for part in parts for failure in await self._change(part)]
            return [Failure(item, str(error)) for item, _ in wishes]
        return []


def _apply(table: NftTable, item: NftablesRules, *, wanted: bool) -> None:
    for name, rules in (("postrtg", item.postrtg), ("forward", item.forward)):
        table.set_chain(name, merged(table.chains.get(name, []), item.network, rules if wanted else ()))


async def _listed() -> str:
    """Flannel's tables, as far as there are any."""
    names = (await run("nft", "list", "tables")).splitlines()
    ours = (f"table {family} {name}" for family, name in TABLES.items())
    return await _list(f"list {name}" for name in ours if name in names)


async def _list(commands: Iterable[str]) -> str:
    """What they print. One process each: nft 1.0.6 finds only the last of several tables."""
    return "".join(await asyncio.gather(*(run("nft", "--stateless", command) for command in commands)))


async def knows_random_fully() -> bool:
    """Whether nft and the kernel take ``masquerade fully-random``; without nft, what nearly every one does: yes."""
    try:
        await run("nft", "--check", "-f", "-", input=RANDOM_FULLY_PROBE)
    except ProgramFailed as error:
        return error.exit_code is None
    return True
