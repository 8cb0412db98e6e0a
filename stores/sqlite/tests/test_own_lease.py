"""Keeping a lease where the clock jumps, an operator edits, the disk fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_core.conformance.stores import IPV4, ONE, host, reservation
from flannel_core.conformance.watching import watching
from flannel_core.errors import FlannelError
from flannel_core.store import Request, StoreError
from flannel_store_sqlite import engine
from flannel_store_sqlite.sqlite import SqliteOptions


def test_a_clock_that_jumps_two_days_loses_only_the_lease_that_nobody_keeps(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            kept = [await store.acquire(Request(IPV4, host(number))) for number in range(1, 6)]
            left = await peer.acquire(Request(IPV4, host(9)))
            keeping = [asyncio.create_task(store.keep(lease, 3600)) for lease in kept]
            async with watching(peer, 5) as watcher:
                now = time.time
                monkeypatch.setattr(time, "time", lambda: now() + 172_800)
                await watcher.until(lambda w: any(c.key == left.key and c.entry is None for c in w.changes), 10)
                assert {lease.created for lease in (await peer.list()).leases} == {lease.created for lease in kept}
            assert not any(task.done() for task in keeping)
            for task in keeping:
                task.cancel()

    asyncio.run(body())


def test_a_lease_that_ran_out_is_its_hosts_own_until_somebody_needs_it(
    opened: Any, sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SWEEP_SECONDS", 3600)

    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1, previous_subnets=ONE_SUBNET)))
            sqlite(f"UPDATE leases SET expires = {time.time() - 1}")
            assert (await store.list()).leases == ()
            assert (await store.previous(host(1))).key == lease.key
            assert (await store.acquire(Request(IPV4, host(2, previous_subnets=ONE_SUBNET)))).subnets != ONE_SUBNET
            again = await store.acquire(Request(IPV4, host(1)))
            assert (again.key, again.created) == (lease.key, lease.created)
            sqlite(f"UPDATE leases SET expires = {time.time() - 1}")
            taken = await store.acquire(Request(ONE, host(3)))
            assert taken.subnets == ONE_SUBNET
            assert taken.created > lease.created

    asyncio.run(body())


ONE_SUBNET = reservation(subnet="10.5.7.0/24").subnets


@pytest.mark.parametrize("margin", [0.0, 1.0, 7200.0, 1e9])
def test_a_lease_is_renewed_when_its_time_has_come_and_not_before(
    opened: Any, sqlite: Any, margin: float, eventually: Any
) -> None:
    async def body() -> None:
        async with opened(lease_ttl=7200) as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, margin))
            await asyncio.sleep(0.3)
            assert (await store.list()).leases == (lease,), "it has just been written"
            sqlite(f"UPDATE leases SET expires = {time.time() + 600}")
            await eventually(lambda: sqlite("SELECT expires FROM leases")[0][0] > time.time() + 7000)
            keeping.cancel()

    asyncio.run(body())


def test_a_value_that_somebody_made_unreadable_is_put_back(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            async with watching(peer, 5) as watcher:
                sqlite("UPDATE leases SET value = 'scribble'")
                await watcher.until(
                    lambda w: len(w.changes) >= 1 and w.view[lease.key].revision > lease.revision + 1, 5
                )
                put_back = watcher.view[lease.key]
                assert msgspec.structs.replace(put_back, revision=0, expires=0) == msgspec.structs.replace(
                    lease, revision=0, expires=0
                )
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())


def test_an_operators_delete_is_heard_by_its_keeper_and_everybody(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store, watching(store, 5) as watcher:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            sqlite("DELETE FROM leases")
            lost = await asyncio.wait_for(keeping, 5)
            assert (
                lost.reason
                == f"10.5.{lease.key.split('.')[2]}.0-24 is gone from {store.location}: released, or run out"
            )
            await watcher.until(lambda w: w.view == {}, 5)

    asyncio.run(body())


def test_a_lease_that_was_made_anew_is_another_though_it_says_the_same(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            ((value,),) = sqlite("SELECT value FROM leases")
            sqlite("DELETE FROM leases", f"INSERT INTO leases (key, value) VALUES ('{lease.key}', '{value}')")
            lost = await asyncio.wait_for(keeping, 5)
            assert "was made anew, for 192.0.2.1" in lost.reason
            assert lost.holder is not None
            assert lost.holder.created > lease.created

    asyncio.run(body())


def test_a_lease_is_kept_while_its_own_host_asks_again_with_something_new_to_say(opened: Any) -> None:
    async def body() -> None:
        async with opened() as store, watching(store, 5) as watcher:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            again = await store.acquire(Request(IPV4, host(1, ipv4_data=b'{"VNI":9}')))
            await watcher.until(lambda w: w.view == {again.key: again}, 5)
            other = await store.acquire(Request(IPV4, host(2)))
            await watcher.until(lambda w: other.key in w.view, 5)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())


def test_who_keeps_a_lease_answers_who_asks_for_it_and_nobody_else_does(opened: Any, eventually: Any) -> None:
    async def body() -> None:
        async with opened() as one, opened() as two:
            lease = await one.acquire(Request(IPV4, host(1)))
            assert not await two.contest(lease, 0.3)
            (stands,) = (await two.list()).leases
            assert stands == msgspec.structs.replace(lease, revision=stands.revision)
            asked: list[str] = []
            one.on_contest = lambda: asked.append("asked")
            keeping = asyncio.create_task(one.keep(lease, 3600))
            assert await two.contest(lease, 5)
            await two.reserve(lease)
            await eventually(lambda: one._held[lease.key].expires is None)
            assert await two.contest(lease, 5)
            assert asked == ["asked"] * 2
            assert [entry.expires for entry in (await two.list()).leases] == [None]
            assert not keeping.done()
            keeping.cancel()
            assert not await two.contest(msgspec.structs.replace(lease, created=1), 0.1)

    asyncio.run(body())


def test_a_lease_is_not_renamed(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            await store.acquire(Request(IPV4, host(1)))

    asyncio.run(body())
    with pytest.raises(sqlite3.IntegrityError, match="the key of a lease does not change"):
        sqlite("UPDATE leases SET key = '10.5.9.0-24'")


def test_renewing_is_tried_again_until_the_lock_is_gone(
    file: Path, opened: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(engine, "LOCKED_SECONDS", 0.1)

    async def body() -> None:
        async with opened(lease_ttl=4) as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 3600))
            locker = sqlite3.connect(file, isolation_level=None)
            locker.execute("BEGIN IMMEDIATE")
            await eventually(lambda: "is locked" in str(store.unavailable))
            await asyncio.sleep(2)  # beyond its expiry
            assert not keeping.done()
            locker.execute("ROLLBACK")
            locker.close()
            await eventually(lambda: store.unavailable is None)
            (renewed,) = (await store.list()).leases
            assert renewed.created == lease.created
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())


def test_data_that_no_flannel_could_read_is_refused_before_it_is_written(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            for data in (b"{", b'"%s"' % (b"x" * 20_000)):
                with pytest.raises(FlannelError, match="of this host cannot be written"):
                    await store.announce(lease, host(1, ipv4_data=data))
            assert (await store.list()).leases == (lease,)
            assert store.unavailable is None

    asyncio.run(body())


def test_a_reservation_of_a_subnet_that_another_left_is_not_the_others_any_more(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            left = await store.acquire(Request(ONE, host(2)))
            sqlite(f"UPDATE leases SET expires = {time.time() - 1}")
            reserved = await store.reserve(reservation(subnet="10.5.7.0/24"))
            assert reserved.created > left.created
            back = host(2, remembered_key=left.key, remembered_created=left.created)
            assert await store.previous(back) is None

    asyncio.run(body())


def test_a_malformed_entry_is_not_reserved_over_but_can_be_released(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            await store.set_config(b"{}")
            sqlite("INSERT INTO leases (key, value) VALUES ('10.5.50.0-24', '')")
            with pytest.raises(
                FlannelError, match=r"10\.5\.50\.0-24 cannot be reserved: .* malformed; release it first"
            ):
                await store.reserve(reservation())
            await store.release(reservation().subnets[0])
            assert (await store.reserve(reservation())).expires is None

    asyncio.run(body())


def test_nothing_is_written_in_a_dry_run_by_any_call(opened: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
        async with opened(dry_run=True) as store:
            for call in (store.announce(lease, host(2)), store.reserve(reservation()), store.set_config(b"{}")):
                with pytest.raises(StoreError, match="nothing is written in a dry run"):
                    await call

    asyncio.run(body())


@pytest.mark.parametrize("ttl", [0, -1, 31_536_001])
def test_a_lease_ttl_out_of_range_is_refused(ttl: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"lease_ttl": ttl}, SqliteOptions)


def test_the_defaults_are_go_flannels_day_and_a_place_that_survives_a_reboot() -> None:
    assert msgspec.convert({}, SqliteOptions) == SqliteOptions("/var/lib/flannel/flannel.sqlite", 86_400)
