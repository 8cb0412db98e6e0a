"""The rules of iptables and ip6tables as a target, of whichever variant the host uses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from ..objects import Object
from ..target import Actual, Changed, Failure, Put, Scope, Target, Unknown
from .chains import foreign_in, is_empty, merged, networks_in, rules_of
from .iptables_text import OUR_CHAINS, SavedTable, is_in_place, parse_rule, parse_save, table_changes
from .programs import ProgramFailed, find, run
from .rules import IPTABLES, IptablesRules, Table

LOCK_WAIT_SECONDS = 2
"""How long iptables-restore waits for the xtables lock. Beyond that the reconciler tries again, and meanwhile repairs
what is not the firewall's."""
LOCK_IS_HELD = 4
"""iptables' exit code for that (RESOURCE_PROBLEM of its xshared.h)."""
RANDOM_FULLY_SINCE = (1, 6, 2)
"""The iptables that knows MASQUERADE --random-fully; its iptables-restore was the first with --wait, too."""
LEGACY_TABLES = {
    "iptables-legacy": Path("/proc/thread-self/net/ip_tables_names"),
    "ip6tables-legacy": Path("/proc/thread-self/net/ip6_tables_names"),
}
"""The names of the tables that the legacy variant has in this network namespace."""


class IptablesTarget(Target):
    """Rules of ours are those of the recorded networks, in the chains that every flannel uses; what other networks or
    strangers have there stays.

    Read every ``seconds``: the host's own program of each family, and the legacy variant beside one of nft if it has
    any table; the nft variant beside a legacy one when there is reason to think that something was left there. A
    program that is missing or fails is one whose objects fail: the other family goes on.
    """

    name: ClassVar[str] = "iptables"
    stages: ClassVar[Mapping[type[Object], int]] = {IptablesRules: 50}

    def __init__(self, seconds: float) -> None:
        self.saved: dict[str, dict[str, SavedTable]] = {}
        """By program, as last read: what stands beside our rules."""
        self._seconds = seconds
        self._hooks: dict[tuple[str, Table], list[str]] = {}
        self._holding: set[str] = set()
        self._installed = _Installed()
        self._leftovers_unknown = True

    async def read(self, scope: Scope) -> list[Actual]:
        """Always reads all: nothing of it lies on a device."""
        self.scope = scope
        wanted = {str(identity[1]) for identity in scope.wanted if identity[0] == IptablesRules.kind}
        if self._leftovers_unknown:
            self._installed = await _Installed.found()
        asked = wanted | self._holding | self._installed.in_use
        if self._leftovers_unknown:
            asked |= self._installed.unused
        programs = sorted(asked, key=lambda program: (program.startswith("ip6"), program))
        saves = await asyncio.gather(*(_save(program) for program in programs))
        self.saved = {program: saved for program, saved in zip(programs, saves, strict=True) if saved is not None}
        found = [item for program in self.saved for item in self._ours_in(program)]
        self._holding = {item.program for item in found}
        self._leftovers_unknown = not wanted <= self._holding  # the host may have changed to another variant
        return [Actual(item) for item in found]

    def shows_what_nft_has(self, program: str) -> bool:
        """True if it was read, and keeps its rules where nft shows them as well."""
        return program in self.saved and f"{program}-nft" not in self._installed.unused

    async def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        """Nothing notifies."""
        while True:
            await asyncio.sleep(self._seconds)
            yield Unknown(None)

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        """One iptables-restore per program for all of it, tables and chains together."""
        changes: dict[str, list[tuple[IptablesRules, bool]]] = {}
        for item, stays in (*((put.object, True) for put in puts), *((item, False) for item in removes)):
            assert isinstance(item, IptablesRules)
            changes.setdefault(item.program, []).append((item, stays))
        failures: list[Failure] = []
        for program, wishes in changes.items():
            failures += await self._change(program, wishes)
        return failures

    def foreign_rules(self) -> list[str]:
        """A sentence for each rule in our chains that no flannel made."""
        sentences = []
        for program, tables in self.saved.items():
            for name, ours in OUR_CHAINS.items():
                chain = [parse_rule(rule) for rule in _chain(tables, name)]
                sentences += [
                    f"{program} -t {name}: our chain {ours.name} holds a rule that is not flannel's; it is left there."
                    f" To remove it: `{program} -t {name} -D {ours.name} {rule}`"
                    for rule in foreign_in(chain)
                ]
        return sentences

    def _ours_in(self, program: str) -> Iterator[IptablesRules]:
        tables = self.saved[program]
        for name, ours in OUR_CHAINS.items():
            if name not in tables or ours.name not in tables[name].chains:
                continue
            hook = tables[name].chains.get(ours.hook, [])
            chain = [parse_rule(rule) for rule in tables[name].chains[ours.name]]
            in_place = is_in_place(hook, self._hooks.get((program, name)), ours.jump)
            if in_place:
                self._hooks[program, name] = hook
            for network in sorted(networks_in(chain).intersection(self.scope.networks)):
                yield IptablesRules(program, name, network, rules_of(chain, network), in_place)
            if is_empty(chain) and not any(identity[1:3] == (program, name) for identity in self.scope.wanted):
                yield IptablesRules(program, name, "", (), in_place)

    async def _change(self, program: str, wishes: Sequence[tuple[IptablesRules, bool]]) -> list[Failure]:
        """Reads anew, because what other networks have in our chains is written along."""
        try:
            tables = parse_save(await run(f"{program}-save"))
            text = self._changes(program, tables, wishes)
            if text:
                await run(f"{program}-restore", "--noflush", *await _wait_option(program), input=text)
        except ProgramFailed as error:
            if len(wishes) > 1 and error.exit_code not in (None, LOCK_IS_HELD):
                return [failure for wish in wishes for failure in await self._change(program, [wish])]
            reason = str(error)
            if error.exit_code == LOCK_IS_HELD:
                reason += f" (another program has held the xtables lock for {LOCK_WAIT_SECONDS} s)"
            return [Failure(item, reason) for item, _ in wishes]
        for item, _ in wishes:  # where the jump has been put is where it should be
            self._hooks.pop((program, item.table), None)
        return []

    def _changes(
        self, program: str, tables: dict[str, SavedTable], wishes: Sequence[tuple[IptablesRules, bool]]
    ) -> str:
        lines: list[str] = []
        for name in OUR_CHAINS:
            concerned = [(item, stays) for item, stays in wishes if item.table == name]
            if not concerned:
                continue
            chain = [parse_rule(rule) for rule in _chain(tables, name)]
            for item, stays in concerned:
                chain = merged(chain, item.network, item.rules if stays else ())
            lines += table_changes(name, tables.get(name), chain, self._hooks.get((program, name)))
        return "".join(f"{line}\n" for line in lines)


