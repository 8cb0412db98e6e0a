"""Where objects live: what the reconciler reads, watches and writes. The kernel is one; a cloud, a firewall or a
forwarder process are others. The only place where effects happen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_network
from typing import Any, ClassVar

import msgspec

from .objects import Identity, Object


class Actual(msgspec.Struct, frozen=True, gc=False):
    """An object as it was found, with facts for the status (handshake age, bytes), which are never compared."""

    object: Object
    facts: Mapping[str, Any] | None = None


class Put(msgspec.Struct, frozen=True, gc=False):
    """Make ``object`` so. ``previous`` is what stands there and is ours (change or replace it), or None: create it
    and overwrite nothing that is in the way."""

    object: Object
    previous: Object | None = None


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A write that did not succeed: ``reason`` for a person, ``foreign`` if something not ours is in the way."""

    object: Object
    reason: str
    foreign: bool = False


class Scope(msgspec.Struct, frozen=True):
    """What counts as ours, and how much of it to read.

    ``devices``: names of devices that are ours (present ones and ones recorded by an earlier run). ``networks``: the
    prefixes, as text, inside which a route with our protocol number is ours. ``external``: devices that are not ours
    but carry objects of ours. ``records``: what other targets recorded (tables, cloud routes), by target name.
    ``wanted``: the identities that are desired at any time (it is kept in step, not copied), of the target's own kinds.
    ``only``: None to read everything, else only what lies on these devices.
    """

    devices: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    external: frozenset[str] = frozenset()
    records: Mapping[str, frozenset[str]] = {}
    wanted: AbstractSet[Identity] = frozenset()
    only: frozenset[str] | None = None

    def covers(self, prefix: str) -> bool:
        """True if ``prefix`` is a part of one of ``networks``. All of one is no part of it, and text that is no prefix
        (a cloud's prefix list) lies nowhere."""
        try:
            inner = ip_network(prefix)
        except ValueError:
            return False
        return any(
            inner.version == outer.version and inner.prefixlen > outer.prefixlen and inner.network_address in outer
            for outer in map(ip_network, self.networks)
        )


class Changed(msgspec.Struct, frozen=True, gc=False):
    """One object changed: ``object`` is what stands there now, None if nothing does. ``by`` names who did it as far
    as is known (a program, a netlink port), for the journal."""

    identity: Identity
    object: Object | None
    by: str = ""


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """Something changed that notifications do not tell in full: read ``devices`` again, or everything (None)."""

    devices: frozenset[str] | None = None
    reason: str = ""


class TargetUnavailable(Exception):
    """Raised by ``read`` or ``write``: the place itself does not answer. Every object that lives there is a failure
    with this text, none of them is removed, the other targets go on, and it is tried again with backoff."""


async def _nobody_asked() -> bool:
    return False


def _held_as_far_as_is_known(subnet: str) -> bool:
    return True


class Target(ABC):
    """A place that holds objects.

    One instance serves one agent. All calls are made from one event loop; a blocking implementation runs its work in
    a thread.
    """

    name: ClassVar[str]
    stages: ClassVar[Mapping[type[Object], int]]
    """Kind -> stage. Puts run through the stages of all targets upwards, removals downwards. The kernel's: links 0,
    sysctls 10, addresses 20, neighbours and FDB 30, routes 40. A plugin chooses numbers around them."""
    poll_seconds: ClassVar[float | None] = None
    """How often everything is read again, for a target that cannot notify. None: ``watch`` tells."""
    slow: ClassVar[bool] = False
    """True where reads and writes take seconds (a cloud): no pass over other targets waits for this one, and its stages
    order only its own kinds."""
    scope: Scope = Scope()
    """What ``watch`` goes by. Every ``read`` and ``watch`` sets it to its argument; whoever uses the target may set it
    at any time, so that a running watch knows at once what else has become ours or wanted."""

    lease_is_ours: Callable[[], Awaitable[bool]] = staticmethod(_nobody_asked)
    """Set by the agent: asks the store whether our lease is ours at this moment. Where a place may hold one object per
    destination (a route of a cloud), what somebody else put there may be overwritten once this says True, and only
    then."""
    is_leased: Callable[[str], bool] = staticmethod(_held_as_far_as_is_known)
    """Set by the agent: whether a lease, ours among them, names this subnet. What a place keeps of hosts that are gone
    may be swept only where none does."""

    async def open(self) -> None:
        """Get what is needed to read, watch and write. Raises FlannelError with the cure."""

    async def close(self) -> None:
        """Give it back. What was written stays."""

    @abstractmethod
    async def read(self, scope: Scope) -> Iterable[Actual]:
        """What exists and is ours, within ``scope``. May be an iterator that reads while it is iterated over; of two
        objects with one identity the first counts."""

    def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        """What changes from now on. Subscribed when the iterator is made, before the first ``read``."""
        return _nothing()

    @abstractmethod
    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        """Write one stage's worth. One failing object never keeps another from being written. Removing what is
        already gone is a success."""


async def _nothing() -> AsyncIterator[Changed | Unknown]:
    return
    yield Unknown()
