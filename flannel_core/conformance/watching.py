"""What a watcher of a store has heard, for checks that wait for something to be heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from flannel_core.lease import Lease, Malformed
from flannel_core.store import Alive, Change, Snapshot, SubnetStore

EntryT = TypeVar("EntryT", bound=Lease | Malformed | None)


def told(entry: EntryT) -> EntryT:
    """``entry`` as every store tells it to everybody. When a lease expires only its own host has to know: a store may
    leave that out (None) where finding out would be a question per lease."""
    return msgspec.structs.replace(entry, expires=None) if isinstance(entry, Lease) else entry


class Standing:
    """What stands in a store that has these entries and no others: equal to a mapping that says so, by key."""

    def __init__(self, *entries: Lease | Malformed) -> None:
        self._entries = {entry.key: told(entry) for entry in entries}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and {key: told(entry) for key, entry in other.items()} == self._entries

    def __repr__(self) -> str:
        return repr(self._entries)


def by_key(snapshot: Snapshot) -> dict[str, Lease | Malformed]:
    """What stands in a store according to a snapshot."""
    return {lease.key: lease for lease in snapshot.leases} | {entry.key: entry for entry in snapshot.malformed}


class Watcher:
    """``events`` are all that ``leases()`` yielded, ``view`` is what stands there according to them, by key."""

    def __init__(self) -> None:
        self.events: list[Snapshot | Change | Alive] = []
        self.view: dict[str, Lease | Malformed] = {}
        self.ended = False
        self._heard = asyncio.Event()

    @property
    def snapshots(self) -> list[Snapshot]:
        return [event for event in self.events if isinstance(event, Snapshot)]

    @property
    def changes(self) -> list[Change]:
        return [event for event in self.events if isinstance(event, Change)]

    async def until(self, true: Callable[[Watcher], object], seconds: float) -> None:
        """Wait until ``true(self)``. Raises AssertionError with what was heard instead."""
        try:
            async with asyncio.timeout(seconds):
                while not true(self):
                    assert not self.ended, f"leases() ended; heard was:\n{self._said()}"
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s; heard was:\n{self._said()}") from None

    def _said(self) -> str:
        return "\n".join(map(str, self.events)) or "nothing"

    async def listen(self, store: SubnetStore[Any]) -> None:
        """Take in what the store says, for ever."""
        try:
            async for event in store.leases():
                self._take_in(event)
        finally:
            self.ended = True
            self._heard.set()

    def _take_in(self, event: Snapshot | Change | Alive) -> None:
        if isinstance(event, Snapshot):
            self.view = by_key(event)
        elif isinstance(event, Change) and event.entry is None:
            self.view.pop(event.key, None)
        elif isinstance(event, Change):
            assert event.entry is not None
            self.view[event.key] = event.entry
        self.events.append(event)
        self._heard.set()


@asynccontextmanager
async def watching(store: SubnetStore[Any], seconds: float) -> AsyncIterator[Watcher]:
    """A Watcher that has its first Snapshot. Whatever ends its iterator early is raised at the end."""
    watcher = Watcher()
    listening = asyncio.create_task(watcher.listen(store))
    try:
        await watcher.until(lambda w: w.snapshots, seconds)
        yield watcher
        assert not watcher.ended, "leases() ended"
    finally:
        listening.cancel()
        try:
            await listening
        except asyncio.CancelledError:
            pass
