from __future__ import annotations

import asyncio
import fcntl
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from flannel_core.claim import claim, described, own_leases
from flannel_core.hookspecs import hookimpl
from flannel_core.lease import Lease, Malformed
from flannel_core.lease_json import decode_lease, encode_lease
from flannel_core.state_file import write_atomically
from flannel_core.store import (
    Alive,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    Request,
    Snapshot,
    StoreContext,
    StoreError,
    StoreUnavailable,
    SubnetStore,
    Wish,
)

POLL_SECONDS = 0.2
T = TypeVar("T")


class JsonOptions(msgspec.Struct, frozen=True):
    file: str = "/srv/flannel/leases.json"  # the option --json-file and the variable FLANNELD_JSON_FILE


class Book(msgspec.Struct):
    """All that the file holds. A change of one entry, and no more than one, makes a revision."""

    revision: int = 0
    config: bytes | None = None
    entries: dict[str, tuple[bytes, int, int]] = {}  # by key: what Go flannel has in etcd, created, revision

    def entry(self, key: str) -> Lease | Malformed | None:
        if key not in self.entries:
            return None
        value, created, revision = self.entries[key]
        return decode_lease(key, value, created=created, revision=revision, expires=None)

    def snapshot(self) -> Snapshot:
        found = [self.entry(key) for key in self.entries]
        leases = tuple(entry for entry in found if isinstance(entry, Lease))
        return Snapshot(leases, tuple(entry for entry in found if isinstance(entry, Malformed)), self.revision)

    def put(self, lease: Lease) -> Lease:
        self.revision += 1
        lease = msgspec.structs.replace(lease, created=lease.created or self.revision, revision=self.revision)
        self.entries[lease.key] = (encode_lease(lease), lease.created, lease.revision)
        return lease


class JsonStore(SubnetStore[JsonOptions]):
    Options = JsonOptions
    capabilities = frozenset({"set_config"})

    def __init__(self, options: JsonOptions, context: StoreContext) -> None:
        super().__init__(options, context)
        self.location = options.file
        self._file = Path(options.file)
        self._closed = False
        self._ours: set[int] = set()  # the revisions that this host made

    async def close(self) -> None:
        self._closed = True

    def _read(self) -> Book:
        if self._closed:
            raise StoreUnavailable(f"{self.location}: closed")
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except OSError as error:
            raise StoreUnavailable(f"{self.location}: {error.strerror}") from error
        except (ValueError, msgspec.MsgspecError) as error:
            raise StoreError(f"--json-file {self.location} is no file of leases ({error}): move it away") from error

    async def _write(self, change: Callable[[Book], T]) -> T:
        """Apply ``change``; nobody else writes between reading and writing."""

        def locked() -> T:
            with self._file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                book = self._read()
                done = change(book)
                self._ours.add(book.revision)
                write_atomically(self._file, msgspec.json.encode(book))
                return done

        return await asyncio.to_thread(locked)

    async def _books(self) -> AsyncIterator[Book | None]:
        """The file now and after each change; None where nothing has changed."""
        last = None
        while not self._closed:
            try:
                book = await asyncio.to_thread(self._read)
                self.unavailable = None
                yield book if book != last else None
                last = book
            except StoreUnavailable as error:
                self.unavailable = str(error)
            await asyncio.sleep(POLL_SECONDS)

    async def config(self) -> AsyncIterator[ConfigText]:
        last = None
        async for book in self._books():
            if book and (text := ConfigText(book.config, f"{self.location} (config)")) != last:
                yield text
                last = text

    async def set_config(self, text: bytes) -> None:
        def change(book: Book) -> None:
            book.revision, book.config = book.revision + 1, text

        await self._write(change)

    async def leases(self) -> AsyncIterator[Snapshot | Change | Alive]:
        seen = None
        async for book in self._books():
            if book is None:
                yield Alive()
                continue
            if seen is None or book.revision != seen.revision + 1:
                yield book.snapshot()
            else:
                for key in dict(seen.entries.items() ^ book.entries.items()):
                    yield Change(key, book.entry(key), book.revision)
            seen = book

    async def previous(self, wish: Wish) -> Lease | None:
        return next(iter(own_leases(self._read().snapshot().leases, wish)), None)

    async def acquire(self, request: Request) -> Lease:
        def choose(book: Book) -> Lease:
            there = book.snapshot()
            return claim(request.config, request.wish, there.leases, there.malformed, random.Random()).lease

        if request.dry_run or self.context.dry_run:
            return choose(self._read())
        return await self._write(lambda book: book.put(choose(book)))

    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        def change(book: Book) -> Lease:
            if lost := self._lost(book, lease):
                raise LeaseLost(lost)
            return book.put(described(lease.subnets, wish, lease))

        return await self._write(change)

    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        async for book in self._books():
            if book and (lost := self._lost(book, lease)):
                return lost
        raise StoreUnavailable(f"{self.location}: closed")

    def _lost(self, book: Book, lease: Lease) -> Lost | None:
        entry = book.entry(lease.key)
        if entry and entry.revision in self._ours:
            return None
        return Lost(f"{lease.key} in {self.location} is another's", entry if isinstance(entry, Lease) else None)


@hookimpl
def flannel_store() -> type[JsonStore]:
    return JsonStore
