"""Text from a store, a file or another program, made safe for a terminal and a log."""

from __future__ import annotations


def printable(text: str | bytes, limit: int = 80) -> str:
    r"""``text`` on one line of at most ``limit`` characters.

    Control characters, line ends, bidirectional marks and bytes that are not UTF-8 become ``\x1b``, ``\n``,
    ``\u202e``; what is cut off becomes ``…``. Never raises.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    escaped = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text[: limit + 1]
    )
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
