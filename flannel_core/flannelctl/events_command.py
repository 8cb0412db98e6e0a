"""``flannelctl events``: what the agent did to this host, told by the agent, or by its journal when none runs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from ..errors import FlannelError, UsageError
from ..journal import NAME, Entry, decode, lines, read
from .agent_socket import DEFAULT_SUBNET_FILE, NoAgent, SubnetFile, ask, follow_lines
from .output import clean, complain, say, show_json, show_table

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def events(
    *,
    follow: bool = False,
    json: bool = False,
    since: str | None = None,
    subnet_file: SubnetFile = DEFAULT_SUBNET_FILE,
) -> None:
    """Show what the agent did to this host: when, to what, why, and who made a repair necessary, oldest first.

    Who that was is known if the kernel tells (of routes, neighbours and IPv4 addresses) and if the program still ran
    when it was asked for; else "unknown", or its netlink port. Without a running agent the journal file tells.

    Parameters
    ----------
    follow
        Go on with what comes, until interrupted or until the agent ends.
    json
        Print it as JSON: a list, or with --follow one object a line.
    since
        Only what is not older than this: 90s, 10m, 1h30m, 2d.
    subnet_file
        The subnet file of the agent that is meant; its socket and its journal lie beside it.
    """
    first = 0.0 if since is None else time.time() - _seconds(since)
    if follow:
        for entry in _recent(_decoded(follow_lines(subnet_file, "/events/follow")), first):
            say(lines([entry]).decode().rstrip() if json else _line(entry))
            sys.stdout.flush()
        return
    found = list(_recent(_decoded([_journal(subnet_file)]), first))
    if json:
        show_json(found)
    elif found:
        show_table(("TIME", "ACTION", "OBJECT", "CAUSE", "BY"), map(_row, found))
    else:
        say("Nothing was done" + (" yet." if since is None else f" within {since}."))


def _journal(subnet_file: Path) -> bytes:
    """From the agent, else from its file."""
    try:
        return ask(subnet_file, "/events")
    except NoAgent as absent:
        path = subnet_file.with_name(NAME)
        try:
            text = read(subnet_file.parent)
        except OSError as error:
            raise FlannelError(f"no agent runs, and {path} cannot be read: {error.strerror}") from None
        if not text:
            raise
        complain(f"no agent runs; this is what {path} says ({absent})")
        return text


def _decoded(texts: Iterable[bytes]) -> Iterator[Entry]:
    for text in texts:
        entries, unreadable = decode(text)
        if unreadable:
            complain(f"lines of the journal that cannot be read: {unreadable}")
        yield from entries


def _recent(entries: Iterable[Entry], first: float) -> Iterator[Entry]:
    return (entry for entry in entries if entry.time >= first)


def _seconds(text: str) -> int:
    """Raises UsageError."""
    parts = re.findall(r"(\d+)(min|[smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"--since {clean(text)}: expected a duration such as 90s, 10m, 1h30m or 2d")
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def _row(entry: Entry) -> tuple[str, str, str, str, str]:
    when = datetime.fromtimestamp(entry.time).isoformat(sep=" ", timespec="milliseconds")
    by = entry.by or ("unknown" if entry.action == "repair" else "")
    return when, entry.action, entry.object, entry.cause, by


def _line(entry: Entry) -> str:
    when, action, item, cause, by = map(clean, _row(entry))
    return f"{when}  {action:<6}  {item}" + (f"  ({cause})" if cause else "") + (f"  by {by}" if by else "")
