"""What ``nft list`` prints and ``nft -f -`` takes, as far as flannel's two tables go. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from .chains import Line, is_empty
from .rules import NftFamily, Verdict, rule_found

TABLES: Mapping[NftFamily, str] = {"ip": "flannel-ipv4", "ip6": "flannel-ipv6"}
CHAINS: Mapping[str, tuple[str, str]] = {
    "postrtg": (
        'comment "chain to manage traffic masquerading by flannel"',
        "type nat hook postrouting priority srcnat; policy accept;",
    ),
    "forward": (
        'comment "chain to accept flannel traffic"',
        "type filter hook forward priority filter; policy accept;",
    ),
}
"""Our chains in the order in which Go makes them, and what stands above their rules."""


class NftTable(msgspec.Struct):
    """One of flannel's tables. ``chains`` are ours, by name; ``intact``: the comments and hooks are as we make them.
    ``foreign``: the lines of all else that somebody put into it, block by block."""

    family: NftFamily
    chains: dict[str, list[Line]] = {}
    foreign: list[list[str]] = []
    intact: bool = True

    @property
    def is_empty(self) -> bool:
        """True if nobody has anything in it."""
        return not self.foreign and all(is_empty(chain) for chain in self.chains.values())

    @property
    def strangers(self) -> list[str]:
        """What is foreign, by kind and name: ``chain mine``."""
        return [block[0].strip("\t {") for block in self.foreign]

    def set_chain(self, name: str, lines: Sequence[Line]) -> None:
        """Without anybody's rules there is no chain."""
        if is_empty(lines):
            self.chains.pop(name, None)
        else:
            self.chains[name] = list(lines)


def parse_tables(text: str) -> dict[NftFamily, NftTable]:
    """Flannel's tables out of what ``nft list table`` printed, one or two."""
    tables: dict[NftFamily, NftTable] = {}
    for family, name in TABLES.items():
        match = re.search(rf"^table {family} {name} \{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
        if match:
            tables[family] = _parse_table(family, match[1].splitlines())
    return tables


def _parse_table(family: NftFamily, lines: Sequence[str]) -> NftTable:
    table = NftTable(family, {}, [], intact=f"\t{_comment(family)}" in lines)
    block: list[str] = []
    for line in lines:
        if line.startswith("\t") and line.endswith("{") and not block:
            block = [line]
        elif block:
            block.append(line)
            if line == "\t}":
                _take_block(table, block)
                block = []
    return table


def _take_block(table: NftTable, block: Sequence[str]) -> None:
    kind, _, name = block[0].strip(" \t{").partition(" ")
    if kind != "chain" or name not in CHAINS:
        table.foreign.append(list(block))
        return
    lines = [line.strip() for line in block[1:-1]]
    above = [line for line in lines if line.startswith(("comment ", "type "))]
    table.intact = table.intact and tuple(above) == CHAINS[name]
    table.chains[name] = [parse_rule(line) for line in lines if line not in above]


_RULE = re.compile(
    r"(?:(?P<marked>meta mark 0x0*4000 ))?"
    r"(?:ip6? saddr (?P<not_source>!= )?(?P<source>[0-9a-f.:/]+) )?"
    r"(?:ip6? daddr (?P<not_destination>!= )?(?P<destination>[0-9a-f.:/]+) )?"
    r"(?P<verdict>return|accept|masquerade(?: fully-random)?)"
    r'(?: comment "flanneld masq-exclude (?P<excepts>\S+)")?'
)


def parse_rule(text: str) -> Line:
    """The rule that ``text`` is; ``text`` itself if no flannel makes such a one."""
    match = _RULE.fullmatch(text)
    if match is None:
        return text
    verdict: Verdict = match["verdict"]  # type: ignore[assignment]
    try:
        return rule_found(verdict, match)
    except ValueError:
        return text


def spell(line: Line, family: NftFamily) -> str:
    """The rule as nft takes it."""
    if isinstance(line, str):
        return line
    words = ["meta mark 0x4000"] if line.marked else []
    for option, prefix, negated in (
        ("saddr", line.source, line.not_source),
        ("daddr", line.destination, line.not_destination),
    ):
        if prefix:
            words.append(f"{family} {option} {'!= ' if negated else ''}{prefix}")
    words.append(line.verdict)
    if line.excepts:
        words.append(f'comment "flanneld masq-exclude {line.excepts}"')
    return " ".join(words)


def table_changes(table: NftTable, *, kept: bool) -> list[str]:
    """The lines for ``nft -f -`` that make the table so, whatever it is now: made anew in one transaction, it always
    looks the same. ``kept`` False: it goes if nobody has anything in it."""
    name = f"table {table.family} {TABLES[table.family]}"
    lines = [f"add {name}", f"delete {name}"]
    if table.is_empty and not kept:
        return lines
    lines += [f"{name} {{", f"\t{_comment(table.family)}"]
    foreign_chains = [block for block in table.foreign if block[0].startswith("\tchain ")]
    for block in table.foreign:
        if block not in foreign_chains:  # sets and maps come before the rules that use them
            lines += block
    for chain, above in CHAINS.items():
        if chain in table.chains:
            rules = [spell(line, table.family) for line in table.chains[chain]]
            lines += [f"\tchain {chain} {{", *(f"\t\t{line}" for line in (*above, *rules)), "\t}"]
    for block in foreign_chains:
        lines += block
    return [*lines, "}"]


def _comment(family: NftFamily) -> str:
    return f'comment "rules for {TABLES[family]}"'


RANDOM_FULLY_PROBE = """\
table ip flannel-probe {
	chain postrtg {
		type nat hook postrouting priority srcnat; policy accept;
		masquerade fully-random
	}
}
"""
"""Checked, never applied: whether nft and the kernel know fully-random."""
