"""Which program a netlink port belongs to, as far as /proc still knows.

The kernel says in some notifications which socket's request caused them (``nlmsg_pid``): of routes, neighbours and IPv4
addresses, not of links, forwarding entries and IPv6 addresses. A port id is the process id only of a program's first
socket, and of its own pid namespace; so the socket is looked for, and a program is named only if it holds it now. One
that ends at once, like ``ip route del``, is usually gone before anybody can ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..printable import printable

SOCKETS = Path("/proc/thread-self/net/netlink")
"""The netlink sockets of this thread's network namespace: sk, Eth (the protocol), Pid (the port), ..., Inode."""
PROTOCOL, PORT, INODE = 1, 2, 9
NETLINK_ROUTE = "0"
MOST_KNOWN = 100


class _Known(msgspec.Struct, frozen=True):
    inode: str
    text: str


class Callers:
    """Asked only about what has to be repaired. Who holds a socket is looked for once."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def name(self, port: int) -> str:
        """``ip (pid 4711)``, or what can be said of a port whose program is not known."""
        inode = _inode_of(port)
        if inode is None:
            return f"netlink port {port}, gone"
        known = self._known.get(port)
        if known is None or known.inode != inode:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[port] = _Known(inode, _holder(port, inode) or f"netlink port {port}, program unknown")
        return known.text


def _inode_of(port: int) -> str | None:
    """Of the open socket with that port."""
    try:
        lines = SOCKETS.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        columns = line.split()
        if len(columns) > INODE and columns[PROTOCOL] == NETLINK_ROUTE and columns[PORT] == str(port):
            return columns[INODE]
    return None


def _holder(port: int, inode: str) -> str | None:
    """The program that has the socket open; the one whose process id the port is, if that has it."""
    wanted = f"socket:[{inode}]"
    if _holds(port, wanted):
        return _program(port)
    if _inode_of(port) != inode:  # it ended meanwhile
        return None
    return next((_program(pid) for pid in _processes() if _holds(pid, wanted)), None)


def _processes() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def _holds(pid: int, wanted: str) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_target(entry.path) == wanted for entry in entries)
    except OSError:
        return False


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - a busy host has 15,000 of them
    except OSError:
        return ""


def _program(pid: int) -> str | None:
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")
    except OSError:
        return None
    return f"{printable(name)} (pid {pid})"
