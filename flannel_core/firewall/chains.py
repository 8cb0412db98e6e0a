"""A chain that several flannels of one host may share, each with its network's rules: what of it is whose. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import MARKED, Rule, owner

Line = Rule | str
"""A rule, or the text of one that no flannel made: it is left where it is."""


def networks_in(chain: Sequence[Line]) -> set[str]:
    """The networks that have rules there."""
    return {network for line in chain if isinstance(line, Rule) and (network := owner(line))}


def foreign_in(chain: Sequence[Line]) -> list[str]:
    """The text of what no flannel made."""
    return [line for line in chain if isinstance(line, str)]


def is_empty(chain: Sequence[Line]) -> bool:
    """True if nobody has a rule there."""
    return not networks_in(chain) and not foreign_in(chain)


def rules_of(chain: Sequence[Line], network: str) -> tuple[Rule, ...]:
    """The rules of ``network`` in their order, the shared ones before them included."""
    found: list[Rule] = []
    marks: list[Rule] = []
    for line in chain:
        if line == MARKED and not found:
            marks.append(MARKED)
        elif isinstance(line, Rule) and owner(line) == network:
            found.append(line)
    return (*marks, *found) if found else ()


def merged(chain: Sequence[Line], network: str, rules: Sequence[Rule]) -> list[Line]:
    """``chain`` with ``rules`` for those of ``network``: where the first of them stands, else behind all others."""
    at = next((i for i, line in enumerate(chain) if isinstance(line, Rule) and owner(line) == network), len(chain))
    before: list[Line] = []
    for line in chain[:at]:
        if line != MARKED or MARKED not in before:
            before.append(line)
    after = [line for line in chain[at:] if not isinstance(line, Rule) or owner(line) != network]
    if MARKED in rules:  # one for all that follow
        after = [line for line in after if line != MARKED]
        rules = [rule for rule in rules if rule != MARKED or MARKED not in before]
    return [*before, *rules, *after]
