"""The store does what every store has to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from flannel_core.conformance.stores import StoreConformance
from flannel_core.store import StoreContext, SubnetStore
from flannel_store_sqlite.sqlite import SqliteOptions, SqliteStore

PUT = "INSERT INTO leases (key, value) VALUES (?, CAST(? AS TEXT)) ON CONFLICT DO UPDATE SET value = excluded.value"


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class TestConformance(StoreConformance):
    store_class = SqliteStore

    def make_store(self, place: Path, *, lease_ttl: int = 86_400, dry_run: bool = False) -> SubnetStore[Any]:
        return self.store_class(
            SqliteOptions(str(place / "flannel.sqlite"), lease_ttl), StoreContext(place, dry_run=dry_run)
        )

    async def write_raw(self, place: Path, key: str, value: bytes) -> None:
        self._execute(place, (PUT, (key, value)))

    async def write_unheard(self, place: Path, key: str, value: bytes) -> None:
        later = "DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes)"
        self._execute(place, (PUT, ("10.5.98.0-24", value)), ("DELETE FROM leases WHERE key = '10.5.98.0-24'", ()))
        self._execute(place, (PUT, (key, value)), (later, ()))

    async def everything(self, place: Path) -> object:
        return files_in(place)

    def _execute(self, place: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
        connection = sqlite3.connect(place / "flannel.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        for statement, parameters in statements:
            connection.execute(statement, parameters)
        connection.execute("COMMIT")
        connection.close()
