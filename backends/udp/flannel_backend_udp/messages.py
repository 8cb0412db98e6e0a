"""What the agent and the forwarder say to each other: JSON, a line each, over a Unix socket.

The agent asks and the forwarder answers, in order. ``Take`` comes with two descriptors (SCM_RIGHTS): an attached TUN
device and a bound UDP socket, so that the forwarder needs no privilege to have them.
"""

from __future__ import annotations

import msgspec

VERSION = 1
"""Grows with every change here: an agent replaces a forwarder of another version, which it may not understand."""
MOST_BYTES = 1 << 24
"""Of one line: 250,000 peers."""


class Settings(msgspec.Struct, frozen=True):
    """``local`` and ``port`` are what the UDP socket is bound to, ``mtu`` the device's, in bytes."""

    device: str
    mtu: int
    local: str
    port: int


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """``by`` is who asks, a name of its own choice: nobody is told of what was its own doing."""

    by: str


class Look(Request, frozen=True):
    """Answered by State."""


class Watch(Request, frozen=True):
    """Answered by Done, and by another one whenever something changes: by somebody else, or because the device was
    deleted."""


class Take(Request, frozen=True):
    """Forward between these from now on. Answered by Done."""

    settings: Settings


class Release(Request, frozen=True):
    """Forward no more, and close the descriptors; the peers stay known. Answered by Done."""


class Change(Request, frozen=True):
    """``put``: subnet -> public address. Answered by Done."""

    put: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Stop(Request, frozen=True):
    """End. Answered by the end of the connection."""


class Done(msgspec.Struct, frozen=True):
    """``error``: why it was not, if it was not."""

    error: str = ""


class State(msgspec.Struct, frozen=True):
    """``settings`` None: nothing is forwarded. ``peers``: subnet -> public address. ``counters``: packets."""

    version: int
    pid: int
    settings: Settings | None = None
    peers: dict[str, str] = {}
    counters: dict[str, int] = {}


AnyRequest = Look | Watch | Take | Release | Change | Stop
