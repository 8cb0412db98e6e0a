"""Thousands of leases, and what a quiet file costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from flannel_core.conformance.stores import IPV4, host, net_conf
from flannel_core.conformance.watching import watching
from flannel_core.store import OutOfSubnets, Request

WIDE = net_conf(Network="10.0.0.0/8")
VALUE = """{"PublicIP":"203.0.113.7","PublicIPv6":null,"BackendType":"vxlan",\
"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"""


def fill(sqlite: Any, count: int) -> None:
    expires = time.time() + 86_400
    sqlite(
        "INSERT INTO leases (key, value, expires) VALUES "
        + ", ".join(f"('10.{n >> 8}.{n & 255}.0-24', '{VALUE}', {expires})" for n in range(256, 256 + count))
    )


@pytest.mark.parametrize("count", [1000, 5000])
def test_a_snapshot_of_thousands_of_leases_is_quick(opened: Any, sqlite: Any, count: int) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            await store.set_config(b"{}")
            fill(sqlite, count)
            began = time.perf_counter()
            async with watching(peer, 5) as watcher:
                took = time.perf_counter() - began
                assert len(watcher.view) == count
                began = time.perf_counter()
                lease = await store.acquire(Request(WIDE, host(1)))
                await watcher.until(lambda w: w.view.get(lease.key) == lease, 5)
                heard = time.perf_counter() - began
            print(f"{count} leases: snapshot {took * 1000:.0f} ms, one more acquired and heard {heard * 1000:.0f} ms")

    asyncio.run(body())


def test_the_last_of_a_thousand_subnets_is_found(opened: Any, sqlite: Any) -> None:
    thousand = net_conf(Network="10.0.0.0/8", SubnetMin="10.1.0.0", SubnetMax="10.4.231.0")

    async def body() -> None:
        async with opened() as store:
            await store.set_config(b"{}")
            fill(sqlite, 999)
            lease = await store.acquire(Request(thousand, host(1)))
            assert lease.key == "10.4.231.0-24"
            with pytest.raises(OutOfSubnets, match="all 1000 of length /24"):
                await store.acquire(Request(thousand, host(2)))

    asyncio.run(body())


def test_a_quiet_file_is_looked_at_without_reading_a_lease(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store, opened() as peer:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            async with watching(store, 5) as watcher:
                await asyncio.sleep(0.3)
                statements: list[str] = []
                await store._engine.read(lambda connection: connection.set_trace_callback(statements.append))
                await asyncio.sleep(1.5)
                assert statements.count("PRAGMA data_version") >= 5, "it is looked at"
                assert not [s for s in statements if "value" in s or "changes" in s], "nothing is read"
                statements.clear()
                other = await peer.acquire(Request(IPV4, host(2)))
                await watcher.until(lambda w: other.key in w.view, 5)
                await asyncio.sleep(0.2)
                read = [s.partition("WHERE ")[2] for s in statements if s.startswith("SELECT key, value")]
                assert sorted(read) == sorted(
                    [f"key = CAST({blob(other.key)} AS TEXT)", f"key = CAST({blob(lease.key)} AS TEXT)"]
                ), "the keeper looks at its own, the watcher reads the one that changed"
            keeping.cancel()

    asyncio.run(body())


def blob(text: str) -> str:
    """As SQLite's trace shows a bound value."""
    return f"x'{text.encode().hex()}'"


def test_the_history_of_changes_is_bounded(opened: Any, sqlite: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(WIDE, host(1)))
            for _ in range(3):
                fill(sqlite, 4000)
                sqlite("DELETE FROM leases WHERE value LIKE '%203.0.113.7%'")
            assert sqlite("SELECT count(*) FROM changes") == [(10_000,)]
            assert (await store.list()).leases == (lease,)

    asyncio.run(body())
