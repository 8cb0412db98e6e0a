"""Real files in temporary directories, and stores on them as agents open them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from flannel_core.store import StoreContext
from flannel_store_sqlite.sqlite import SqliteOptions, SqliteStore

Opened = Callable[..., AbstractAsyncContextManager[SqliteStore]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flannel.sqlite"


@pytest.fixture
def opened(file: Path) -> Opened:
    """``async with opened() as store``: one more agent's store on ``file``, or on the path given."""

    @asynccontextmanager
    async def opened(
        path: Path = file, *, lease_ttl: int = 86_400, net_config_path: Path | None = None, dry_run: bool = False
    ) -> AsyncIterator[SqliteStore]:
        store = SqliteStore(SqliteOptions(str(path), lease_ttl), StoreContext(path.parent, net_config_path, dry_run))
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture
def sqlite(file: Path) -> Callable[..., list[Any]]:
    """What an operator does with the ``sqlite3`` command: each statement in one transaction; the rows of the last."""

    def execute(*statements: str) -> list[Any]:
        connection = sqlite3.connect(file, isolation_level=None)
        try:
            connection.execute("BEGIN")
            rows = [connection.execute(statement).fetchall() for statement in statements]
            connection.execute("COMMIT")
        finally:
            connection.close()
        return rows[-1]

    return execute


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 512 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=512k", "flannel-test", disk], check=True)
    yield disk
    run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """``await eventually(lambda: ...)`` for what nothing notifies; within 5 s."""

    async def eventually(true: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - an attribute has no event
                await asyncio.sleep(0.01)

    return eventually
