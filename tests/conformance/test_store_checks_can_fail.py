"""Every check of the kit of stores can fail: each promise is broken by a store with one fault that is else sqlite."""

from __future__ import annotations

import asyncio
import random
import runpy
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from flannel_core.claim import described, own_leases
from flannel_core.conformance.stores import StoreConformance
from flannel_core.errors import FlannelError
from flannel_core.lease import IPNetwork, Lease, Malformed
from flannel_core.store import (
    Alive,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    NoSuchLease,
    Request,
    Snapshot,
    StoreContext,
    Wish,
)
from flannel_store_sqlite import engine, rows, sqlite
from flannel_store_sqlite.sqlite import SqliteStore

Conformance: Any = runpy.run_path(str(Path(__file__).parents[2] / "stores/sqlite/tests/test_conformance.py"))[
    "TestConformance"
]
"""As the store's own tests have it."""
PATIENCE = 0.8
"""Seconds, in place of the kit's; enough for the store without a fault, as is shown below."""
FAULTS: list[tuple[str, type[SqliteStore]]] = []
"""A promise, by the check's name, and a store that breaks it."""

StoreT = TypeVar("StoreT", bound=type[SqliteStore])


def breaks(*promises: str) -> Callable[[StoreT], StoreT]:
    def enter(faulty: StoreT) -> StoreT:
        FAULTS.extend((promise, faulty) for promise in promises)
        return faulty

    return enter


# --- a subnet for a host --------------------------------------------------------------------------------------------


