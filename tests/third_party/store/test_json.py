from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from flannel_store_json import Book, JsonOptions, JsonStore

from flannel_core.conformance.stores import StoreConformance
from flannel_core.store import StoreContext, StoreError


class TestJson(StoreConformance):
    store_class = JsonStore

    def make_store(self, place: Path, *, lease_ttl: int = 86_400, dry_run: bool = False) -> JsonStore:
        return JsonStore(JsonOptions(str(place / "leases.json")), StoreContext(place, dry_run=dry_run))

    async def write_raw(self, place: Path, key: str, value: bytes, changes: int = 1) -> None:
        file = place / "leases.json"
        book = msgspec.json.decode(file.read_bytes(), type=Book)
        book.revision += changes
        book.entries[key] = (value, book.revision, book.revision)
        file.write_bytes(msgspec.json.encode(book))

    async def write_unheard(self, place: Path, key: str, value: bytes) -> None:
        await self.write_raw(place, key, value, changes=2)

    async def everything(self, place: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in place.iterdir()}  # noqa: ASYNC240


@pytest.mark.parametrize("content", ["", "{", '{"entries": 3}'])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "leases.json").write_text(content)
    store = JsonStore(JsonOptions(str(tmp_path / "leases.json")), StoreContext(tmp_path))
    with pytest.raises(StoreError, match=r"--json-file .*leases\.json is no file of leases .* move it away"):
        asyncio.run(store.set_config(b"{}"))
