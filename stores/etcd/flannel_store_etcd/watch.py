"""A watch of a range of keys that never ends, loses nothing and repeats nothing.

Where it resumes is told by events, and by the progress notifications that etcd sends by itself once what came before
them was sent. (Those that a client asks for may overtake events in etcd before 3.5.8, so none are asked for.)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from . import rpc_pb2 as pb
from .client import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Client, Closed
from .connection import Connection, NoAnswer, Refused
from .rpc import RANGE

QUIET_SECONDS = 5.0
"""After how long without a word the member is asked whether it is still there."""


class Position(NamedTuple):
    """Up to where a watcher knows everything: a revision of one cluster, and the term of its leader then."""

    cluster: int
    revision: int
    term: int

    @staticmethod
    def of(header: pb.ResponseHeader) -> Position:
        return Position(header.cluster_id, header.revision, header.raft_term)


class Listing(NamedTuple):
    """Everything in the range, first and after every gap."""

    entries: tuple[pb.KeyValue, ...]
    position: Position


class Event(NamedTuple):
    """``entry`` was put, or deleted: then it has only its key and the revision of that in ``mod_revision``."""

    entry: pb.KeyValue
    deleted: bool


class Quiet(NamedTuple):
    """The member answers, and nothing new has been heard."""


class _Compacted(Exception):
    """What happened since the position is not known to etcd any more."""


class _Cancelled(Exception):
    """etcd ended the watch: it lost its leader, or our token, or we our rights."""


async def listing(client: Client, key: bytes, end: bytes = b"") -> Listing:
    """Everything in the range now. Raises StoreUnavailable."""
    answer = await client.call(RANGE, pb.RangeRequest(key=key, range_end=end), patient=True)
    return Listing(tuple(answer.kvs), Position.of(answer.header))


async def watch(
    client: Client, key: bytes, end: bytes = b"", *, quiet: float = QUIET_SECONDS
) -> AsyncGenerator[Listing | Event | Quiet, None]:
    """A Listing, and then every change of the range. While etcd is away it is waited for. Quiet comes every ``quiet``
    seconds in which there is no change. Ends when the client is closed."""
    position: Position | None = None
    newest: Event | None = None
    pause = 0.0
    try:
        while True:
            connection = await client.reconnection()
            try:
                if position is None or not await _remembers(connection, position, newest):
                    found = [await listing(client, key, end)]
                    position, newest = found[0].position, _newest(found[0])
                    # Handed over: what this frame keeps stays in memory while thousands of leases are planned.
                    yield found.pop()
                async with aclosing(_follow(connection, key, end, position, quiet)) as steps:
                    async for known, step in steps:
                        position, pause = known, 0.0
                        if isinstance(step, Event):
                            newest = step
                        if step is not None:
                            yield step
            except _Compacted:
                position = None
            except _Cancelled:
                await _ask_why(client, key, end)
            except NoAnswer:
                client.drop(connection)
            except Refused:
                pass  # the status says why
            if pause:
                await client.pause(pause * random.uniform(0.5, 1))
            pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    except Closed:
        return


def _newest(found: Listing) -> Event | None:
    """Without its value, and a copy: a part of etcd's answer keeps the whole of it in memory."""
    newest = max(found.entries, key=lambda entry: entry.mod_revision, default=None)
    if newest is None:
        return None
    return Event(pb.KeyValue(key=newest.key, mod_revision=newest.mod_revision, lease=newest.lease), deleted=False)


async def _remembers(connection: Connection, position: Position, newest: Event | None) -> bool:
    """False if the member is not of the cluster that ``position`` is of, or of that one as it was restored from an
    older state. A restored one may have come as far again, so it is also asked for the ``newest`` event."""
    now = Position.of(connection.header)
    if now.cluster != position.cluster or now.revision < position.revision or now.term < position.term:
        return False
    if newest is None:
        return False
    key, revision = newest.entry.key, newest.entry.mod_revision
    try:
        then = await connection.call(RANGE, pb.RangeRequest(key=key, revision=revision, keys_only=True))
    except Refused:
        return False  # compacted
    if newest.deleted or not then.kvs:
        return newest.deleted and not then.kvs
    found = then.kvs[0]  # by its etcd lease told from another host's at the same subnet and revision
    return (found.mod_revision, found.lease) == (revision, newest.entry.lease)


async def _follow(
    connection: Connection, key: bytes, end: bytes, position: Position, quiet: float
) -> AsyncGenerator[tuple[Position, Event | Quiet | None], None]:
    """What happens after ``position``, each with what is known by then. Raises NoAnswer, Refused, _Compacted,
    _Cancelled."""
    create = pb.WatchCreateRequest(key=key, range_end=end, start_revision=position.revision + 1, progress_notify=True)
    async with connection.watching(pb.WatchRequest(create_request=create)) as answers:
        while True:
            try:
                async with asyncio.timeout(quiet):
                    answer = await answers.get()
            except TimeoutError:
                await _still_there(connection, key, quiet)
                yield position, Quiet()
                continue
            if isinstance(answer, Exception):
                raise answer
            if answer.compact_revision:
                raise _Compacted
            if answer.canceled:
                raise _Cancelled
            for event in answer.events:
                if event.kv.mod_revision > position.revision:
                    yield position, Event(event.kv, event.type == pb.Event.DELETE)
            if answer.events:
                # The header's revision may be ahead of the events while etcd sends a long past in parts.
                position = position._replace(revision=answer.events[-1].kv.mod_revision, term=answer.header.raft_term)
            elif not answer.created:
                position = Position.of(answer.header)
            yield position, None


async def _still_there(connection: Connection, key: bytes, quiet: float) -> None:
    """Raises NoAnswer if the member is dead or frozen. One that has lost its leader ends the watch by itself."""
    if connection.heard + quiet <= asyncio.get_running_loop().time():
        await connection.call(RANGE, pb.RangeRequest(key=key, keys_only=True, serializable=True))


async def _ask_why(client: Client, key: bytes, end: bytes) -> None:
    """A call gets a new token or is refused for a reason that the status shows, or finds a member with a leader."""
    try:
        await client.call(RANGE, pb.RangeRequest(key=key, range_end=end, limit=1, keys_only=True))
    except (NoAnswer, Refused):
        pass
