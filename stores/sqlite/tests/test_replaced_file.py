"""The file is restored from a backup, replaced or removed under running agents."""

# ruff: noqa: ASYNC240 - a test moves its files where it reads best
from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from flannel_core.conformance.stores import IPV4, ONE, host
from flannel_core.conformance.watching import watching
from flannel_core.store import LeaseLost, Request, StoreUnavailable
from flannel_store_sqlite import database


def test_a_plain_copy_of_the_file_is_a_whole_backup(file: Path, opened: Any, tmp_path: Path) -> None:
    async def body() -> None:
        async with opened() as store:
            leases = {await store.acquire(Request(IPV4, host(number))) for number in range(1, 20)}
            shutil.copy(file, tmp_path / "backup")  # while the agent runs
            async with opened(tmp_path / "backup") as backup:
                assert set((await backup.list()).leases) == leases

    asyncio.run(body())


def test_a_backup_moved_into_place_is_heard_as_a_snapshot_of_an_older_revision(
    file: Path, opened: Any, tmp_path: Path
) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            kept = await store.acquire(Request(IPV4, host(1)))
            keeping_kept = asyncio.create_task(store.keep(kept, 60))
            shutil.copy(file, tmp_path / "backup")
            newer = await store.acquire(Request(IPV4, host(2)))
            keeping_newer = asyncio.create_task(store.keep(newer, 60))
            async with watching(peer, 5) as watcher:
                assert set(watcher.view) == {kept.key, newer.key}
                (tmp_path / "backup").rename(file)
                await watcher.until(lambda w: len(w.snapshots) == 2, 5)
                before, after = watcher.snapshots
                assert (after.cluster, after.leases) == (before.cluster, (kept,))
                assert after.revision < before.revision
                assert (await asyncio.wait_for(keeping_newer, 5)).holder is None
                again = await store.acquire(Request(IPV4, host(2, previous_subnets=newer.subnets)))
                assert again.subnets == newer.subnets
                await watcher.until(lambda w: w.view == {kept.key: kept, again.key: again}, 5)
            assert not keeping_kept.done()
            keeping_kept.cancel()

    asyncio.run(body())


def test_a_backup_restored_by_sqlite_itself_is_heard_as_a_snapshot(file: Path, opened: Any, tmp_path: Path) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            kept = await store.acquire(Request(IPV4, host(1)))
            shutil.copy(file, tmp_path / "backup")
            await store.acquire(Request(IPV4, host(2)))
            async with watching(peer, 5) as watcher:
                with sqlite3.connect(tmp_path / "backup") as source, sqlite3.connect(file) as target:
                    source.backup(target)  # the command's .restore
                await watcher.until(lambda w: len(w.snapshots) == 2, 5)
                assert watcher.view == {kept.key: kept}

    asyncio.run(body())


def test_another_fabrics_file_moved_into_place_is_another_cluster(file: Path, opened: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"

    async def body() -> None:
        async with opened(other) as store:
            theirs = await store.acquire(Request(ONE, host(9)))
        async with opened() as store:
            ours = await store.acquire(Request(ONE, host(1)))
            keeping = asyncio.create_task(store.keep(ours, 60))
            async with watching(store, 5) as watcher:
                other.rename(file)
                await watcher.until(lambda w: w.view == {theirs.key: theirs}, 5)
                assert len({snapshot.cluster for snapshot in watcher.snapshots}) == 2
                assert (await asyncio.wait_for(keeping, 5)).holder == theirs

    asyncio.run(body())


def test_another_cluster_is_noticed_though_its_revisions_go_on(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store, watching(store, 5) as watcher:
            lease = await store.acquire(Request(IPV4, host(1)))
            await watcher.until(lambda w: w.view == {lease.key: lease}, 5)
            heard = len(watcher.snapshots)
            sqlite("UPDATE meta SET value = 'another' WHERE name = 'cluster'")
            await watcher.until(lambda w: len(w.snapshots) == heard + 1, 5)
            assert watcher.snapshots[-1].cluster == "another"

    asyncio.run(body())


def test_a_file_that_is_gone_for_a_moment_loses_nobody_its_lease(file: Path, opened: Any, eventually: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            async with watching(store, 5) as watcher:
                file.rename(file.with_suffix(".away"))
                await eventually(lambda: store.unavailable)
                assert "flannel.sqlite is gone; if it is not back within 5 s the hosts take" in str(store.unavailable)
                with pytest.raises(StoreUnavailable, match="is gone"):
                    await store.acquire(Request(IPV4, host(1)))
                file.with_suffix(".away").rename(file)
                later = await store.acquire(Request(IPV4, host(2)))
                assert store.unavailable is None
                await watcher.until(lambda w: w.view == {lease.key: lease, later.key: later}, 5)
                assert len(watcher.snapshots) == 1
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())


def test_a_file_that_stays_away_is_an_empty_store_and_made_anew(
    file: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "GONE_SECONDS", 0.3)

    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            async with watching(store, 5) as watcher:
                file.unlink()
                await watcher.until(lambda w: w.view == {}, 5)
                lost = await asyncio.wait_for(keeping, 5)
                assert lost.holder is None
                assert "is gone from" in lost.reason
                with pytest.raises(LeaseLost):
                    await store.announce(lease, host(1))
                assert not file.exists()
                again = await store.acquire(Request(IPV4, host(1, previous_subnets=lease.subnets)))
                assert again.subnets == lease.subnets
                await watcher.until(lambda w: w.view == {again.key: again}, 5)

    asyncio.run(body())


def test_a_lease_remembered_from_an_earlier_file_is_not_found_in_a_new_one(file: Path, opened: Any) -> None:
    async def acquire(number: int) -> Any:
        async with opened() as store:
            return await store.acquire(Request(ONE, host(number)))

    async def previous(lease: Any) -> Any:
        async with opened() as store:
            return await store.previous(host(1, remembered_key=lease.key, remembered_created=lease.created))

    before = asyncio.run(acquire(1))
    file.unlink()
    assert asyncio.run(acquire(2)).key == before.key
    assert asyncio.run(previous(before)) is None


def test_what_is_put_in_place_of_the_file_and_is_no_store_is_waited_for(
    file: Path, opened: Any, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "text").write_text("hello" * 9999)

    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            shutil.copy(file, tmp_path / "backup")
            keeping = asyncio.create_task(store.keep(lease, 60))
            async with watching(store, 5) as watcher:
                (tmp_path / "text").rename(file)
                await eventually(lambda: "is not an SQLite database" in str(store.unavailable))
                (tmp_path / "backup").rename(file)
                later = await retried(store, Request(IPV4, host(2)))
                await watcher.until(lambda w: w.view == {lease.key: lease, later.key: later}, 5)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())


async def retried(store: Any, request: Request) -> Any:
    """As the agent does."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await store.acquire(request)
            except StoreUnavailable:
                await asyncio.sleep(0.1)
