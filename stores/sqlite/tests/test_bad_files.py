"""What is no file of ours is refused by one message and stays as it was."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from flannel_core.conformance.stores import IPV4, host
from flannel_core.store import Request, Snapshot, StoreError, StoreUnavailable
from flannel_store_sqlite import engine
from flannel_store_sqlite.sqlite import SqliteStore


def refusal(opened: Any, path: Path) -> str:
    """Why a store does not open."""

    async def open_it() -> None:
        async with opened(path):
            pass

    with pytest.raises(StoreError) as refused:
        asyncio.run(open_it())
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def write(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return make


NOT_OURS = {
    "text": (lambda p: p.write_text("hello"), "is not an SQLite database; choose another file"),
    "a long text": (lambda p: p.write_text("hello\n" * 9999), "is not an SQLite database; choose another file"),
    "noise": (lambda p: p.write_bytes(os.urandom(9999)), "is not an SQLite database"),
    "only SQLite's first words": (
        lambda p: p.write_bytes(b"SQLite format 3\0" + b"\7" * 200),
        "is not an SQLite database",
    ),
    "another program's tables": (write("CREATE TABLE bookmarks (url)"), "is an SQLite database of something else"),
    "another program's mark": (write("PRAGMA application_id = 252006673"), "is an SQLite database of something else"),
    "another program's version": (write("PRAGMA user_version = 3"), "is an SQLite database of something else"),
    "a directory": (lambda p: p.mkdir(), "is not a file; give another path with --sqlite-file"),
    "a pipe": (os.mkfifo, "is not a file"),
}


@pytest.mark.parametrize(("make", "reason"), NOT_OURS.values(), ids=NOT_OURS.keys())
def test_what_is_not_ours_is_refused_and_untouched(
    file: Path, opened: Any, make: Callable[[Path], None], reason: str
) -> None:
    make(file)
    before = file.read_bytes() if file.is_file() else None
    assert reason in refusal(opened, file)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert (file.read_bytes() if file.is_file() else None) == before


def test_another_programs_wal_database_is_untouched(file: Path, opened: Any) -> None:
    write("PRAGMA journal_mode = WAL", "CREATE TABLE bookmarks (url)")(file)
    before = file.read_bytes()
    refusal(opened, file)
    assert file.read_bytes() == before


def test_a_newer_schema_is_refused_naming_both_versions(file: Path, opened: Any, sqlite: Any) -> None:
    asyncio.run(_acquire(opened))
    sqlite("PRAGMA user_version = 99")
    before = file.read_bytes()
    assert "has schema version 99, this flannel-store-sqlite knows up to 1; upgrade it" in refusal(opened, file)
    assert file.read_bytes() == before


def test_a_newer_schema_under_a_running_agent_is_said_and_waited_for(opened: Any, sqlite: Any, eventually: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            await store.acquire(Request(IPV4, host(1)))
            sqlite("PRAGMA user_version = 99")
            await eventually(lambda: "schema version 99" in str(store.unavailable))
            sqlite("PRAGMA user_version = 1")
            await eventually(lambda: store.unavailable is None)

    asyncio.run(body())


def test_an_empty_file_is_filled(file: Path, opened: Any) -> None:
    file.touch()
    asyncio.run(_acquire(opened))


def test_a_missing_directory_is_made_and_the_file_is_for_its_user_alone(tmp_path: Path, opened: Any) -> None:
    deep = tmp_path / "not" / "yet" / "here" / "flannel.sqlite"
    asyncio.run(_acquire(opened, deep))
    assert oct(deep.stat().st_mode & 0o777) == "0o600"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "file").write_text("")
    assert "not a directory; choose another file" in refusal(opened, tmp_path / "file" / "flannel.sqlite")


def test_a_read_only_file_system_is_named(small_disk: Path, opened: Any) -> None:
    path = small_disk / "flannel.sqlite"
    asyncio.run(_acquire(opened, path))
    run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "is on a read-only file system; mount it read-write or choose" in refusal(opened, path)


def test_a_read_only_file_system_without_the_file_is_named_at_the_first_write(small_disk: Path, opened: Any) -> None:
    run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="read-only file system; mount it read-write"):
        asyncio.run(_acquire(opened, small_disk / "flannel.sqlite"))


@pytest.fixture
def nobody(opened: Any) -> Iterator[Path]:
    """A directory that everybody may enter, while this process is the user nobody (made last: ``opened`` is root's)."""
    with tempfile.TemporaryDirectory(prefix="flannel-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "mine").mkdir()
        os.chown(directory / "mine", 65534, 65534)
        os.seteuid(65534)
        try:
            yield directory
        finally:
            os.seteuid(0)


def test_a_file_of_another_user_is_named_with_who_asks(nobody: Path, opened: Any) -> None:
    os.seteuid(0)
    asyncio.run(_acquire(opened, nobody / "flannel.sqlite"))
    os.seteuid(65534)
    assert "may not be read and written by user 65534; run as root" in refusal(opened, nobody / "flannel.sqlite")


def test_a_directory_of_another_user_is_named_at_the_first_write(nobody: Path, opened: Any) -> None:
    with pytest.raises(StoreError, match=r"may not be read and written by user 65534; run as root"):
        asyncio.run(_acquire(opened, nobody / "flannel.sqlite"))


def test_a_user_with_a_directory_of_its_own_needs_no_root(nobody: Path, opened: Any) -> None:
    asyncio.run(_acquire(opened, nobody / "mine" / "flannel.sqlite"))


def test_a_lock_that_is_held_for_long_is_said_and_the_loop_goes_on(
    file: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCKED_SECONDS", 0.5)

    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            other = sqlite3.connect(file, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(store.acquire(Request(IPV4, host(2))))
            while not waiting.done():
                assert (await store.list()).leases == (lease,), "reading goes on"
                await asyncio.sleep(0.01)
            with pytest.raises(StoreUnavailable, match=r"flannel\.sqlite is locked by another process; `fuser -v "):
                waiting.result()
            assert "is locked" in str(store.unavailable)
            waiting = asyncio.create_task(store.acquire(Request(IPV4, host(2))))
            await asyncio.sleep(0.2)
            other.execute("ROLLBACK")
            await waiting
            assert store.unavailable is None
            other.close()

    asyncio.run(body())


def test_a_full_disk_is_said_and_nothing_is_half_written(small_disk: Path, opened: Any) -> None:
    async def body() -> None:
        async with opened(small_disk / "flannel.sqlite") as store:
            first = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(first, 60))
            fill(small_disk)
            with pytest.raises(StoreUnavailable, match=r"flannel\.sqlite: no space is left on its file system"):
                await acquire_many(store, 200)
            assert "free some in" in str(store.unavailable)
            held = (await store.list()).leases
            assert first in held
            (small_disk / "filler").unlink()
            again = await store.acquire(Request(IPV4, host(250)))
            assert store.unavailable is None
            assert set((await store.list()).leases) == {*held, again}
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(body())
    assert _integrity(small_disk / "flannel.sqlite") == "ok"


def test_a_full_disk_makes_no_file(small_disk: Path, opened: Any) -> None:
    fill(small_disk)
    with pytest.raises(StoreUnavailable, match="no space is left on its file system"):
        asyncio.run(_acquire(opened, small_disk / "flannel.sqlite"))
    (small_disk / "filler").unlink()
    asyncio.run(_acquire(opened, small_disk / "flannel.sqlite"))


def test_a_damaged_file_is_named_with_the_cure(file: Path, opened: Any) -> None:
    async def fill_up() -> None:
        async with opened() as store:
            for number in range(1, 100):
                await store.acquire(Request(IPV4, host(number)))

    async def read() -> Snapshot:
        async with opened() as store:
            snapshot: Snapshot = await store.list()
            return snapshot

    asyncio.run(fill_up())
    data = bytearray(file.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"flannel\.sqlite is damaged .* stop the agents and restore a backup"):
        asyncio.run(read())


async def _acquire(opened: Any, *path: Path) -> None:
    async with opened(*path) as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        assert await store.previous(host(1)) == lease


async def acquire_many(store: SqliteStore, most: int) -> None:
    for number in range(2, most):
        await store.acquire(Request(IPV4, host(number, ipv4_data=b'"%s"' % (b"x" * 9000))))


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 4096)
        except OSError:
            pass


def _integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(answer)
