"""The store ``sqlite``: leases and net-conf.json in one file that several agents on one machine share."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from flannel_core.claim import (
    Claim,
    addresses,
    claim,
    described,
    key_of,
    named_subnets,
    overlapping,
    own_leases,
    says_the_same,
)
from flannel_core.config_file import ConfigFile
from flannel_core.errors import FlannelError
from flannel_core.lease import IPNetwork, Lease, Malformed
from flannel_core.netconf import check_config
from flannel_core.store import (
    Alive,
    Capability,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    NoSuchLease,
    OutOfSubnets,
    Request,
    Snapshot,
    StoreContext,
    SubnetStore,
    Wish,
)

from . import rows
from .engine import UNUSABLE, Closed, Engine

DEFAULT_FILE = "/var/lib/flannel/flannel.sqlite"
DEFAULT_TTL = 86_400
"""Seconds; Go flannel's 24 hours."""
ALIVE_SECONDS = 5.0
"""How often a quiet watch says Alive; the contract asks for 10 s at most."""
RETRY_SECONDS = 0.5
"""How soon a reader tries an unusable file again."""
MOST_RETRY_SECONDS = 30.0
"""How long the pause between two attempts to renew grows, as long as there is time."""
CLOCK_SECONDS = 1.0
"""How often the wall clock, which leases expire by and which may be set, is compared with the time to renew, and a
net-conf.json looked at."""


class SqliteOptions(msgspec.Struct, frozen=True):
    """``--sqlite-file``, ``--sqlite-lease-ttl``."""

    file: Annotated[
        str,
        msgspec.Meta(
            description="the file that the agents of this machine share; made, with its directory, when missing"
        ),
    ] = DEFAULT_FILE
    lease_ttl: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=31_536_000, description="seconds until a lease expires that is not renewed; for labs and tests"
        ),
    ] = DEFAULT_TTL