def _chain(tables: Mapping[str, SavedTable], name: Table) -> list[str]:
    table = tables.get(name)
    return table.chains.get(OUR_CHAINS[name].name, []) if table else []


async def _save(program: str) -> dict[str, SavedTable] | None:
    """None if it cannot be told."""
    try:
        return parse_save(await run(f"{program}-save"))
    except ProgramFailed:
        return None


class _Installed(msgspec.Struct, frozen=True):
    """What can be asked for rules. ``programs``: the host's own of each family; ``legacy``: the legacy variants beside
    those of nft; ``unused``: the nft variants beside those that are legacy."""

    programs: frozenset[str] = frozenset()
    legacy: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

    @classmethod
    async def found(cls) -> Self:
        programs = set(filter(find, IPTABLES.values()))
        are_nft = await asyncio.gather(*map(_is_nft_variant, programs))
        nft = {program for program, is_nft in zip(programs, are_nft, strict=True) if is_nft}
        legacy = {f"{program}-legacy" for program in nft}
        unused = {f"{program}-nft" for program in programs - nft}
        return cls(
            *(
                frozenset(program for program in group if find(f"{program}-save"))
                for group in (programs, legacy, unused)
            )
        )

    @property
    def in_use(self) -> set[str]:
        """The host's own, and a legacy variant that has a table in this network namespace: asking for that loads no
        module."""
        return {*self.programs, *(program for program in self.legacy if _has_content(LEGACY_TABLES[program]))}


async def _is_nft_variant(program: str) -> bool:
    try:
        return "nf_tables" in await run(program, "--version")
    except ProgramFailed:
        return False


def _has_content(path: Path) -> bool:
    try:
        return bool(path.read_text().strip())
    except OSError:
        return False


async def version(program: str) -> tuple[int, ...]:
    """``(1, 8, 9)``. Raises ProgramFailed."""
    printed = await run(program, "--version")
    match = re.search(r"v(\d+(?:\.\d+)*)", printed)
    if match is None:
        raise ProgramFailed(f"{program} --version says {printed.strip()!r}, which names no version")
    return tuple(map(int, match[1].split(".")))


async def _wait_option(program: str) -> list[str]:
    return [f"--wait={LOCK_WAIT_SECONDS}"] if await version(program) >= RANDOM_FULLY_SINCE else []


async def knows_random_fully() -> bool:
    """Whether MASQUERADE takes --random-fully here; without iptables, what nearly every one does: yes."""
    try:
        return await version("iptables") >= RANDOM_FULLY_SINCE
    except ProgramFailed:
        return True
