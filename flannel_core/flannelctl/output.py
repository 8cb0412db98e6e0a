"""What flannelctl prints: rich tables on a terminal, aligned text in a pipe, JSON on request.

Much of the text comes from a store that other hosts write. It is escaped here, once, for every command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..printable import printable

LONGEST_CELL = 1000
"""Characters: what is longer helps nobody on a terminal and is whole in --json."""
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def clean(text: object) -> str:
    """``text`` on one line, without anything that a terminal would obey."""
    return printable(str(text), LONGEST_CELL)


def say(line: str = "") -> None:
    """One line of output, made of what :func:`clean` returned and our own words."""
    print(line)


def complain(message: str) -> None:
    """A message to the user on stderr, escaped line by line."""
    for line in message.splitlines() or [""]:
        print(f"flannelctl: {clean(line)}", file=sys.stderr)


def show_json(value: object) -> None:
    """``value`` as indented JSON; bytes are JSON already."""
    text = value if isinstance(value, bytes) else msgspec.json.encode(value)
    print(msgspec.json.format(text, indent=2).decode())


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headings. In a pipe nothing is wrapped or cut to the width of anything."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(header_style="bold", box=None, pad_edge=False)
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    lines = [list(columns), *cells]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        say("  ".join(c + " " * (w - cell_len(c)) for c, w in zip(line, widths, strict=True)).rstrip())


def duration(seconds: float) -> str:
    """``3 h 20 min``: the two largest units; below ten seconds one decimal."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    rest, words = int(seconds), []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        words.append((count, unit))
    first = next(i for i, (count, _) in enumerate(words) if count)
    return " ".join(f"{count} {unit}" for count, unit in words[first : first + 2] if count)
