"""What a command of net-conf.json is made of: words, and the variables in them. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(
    r"\$(?:\{(?P<braced>[^}]*)\} | (?P<special>[*\#$@!?\-0-9]) | (?P<name>[A-Za-z_][A-Za-z0-9_]*) | \{)", re.VERBOSE
)


def words_of(command: str | Sequence[str]) -> tuple[str, ...]:
    """A text is split at white space, quotes mean nothing (as Go flannel, which has no shell either); a list is a
    list of words."""
    return tuple(command.split()) if isinstance(command, str) else tuple(command)


def expanded(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Each word with ``$NAME`` and ``${NAME}`` replaced, by nothing where the variable is not set; a value is never
    split. ``$$``, ``$1`` and their kin are names of variables that nobody sets, as with Go's os.Expand."""

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["special"] or match["name"] or ""
        return environment.get(name, "")

    return [_VARIABLE.sub(value, word) for word in words]


def shown(words: Sequence[str]) -> str:
    """For a person, as it would be typed."""
    return " ".join(word if "$" in word and not re.search(r"\s", word) else shlex.quote(word) for word in words)
