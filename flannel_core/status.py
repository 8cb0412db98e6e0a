"""What the agent tells about itself on its socket: the JSON of ``GET /status`` and ``GET /plan``.

Values only, shared by the agent, which fills them in, and ``flannelctl``, which prints them. Addresses and networks
are text in canonical form, times are Unix seconds, durations seconds. Fields are only ever added, with a default.
"""

from __future__ import annotations

from typing import Any

import msgspec

REPAIRS_SECONDS = 3600.0
"""How far back the status tells of repairs, at most."""


class HostStatus(msgspec.Struct, frozen=True):
    """This host. ``addresses`` are all of the external interface's, ``public_*`` what peers reach it at, ``reason``
    says why this interface was chosen and ``others`` which others there were."""

    interface: str
    mtu: int
    addresses: tuple[str, ...] = ()
    public_ipv4: str | None = None
    public_ipv6: str | None = None
    reason: str = ""
    others: tuple[str, ...] = ()


class BackendStatus(msgspec.Struct, frozen=True):
    """The backend that runs, what it announces as JSON text ("" for none), and the MTU inside the tunnel.
    ``notes``: how it works on this host, and why so. ``facts``: what its targets told beside this host's own objects
    when they were last read (counters of a forwarder)."""

    type: str
    announced_ipv4: str = ""
    announced_ipv6: str = ""
    mtu: int = 0
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = {}


class LeaseStatus(msgspec.Struct, frozen=True):
    """Our own lease. ``expires`` None: never. ``created`` is the store's creation revision, ``renewed`` when this
    agent last took or renewed it."""

    key: str
    subnets: tuple[str, ...]
    created: int = 0
    expires: float | None = None
    renewed: float | None = None


class StoreStatus(msgspec.Struct, frozen=True):
    """``answered_ago``: seconds since the store last answered, None if it never did. ``reason``: why it does not."""

    name: str
    reachable: bool
    answered_ago: float | None = None
    reason: str | None = None


class ConfigStatus(msgspec.Struct, frozen=True):
    """net-conf.json as last seen. ``ok`` False: ``error`` says what is wrong or missing; the last valid one is used."""

    source: str
    ok: bool
    error: str | None = None


class PeerStatus(msgspec.Struct, frozen=True):
    """An admitted peer. ``programmed`` False: ``why`` says what is missing on this host to reach it. ``facts``: what
    the backend knows of the traffic with it (handshake age in seconds, bytes)."""

    key: str
    subnets: tuple[str, ...]
    public_ips: tuple[str, ...]
    programmed: bool
    why: str | None = None
    facts: dict[str, Any] = {}


class RefusedStatus(msgspec.Struct, frozen=True):
    """A lease, or an entry that is none, which is not trusted, and the reason."""

    key: str
    subnets: tuple[str, ...]
    reason: str


class SpaceStatus(msgspec.Struct, frozen=True):
    """One family's address space, counted in subnets."""

    network: str
    used: int
    free: int
    total: int


class FailureStatus(msgspec.Struct, frozen=True):
    """An object that could not be written. ``foreign``: something that is not ours stands in the way.
    ``retry_in``: seconds until the next try, None if it waits for an event."""

    object: str
    reason: str
    foreign: bool = False
    retry_in: float | None = None


class RepairsStatus(msgspec.Struct, frozen=True):
    """What was put back within the last ``seconds`` because something else had changed it: ``count`` objects, of which
    ``objects`` names the most frequent ones, each with how often."""

    seconds: float
    count: int
    objects: tuple[tuple[str, int], ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``GET /status``. What is None is not known yet.

    ``problems`` are sentences for the operator, most important first; an empty list means that nothing needs a hand.
    ``waiting_for`` says what a start waits for. ``started`` is Unix time, ``writes`` counts the objects put or removed
    since then.
    """

    version: str
    pid: int
    started: float
    ready: bool
    writes: int = 0
    waiting_for: str | None = None
    problems: tuple[str, ...] = ()
    host: HostStatus | None = None
    backend: BackendStatus | None = None
    lease: LeaseStatus | None = None
    store: StoreStatus | None = None
    config: ConfigStatus | None = None
    peers: tuple[PeerStatus, ...] = ()
    refused: tuple[RefusedStatus, ...] = ()
    space: tuple[SpaceStatus, ...] = ()
    failures: tuple[FailureStatus, ...] = ()
    repairs: RepairsStatus | None = None

    @property
    def healthy(self) -> bool:
        """Ready and without a problem: what the exit code of ``flannelctl status`` says."""
        return self.ready and not self.problems


class PlanLine(msgspec.Struct, frozen=True):
    """One change that the next pass would make: ``GET /plan`` is a list of these.

    ``action`` is create, change or remove, ``cause`` what it follows from (a lease and its revision). ``held`` says
    why it is not made now (backing off, pruning not allowed yet); None: it is about to be.
    """

    action: str
    object: str
    cause: str
    held: str | None = None


class RestartPlan(msgspec.Struct, frozen=True):
    """What a restart with another net-conf.json would change: the answer to ``POST /plan`` of that text.

    ``changes``: the keys that differ from what is in use, ``SubnetLen: 24 -> 26``. ``live``: the running agent would
    apply all of it without a restart. ``subnets`` are those this host has now, ``subnets_then`` those that it would
    have; a free one is drawn by chance, so it may be another in the end.
    """

    changes: tuple[str, ...]
    live: bool
    subnets: tuple[str, ...]
    subnets_then: tuple[str, ...]
    lines: tuple[PlanLine, ...]