@breaks("test_a_host_gets_a_free_subnet_that_says_what_it_wished")
class ForgetsTheData(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        return await super().acquire(replace(request, wish=replace(request.wish, ipv4_data=None)))


@breaks("test_hosts_get_subnets_of_their_own")
class HandsOneSubnetToTwoHosts(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        everybody = next((lease for lease in (await self.list()).leases), None)
        return everybody or await super().acquire(request)


@breaks("test_twenty_hosts_racing_for_twenty_subnets_all_get_one")
class LosesRaces(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        found, _ = await self._engine.read(lambda connection: self._claim(request, connection))
        await asyncio.sleep(0.2)
        return await self._engine.write(lambda connection: rows.put(connection, found.lease))


@breaks("test_the_subnet_that_subnet_env_names_is_taken_if_it_is_free")
class ForgetsSubnetEnv(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        self._rng = random.Random(1)
        return await super().acquire(replace(request, wish=replace(request.wish, previous_subnets=())))


@breaks("test_a_host_that_asks_ten_times_has_one_lease")
class LeasesAnewEachTime(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        if held := await self.previous(request.wish):
            await self.release(held.subnets[0])
        return await super().acquire(request)


@breaks("test_a_host_that_comes_back_finds_its_lease_by_its_address")
class KnowsNobodyAgain(SqliteStore):
    async def previous(self, wish: Wish) -> Lease | None:
        return None


@breaks("test_a_host_does_not_find_the_lease_of_another")
class TakesAnyLeaseForItsOwn(SqliteStore):
    async def previous(self, wish: Wish) -> Lease | None:
        return next(iter((await self.list()).leases), None)


@breaks("test_a_host_with_a_new_address_finds_its_lease_by_what_it_remembers")
class KnowsHostsByTheirAddressOnly(SqliteStore):
    async def previous(self, wish: Wish) -> Lease | None:
        return await super().previous(replace(wish, remembered_key=None))


@breaks("test_a_remembered_subnet_that_was_leased_anew_is_not_taken_over")
class TakesAnyLeaseOfARememberedKey(SqliteStore):
    async def previous(self, wish: Wish) -> Lease | None:
        leases = (await self.list()).leases
        return next((lease for lease in leases if lease.key == wish.remembered_key), None)


@breaks("test_hosts_that_announce_no_address_do_not_find_each_others_lease")
class TakesNoAddressForAnAddress(SqliteStore):
    async def previous(self, wish: Wish) -> Lease | None:
        leases = (await self.list()).leases
        return next((lease for lease in leases if lease.ipv4 and lease.ipv4.public_ip == wish.public_ipv4), None)


@breaks("test_a_lease_that_does_not_fit_the_configuration_is_given_up_for_one_that_does")
class KeepsWhatDoesNotFit(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        return await self.previous(request.wish) or await super().acquire(request)


@breaks("test_a_dry_run_writes_nothing", "test_a_dry_run_of_a_host_that_has_a_lease_names_it_and_writes_nothing")
class WritesInADryRun(SqliteStore):
    def __init__(self, options: Any, context: StoreContext) -> None:
        super().__init__(options, replace(context, dry_run=False))

    async def acquire(self, request: Request) -> Lease:
        return await super().acquire(replace(request, dry_run=False))


# --- announcing -----------------------------------------------------------------------------------------------------


@breaks("test_a_new_address_is_announced_under_the_same_subnet_and_heard")
class AnnouncesToNobody(SqliteStore):
    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        return described(lease.subnets, wish, lease)


@breaks("test_a_lost_lease_is_not_announced")
class AnnouncesALostLease(SqliteStore):
    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        try:
            return await super().announce(lease, wish)
        except LeaseLost:
            return lease


# --- keeping --------------------------------------------------------------------------------------------------------


@breaks("test_a_lease_that_is_kept_does_not_expire")
class RenewsByLeasingAnew(SqliteStore):
    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        def anew(connection: Any) -> Lease:
            rows.delete(connection, [(lease.key.encode(), lease.revision)])
            return rows.put(connection, replace(lease, expires=time.time() + self.options.lease_ttl))

        while True:
            await asyncio.sleep(0.2)
            lease = await self._engine.write(anew)


@breaks("test_a_lease_that_nobody_keeps_is_gone_for_everybody")
class LetsNothingExpire(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        self.options = replace(self.options, lease_ttl=86_400)
        return await super().acquire(request)


@breaks("test_a_released_lease_is_lost_to_its_keeper", "test_a_lease_that_another_host_took_over_is_lost_to_its_keeper")
class RenewsALostLease(SqliteStore):
    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        lost = await super().keep(lease, margin_seconds)
        await self._engine.write(lambda connection: rows.put(connection, lease))
        await asyncio.Future()
        return lost


@breaks("test_a_lease_is_kept_through_an_announcement_of_its_own_host")
class TakesItsOwnAnnouncementForAnothers(SqliteStore):
    def _remember(self, lease: Lease) -> None:
        self._held.setdefault(lease.key, lease)


# --- releasing and reserving ----------------------------------------------------------------------------------------


@breaks("test_a_released_subnet_is_free_again")
class ReleasesNothing(SqliteStore):
    async def release(self, subnet: IPNetwork) -> None:
        return


@breaks("test_a_host_gives_its_lease_up_once")
class GivesUpInWordsOnly(SqliteStore):
    async def give_up(self, lease: Lease) -> bool:
        return True


@breaks(
    "test_what_another_host_got_meanwhile_is_not_given_up",
    "test_what_became_a_reservation_is_not_given_up_by_its_host",
)
class GivesUpWhatStandsThere(SqliteStore):
    async def give_up(self, lease: Lease) -> bool:
        await self.release(lease.subnets[0])
        return True


@breaks("test_releasing_what_nobody_holds_is_refused_by_name")
class ReleasesWhatNobodyHolds(SqliteStore):
    async def release(self, subnet: IPNetwork) -> None:
        try:
            await super().release(subnet)
        except NoSuchLease:
            pass


@breaks("test_a_reservation_is_found_by_its_owner_and_stays_one")
class LetsReservationsExpire(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        lease = replace(await super().acquire(request), expires=self._expiry())
        return await self._engine.write(lambda connection: rows.put(connection, lease))


@breaks("test_a_lease_in_use_becomes_a_reservation_and_keeps_what_it_says")
class ReservesByLeasingAnew(SqliteStore):
    async def reserve(self, lease: Lease) -> Lease:
        if lease.subnets[0] in {subnet for held in (await self.list()).leases for subnet in held.subnets}:
            await self.release(lease.subnets[0])
        return await super().reserve(lease)


@breaks("test_what_is_reserved_or_held_for_one_host_goes_to_no_other")
class TakesAReservationThatIsNotInUse(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        for lease in (await self.list()).leases:
            if lease.expires is None and lease not in own_leases([lease], request.wish):
                await self.release(lease.subnets[0])
        return await super().acquire(request)


@breaks("test_what_is_reserved_or_held_for_one_host_goes_to_no_other")
class ReservesWhatAnotherHolds(SqliteStore):
    async def reserve(self, lease: Lease) -> Lease:
        try:
            return await super().reserve(lease)
        except FlannelError:
            return lease


# --- watching -------------------------------------------------------------------------------------------------------

Events = AsyncIterator[Snapshot | Change | Alive]


@breaks("test_a_watcher_hears_a_snapshot_and_then_every_change")
class LosesARelease(SqliteStore):
    async def leases(self) -> Events:
        async for event in super().leases():
            if not isinstance(event, Change) or event.entry is not None:
                yield event


@breaks("test_a_watcher_hears_a_snapshot_and_then_every_change")
class RepeatsEvents(SqliteStore):
    async def leases(self) -> Events:
        async for event in super().leases():
            yield event
            if isinstance(event, Change):
                yield event


class Retells(SqliteStore):
    def retold(self, entry: Lease | Malformed) -> Lease | Malformed | None:
        """What it says of an entry; None: nothing."""
        raise NotImplementedError

    async def leases(self) -> Events:
        async for event in super().leases():
            if isinstance(event, Snapshot):
                entries = [self.retold(entry) for entry in (*event.leases, *event.malformed)]
                leases = tuple(entry for entry in entries if isinstance(entry, Lease))
                yield replace(event, leases=leases, malformed=tuple(e for e in entries if isinstance(e, Malformed)))
            elif isinstance(event, Alive) or event.entry is None:
                yield event
            elif retold := self.retold(event.entry):
                yield replace(event, entry=retold)


@breaks("test_a_host_hears_of_its_own_lease")
class HidesALeaseFromItsHost(Retells):
    def retold(self, entry: Lease | Malformed) -> Lease | Malformed | None:
        return None if entry.key in self._held else entry


@breaks("test_an_entry_of_a_go_node_is_a_lease")
class WantsAMacOfEverybody(Retells):
    def retold(self, entry: Lease | Malformed) -> Lease | Malformed | None:
        lacks_one = isinstance(entry, Lease) and entry.ipv4 and b"VtepMAC" not in entry.ipv4.data
        return Malformed(entry.key, "no VtepMAC") if lacks_one else entry


@breaks(
    "test_a_malformed_entry_is_named_and_harms_nobody",
    "test_an_entry_whose_key_names_no_subnet_harms_nobody",
    "test_the_list_is_the_snapshot",
)
class SaysNothingOfMalformedEntries(Retells):
    def retold(self, entry: Lease | Malformed) -> Lease | Malformed | None:
        return entry if isinstance(entry, Lease) else None


@breaks("test_the_subnet_that_a_malformed_entry_is_named_after_goes_to_nobody")
class GivesAwayWhatIsMalformed(SqliteStore):
    async def acquire(self, request: Request) -> Lease:
        for entry in (await self.list()).malformed:
            await self._engine.write(partial(rows.delete, written=[(entry.key.encode(), entry.revision)]))
        return await super().acquire(request)


@breaks("test_a_malformed_entry_is_named_and_harms_nobody")
class EndsAtAMalformedEntry(SqliteStore):
    async def leases(self) -> Events:
        async for event in super().leases():
            if isinstance(event, Change) and isinstance(event.entry, Malformed):
                return
            yield event


@breaks("test_a_watcher_that_missed_something_gets_a_snapshot")
class LosesAnEventOverAGap(SqliteStore):
    async def leases(self) -> Events:
        snapshots = 0
        async for event in super().leases():
            snapshots += isinstance(event, Snapshot)
            if not isinstance(event, Snapshot) or snapshots == 1:
                yield event


@breaks("test_a_watcher_that_missed_something_gets_a_snapshot")
class ForgetsHowNewASnapshotIs(SqliteStore):
    async def leases(self) -> Events:
        async for event in super().leases():
            yield replace(event, revision=0) if isinstance(event, Snapshot) else event


@breaks("test_a_quiet_watch_says_that_it_is_alive")
class IsQuietAsIfItWereDead(SqliteStore):
    async def leases(self) -> Events:
        async for event in super().leases():
            if not isinstance(event, Alive):
                yield event


# --- net-conf.json --------------------------------------------------------------------------------------------------


@breaks("test_the_configuration_is_waited_for_and_followed")
class ReadsTheConfigurationOnce(SqliteStore):
    async def config(self) -> AsyncIterator[ConfigText]:
        async for text in super().config():
            yield text
            if text.text is not None:
                await asyncio.Future()


@breaks("test_the_configuration_is_waited_for_and_followed")
class PassesOnWhatItUnderstands(SqliteStore):
    async def config(self) -> AsyncIterator[ConfigText]:
        async for text in super().config():
            if text.text is None or text.text.endswith(b"}"):
                yield text


@breaks("test_a_configuration_that_stands_there_is_read_at_once")
class WaitsForANewConfiguration(SqliteStore):
    async def config(self) -> AsyncIterator[ConfigText]:
        texts = super().config()
        await anext(texts)
        async for text in texts:
            yield text


# --- the end --------------------------------------------------------------------------------------------------------


@breaks("test_a_store_is_closed_ten_times_and_answers_no_more")
class ReleasesItsLeaseAtTheEnd(SqliteStore):
    async def close(self) -> None:
        for lease in self._held.values():
            await self.release(lease.subnets[0])
        self._held.clear()
        await super().close()


@breaks("test_a_store_is_closed_ten_times_and_answers_no_more")
class KeepsSilentlyOnceItIsClosed(SqliteStore):
    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        try:
            return await super().keep(lease, margin_seconds)
        except Exception:
            return Lost("closed")


# --- the table ------------------------------------------------------------------------------------------------------


def held_to(promise: str, store_class: type[SqliteStore], place: Path) -> None:
    """Run one check, of a parametrized one the first case."""
    kit = type("Held", (Conformance,), {"store_class": store_class, "patience": PATIENCE, "quiet": PATIENCE})()
    check = getattr(kit, promise)
    cases = [mark.args for mark in getattr(check, "pytestmark", ()) if mark.name == "parametrize"]
    check(place, **{name: next(iter(values)) for name, values in cases})


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does in half of that what it otherwise takes longer for."""
    monkeypatch.setattr(sqlite, "ALIVE_SECONDS", PATIENCE / 2)
    monkeypatch.setattr(engine, "SWEEP_SECONDS", PATIENCE / 4)


@pytest.mark.parametrize(("promise", "faulty"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_is_found(promise: str, faulty: type[SqliteStore], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        held_to(promise, faulty, tmp_path)


@pytest.mark.parametrize("promise", sorted({promise for promise, _ in FAULTS}))
def test_the_store_without_the_fault_keeps_it(promise: str, tmp_path: Path) -> None:
    held_to(promise, SqliteStore, tmp_path)


def test_every_promise_is_broken_by_somebody() -> None:
    assert {promise for promise, _ in FAULTS} == {name for name in dir(StoreConformance) if name.startswith("test_")}