class SqliteStore(SubnetStore[SqliteOptions]):
    """Wall-clock times are those of the one machine. ``location`` is the file's path."""

    Options = SqliteOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "release", "reserve", "set_config", "expiry"})

    def __init__(self, options: SqliteOptions, context: StoreContext) -> None:
        super().__init__(options, context)
        path = Path(options.file).absolute()
        self.location = str(path)
        self._engine = Engine(path, context.dry_run, self._say)
        self._rng = random.Random()
        self._held: dict[str, Lease] = {}
        """What this host wrote last, by key: ``announce`` and ``keep`` may run side by side. Used in the file's thread
        only, so it is always as new as what is read there."""

    def _say(self, trouble: str | None) -> None:
        self.unavailable = trouble

    async def open(self) -> None:
        """Raises StoreError for a file that is not ours, not to be written or of a later release. A missing one is made
        at the first write."""
        await self._engine.open()

    async def close(self) -> None:
        """The iterators end; calls that wait, and later ones, raise StoreUnavailable."""
        await self._engine.close()

    # --- net-conf.json ---------------------------------------------------------------------------------------------

    async def config(self) -> AsyncIterator[ConfigText]:
        path = self.context.net_config_path
        file = None if path is None else ConfigFile(path)
        last = offered = None
        while True:
            changed = self._engine.changed
            try:
                if file is None:
                    text = ConfigText(await self._engine.read(rows.config), f"{self.location} (config)")
                else:
                    text = await self._engine.blocking(file.read)
            except Closed:
                return
            except UNUSABLE:
                await self._engine.wait(changed, RETRY_SECONDS)
                continue
            if text != last:
                yield text
                last = text
            if file is not None and offered != text and await self._take_over(text):
                offered = text
            await self._engine.wait(changed, CLOCK_SECONDS if file else None)

    async def _take_over(self, text: ConfigText) -> bool:
        """Write what stands in --net-config-path into the store. Once for each change of the file: two agents that are
        given different ones must not overwrite each other for ever. One that breaks a rule is not passed on. False:
        it has to be tried again."""
        if text.text is None or self.context.dry_run or check_config(text.text, text.source):
            return True
        try:
            await self.set_config(text.text)
        except UNUSABLE:
            return False
        return True

    async def set_config(self, text: bytes) -> None:
        if await self._engine.read(rows.config) != text:
            await self._engine.write(partial(rows.put_config, text=text))

    # --- our own lease ---------------------------------------------------------------------------------------------

    async def previous(self, wish: Wish) -> Lease | None:
        """One that has run out counts as long as nobody took it."""
        leases, _ = await self._engine.read(rows.entries)
        return next(iter(own_leases(leases, wish)), None)

    async def acquire(self, request: Request) -> Lease:
        if request.dry_run or self.context.dry_run:
            found, _ = await self._engine.read(partial(self._claim, request))
            return found.lease
        return await self._engine.write(partial(self._acquire, request), self._remember)

    def _acquire(self, request: Request, connection: sqlite3.Connection) -> Lease:
        found, run_out = self._claim(request, connection)
        rows.delete(connection, _written((*found.given_up, *run_out)))
        held, lease = found.held, found.lease
        if held is not None and held.expires is None:
            return held if says_the_same(held, lease) else rows.put(connection, lease)
        return rows.put(connection, msgspec.structs.replace(lease, expires=self._expiry()))

    def _claim(self, request: Request, connection: sqlite3.Connection | None) -> tuple[Claim, list[Lease]]:
        """What the host is to hold, and the leases of others that have to go for it: those that ran out, and only when
        nothing else is free, for their owners may be about to renew."""
        leases, malformed = rows.entries(connection)
        try:
            return claim(request.config, request.wish, leases, malformed, self._rng, whole=True), []
        except OutOfSubnets:
            now = time.time()
            alive = [lease for lease in leases if rows.is_alive(lease, now)]
            run_out = [lease for lease in leases if not rows.is_alive(lease, now)]
            return claim(request.config, request.wish, alive, malformed, self._rng), run_out

    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        lost = await self._engine.read(partial(self._own, lease))
        if isinstance(lost, Lost):
            raise LeaseLost(lost)
        return await self._engine.write(partial(self._announce, lease, wish), self._remember)

    def _announce(self, lease: Lease, wish: Wish, connection: sqlite3.Connection) -> Lease:
        row = self._own(lease, connection)
        if isinstance(row, Lost):
            raise LeaseLost(row)
        told = described(lease.subnets, wish, self._last(lease))
        stands = row.entry
        if isinstance(stands, Lease) and says_the_same(stands, told):
            return stands
        return rows.put(connection, msgspec.structs.replace(told, expires=row.expires and self._expiry()))

    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        """``margin_seconds`` counts as at least a tenth and at most half of the time that a lease lasts, and as up to a
        tenth more, so that hosts that started together do not renew together."""
        ttl = self.options.lease_ttl
        margin = min(max(margin_seconds, ttl / 10), ttl / 2) * self._rng.uniform(1, 1.1)
        pause = RETRY_SECONDS
        expires = lease.expires
        while True:
            changed = self._engine.changed
            try:
                row, contested = await self._engine.read(partial(self._look, lease))
                if not isinstance(row, Lost) and (contested or _needs_writing(row, margin)):
                    row = await self._engine.write(partial(self._renew, lease))
                    if not isinstance(row, Lost) and isinstance(row.entry, Lease):
                        self.on_renewal(row.entry)
                if contested:
                    self.on_contest()
            except Closed:
                raise
            except UNUSABLE:
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.5))
                left = MOST_RETRY_SECONDS if expires is None else (expires - time.time()) / 10
                pause = max(RETRY_SECONDS, min(2 * pause, left, MOST_RETRY_SECONDS))
                continue
            if isinstance(row, Lost):
                return row
            pause, expires = RETRY_SECONDS, row.expires
            while not await self._engine.wait(changed, CLOCK_SECONDS) and not _needs_writing(row, margin):
                pass

    def _renew(self, lease: Lease, connection: sqlite3.Connection) -> rows.Row | Lost:
        row = self._own(lease, connection)
        if isinstance(row, Lost):
            return row
        told = msgspec.structs.replace(self._last(lease), expires=row.expires and self._expiry())
        self._remember(rows.put(connection, told))
        return self._own(lease, connection)

    def _look(self, lease: Lease, connection: sqlite3.Connection | None) -> tuple[rows.Row | Lost, bool]:
        """The row of ``lease``, and whether another host has written it as it stood: a renewal, or an operator, would
        change when it expires."""
        row, last = self._own(lease, connection), self._last(lease)
        if isinstance(row, Lost) or row.revision <= last.revision or not isinstance(row.entry, Lease):
            return row, False
        if row.expires != last.expires:
            self._remember(row.entry)
            return row, False
        return row, True

    async def contest(self, lease: Lease, seconds: float) -> bool:
        touched = await self._engine.write(partial(self._touch, lease))
        give_up = time.monotonic() + seconds
        while touched is not None and (left := give_up - time.monotonic()) > 0:
            changed = self._engine.changed
            row = await self._engine.read(partial(rows.find, key=touched.key))
            if row is None or row.created != touched.created:
                return False
            if row.revision > touched.revision:
                return True
            await self._engine.wait(changed, left)
        return False

    def _touch(self, lease: Lease, connection: sqlite3.Connection) -> rows.Row | None:
        """The row of ``lease``, written once more; None if it is gone."""
        row = rows.find(connection, lease.key.encode())
        if row is None or row.created != lease.created or not isinstance(row.entry, Lease):
            return None
        rows.put(connection, row.entry)
        return rows.find(connection, row.key)

    def _own(self, lease: Lease, connection: sqlite3.Connection | None) -> rows.Row | Lost:
        """The row of ``lease`` as long as it is ours: of the same creation, and saying what we wrote, or nothing that
        can be read."""
        row = rows.find(connection, lease.key.encode())
        if row is None:
            alive = [other for other in rows.entries(connection)[0] if rows.is_alive(other, time.time())]
            holder = overlapping(lease.subnets, alive)
            return Lost(f"{lease.key} is gone from {self.location}: released, or run out", holder)
        entry = row.entry
        if isinstance(entry, Malformed):
            if row.created == lease.created:
                return row
            return Lost(f"{lease.key} in {self.location} was made anew, and is malformed: {entry.reason}")
        if row.created != lease.created:
            return Lost(f"{lease.key} in {self.location} was made anew, for {addresses(entry)}", entry)
        if not says_the_same(entry, self._last(lease)):
            return Lost(f"{lease.key} in {self.location} was taken over by {addresses(entry)}", entry)
        return row

    def _last(self, lease: Lease) -> Lease:
        """``lease`` as this host wrote it last."""
        held = self._held.get(lease.key, lease)
        return held if held.created == lease.created and held.revision >= lease.revision else lease

    def _remember(self, lease: Lease) -> None:
        self._held[lease.key] = lease

    def _expiry(self) -> float:
        return time.time() + self.options.lease_ttl

    # --- all leases ------------------------------------------------------------------------------------------------

    async def leases(self) -> AsyncIterator[Snapshot | Change | Alive]:
        seen: rows.Position | None = None
        while True:
            changed = self._engine.changed
            try:
                seen, events = await self._engine.read(partial(rows.since, seen=seen, now=time.time()))
            except Closed:
                return
            except UNUSABLE:
                await self._engine.wait(changed, RETRY_SECONDS)
                continue
            while events:  # nothing here holds on to a list of all leases once it was told
                yield events.pop(0)
            told = time.monotonic()
            while not await self._engine.wait(changed, ALIVE_SECONDS):
                if self._engine.answered > told:
                    yield Alive()
                    told = time.monotonic()

    # --- for flannelctl and the kit --------------------------------------------------------------------------------

    async def list(self) -> Snapshot:
        return await self._engine.read(partial(rows.snapshot, now=time.time()))

    async def release(self, subnet: IPNetwork) -> None:
        await self._engine.read(partial(self._rows_of, subnet))  # writing would make a missing file
        await self._engine.write(lambda connection: rows.delete(connection, self._rows_of(subnet, connection)))

    async def give_up(self, lease: Lease) -> bool:
        if await self._engine.read(partial(rows.find, key=lease.key.encode())) is None:
            return False  # writing would make a missing file
        return await self._engine.write(partial(self._give_up, lease))

    def _give_up(self, lease: Lease, connection: sqlite3.Connection) -> bool:
        row = rows.find(connection, lease.key.encode())
        if row is None or not isinstance(row.entry, Lease) or not row.entry.continues(lease):
            return False
        rows.delete(connection, [(row.key, row.revision)])
        return True

    def _rows_of(self, subnet: IPNetwork, connection: sqlite3.Connection | None) -> Sequence[rows.Written]:
        leases, malformed = rows.entries(connection)
        everything: tuple[Lease | Malformed, ...] = (*leases, *malformed)
        found = [(entry.key.encode(), entry.revision) for entry in everything if subnet in named_subnets(entry.key)]
        if not found:
            raise NoSuchLease(f"{subnet} is leased to nobody in {self.location}")
        return found

    async def reserve(self, lease: Lease) -> Lease:
        """A lease of the same subnet and address becomes a reservation and keeps its data. Raises FlannelError if the
        subnet, or a part of it, is another's."""
        return await self._engine.write(partial(self._reserve, lease))

    def _reserve(self, lease: Lease, connection: sqlite3.Connection) -> Lease:
        leases, malformed = rows.entries(connection)
        key = key_of(lease.subnets)
        if any(entry.key == key for entry in malformed):
            raise FlannelError(
                f"{key} cannot be reserved: what {self.location} holds there is malformed; release it first"
            )
        reserved, run_out = lease, []
        for other in leases:
            if overlapping(lease.subnets, [other]) is None:
                continue
            if other.key == key and addresses(other) == addresses(lease):
                reserved = other
            elif not rows.is_alive(other, time.time()):
                run_out.append(other)
            else:
                raise FlannelError(
                    f"{key} cannot be reserved for {addresses(lease)}: {other.key} is held by {addresses(other)} in "
                    f"{self.location}; release it first"
                )
        rows.delete(connection, _written(run_out))
        if reserved is not lease and reserved.expires is None:
            return reserved
        return rows.put(connection, msgspec.structs.replace(reserved, key=key, expires=None))


def _written(leases: Iterable[Lease]) -> Sequence[rows.Written]:
    return [(lease.key.encode(), lease.revision) for lease in leases]


def _needs_writing(row: rows.Row, margin: float) -> bool:
    """Whether it is time to renew, or somebody made our lease unreadable."""
    return isinstance(row.entry, Malformed) or (row.expires is not None and time.time() >= row.expires - margin)
