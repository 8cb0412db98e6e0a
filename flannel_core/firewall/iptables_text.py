"""What iptables-save prints and iptables-restore takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from .chains import Line, is_empty
from .rules import Table, Verdict, rule_found


class OurChain(NamedTuple):
    """Where a table's rules of ours stand: ``hook`` jumps to ``name``."""

    hook: str
    name: str
    comment: str

    @property
    def jump(self) -> str:
        """The jump as iptables prints it, behind ``-A HOOK``."""
        return f'-m comment --comment "{self.comment}" -j {self.name}'


OUR_CHAINS: Mapping[Table, OurChain] = {
    "nat": OurChain("POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq"),
    "filter": OurChain("FORWARD", "FLANNEL-FWD", "flanneld forward"),
}


class SavedTable(msgspec.Struct):
    """A table as iptables-save tells it. ``chains`` holds the rules' text behind ``-A CHAIN``."""

    policies: dict[str, str]
    chains: dict[str, list[str]]


def parse_save(text: str) -> dict[str, SavedTable]:
    """The tables by name. Lines that are none of a table's are passed over."""
    tables: dict[str, SavedTable] = {}
    table = SavedTable({}, {})
    for line in text.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), SavedTable({}, {}))
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            table.policies[name] = policy
            table.chains.setdefault(name, [])
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            table.chains.setdefault(name, []).append(rule)
    return tables


_RULE = re.compile(
    r"(?:(?P<not_source>! )?-s (?P<source>\S+) )?"
    r"(?:(?P<not_destination>! )?-d (?P<destination>\S+) )?"
    r"(?P<marked>-m mark --mark 0x4000/0x4000 )?"
    r'-m comment --comment "flanneld (?:masq|forward|masq-exclude (?P<excepts>\S+))" '
    r"-j (?P<target>RETURN|ACCEPT|MASQUERADE)(?P<random> --random-fully)?"
)


def parse_rule(text: str) -> Line:
    """The rule that ``text``, as printed behind ``-A CHAIN``, is; ``text`` itself if no flannel makes such a one."""
    match = _RULE.fullmatch(text)
    if match is None:
        return text
    target: Verdict = match["target"].lower()  # type: ignore[assignment]
    try:
        return rule_found("masquerade fully-random" if match["random"] else target, match)
    except ValueError:
        return text


def spell(line: Line, comment: str) -> str:
    """The text behind ``-A CHAIN``, exactly as iptables will print it."""
    if isinstance(line, str):
        return line
    words = []
    for option, prefix, negated in (
        ("-s", line.source, line.not_source),
        ("-d", line.destination, line.not_destination),
    ):
        if prefix:
            words.append(f"{'! ' if negated else ''}{option} {prefix}")
    if line.marked:
        words.append("-m mark --mark 0x4000/0x4000")
    if line.excepts:
        comment = f"flanneld masq-exclude {line.excepts}"
    words.append(f'-m comment --comment "{comment}"')
    target, _, random = line.verdict.partition(" ")
    words.append(f"-j {target.upper()}{' --random-fully' if random else ''}")
    return " ".join(words)


def has_moved(hook: Sequence[str], before: Sequence[str], jump: str) -> bool:
    """True if ``jump``, which is in both once, has changed places with another rule since ``before``."""
    now, then = _around(hook, jump), _around(before, jump)
    return bool(now.above & then.below or now.below & then.above)


class _Sides(NamedTuple):
    above: set[str]
    below: set[str]


def _around(hook: Sequence[str], jump: str) -> _Sides:
    """What stands on one side of ``jump`` only."""
    at = hook.index(jump)
    above, below = set(hook[:at]), set(hook[at + 1 :])
    return _Sides(above - below, below - above)


def place_of_jump(hook: Sequence[str], before: Sequence[str] | None, jump: str) -> int:
    """How many rules of ``hook``, which does not hold ``jump``, stand above it: as in ``before``; at the end (as Go
    puts it) if that is not known."""
    if before is None:
        return len(hook)
    below = _around(before, jump).below
    return next((i for i, rule in enumerate(hook) if rule in below), len(hook))


def table_changes(
    name: Table, table: SavedTable | None, chain: Sequence[Line], before: Sequence[str] | None
) -> list[str]:
    """The lines for iptables-restore --noflush that make our chain of a table hold ``chain`` and be jumped to; none if
    it is so. If ``chain`` holds nobody's rules, chain and jump go. ``before``: the hook when the jump was last where it
    should be."""
    ours = OUR_CHAINS[name]
    table = table or SavedTable({}, {})
    hook = table.chains.get(ours.hook, [])
    lines: list[str] = []
    if is_empty(chain):
        if ours.name in table.chains:
            lines = [f"-D {ours.hook} {ours.jump}"] * hook.count(ours.jump) + [f"-F {ours.name}", f"-X {ours.name}"]
    else:
        wanted = [spell(line, ours.comment) for line in chain]
        if table.chains.get(ours.name) != wanted:
            lines.append(f":{ours.name} - [0:0]")  # makes or empties it
            lines += [f"-A {ours.name} {rule}" for rule in wanted]
        if not is_in_place(hook, before, ours.jump):
            lines += [f"-D {ours.hook} {ours.jump}"] * hook.count(ours.jump)
            others = [rule for rule in hook if rule != ours.jump]
            at = place_of_jump(others, before, ours.jump)
            lines.append(f"-A {ours.hook} {ours.jump}" if at == len(others) else f"-I {ours.hook} {at + 1} {ours.jump}")
    return [f"*{name}", *lines, "COMMIT"] if lines else []


def is_in_place(hook: Sequence[str], before: Sequence[str] | None, jump: str) -> bool:
    """True if ``hook`` holds ``jump`` once, and where it stood ``before``."""
    return hook.count(jump) == 1 and (before is None or not has_moved(hook, before, jump))
