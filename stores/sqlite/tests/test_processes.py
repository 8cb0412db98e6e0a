"""Real processes that share one file, and are killed."""

# ruff: noqa: ASYNC220 - a test starts its processes where it reads best
from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from flannel_core.conformance.stores import IPV4, host
from flannel_core.store import Request

ACQUIRE = """
import asyncio, sys
from pathlib import Path
from flannel_core.conformance.stores import TWENTY, host
from flannel_core.store import Request, StoreContext
from flannel_store_sqlite.sqlite import SqliteOptions, SqliteStore

async def main():
    store = SqliteStore(SqliteOptions(sys.argv[1]), StoreContext(Path()))
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    print((await store.acquire(Request(TWENTY, host(int(sys.argv[2]))))).key)
    await store.close()

asyncio.run(main())
"""

WRITE = """
import asyncio, random, sys
from pathlib import Path
from flannel_core.conformance.stores import IPV4, host
from flannel_core.store import Request, StoreContext
from flannel_store_sqlite.sqlite import SqliteOptions, SqliteStore

async def main():
    store = SqliteStore(SqliteOptions(sys.argv[1]), StoreContext(Path()))
    await store.open()
    lease = await store.acquire(Request(IPV4, host(1)))
    for number in range(1000000):
        lease = await store.announce(lease, host(1, ipv4_data=b'{"VNI":%d}' % number))
        print(lease.key, number, flush=True)
        other = await store.acquire(Request(IPV4, host(2)))
        await store.release(other.subnets[0])

asyncio.run(main())
"""


def test_twenty_processes_racing_for_twenty_subnets_all_get_one_and_none_twice(file: Path) -> None:
    racers = [
        Popen([sys.executable, "-c", ACQUIRE, str(file), str(n)], stdin=PIPE, stdout=PIPE, text=True)
        for n in range(1, 21)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    keys = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(keys) == sorted(f"10.5.{n}.0-24" for n in range(1, 21))
    assert [path.name for path in file.parent.iterdir()] == [file.name], "the last to close left the file alone"


def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_answered(file: Path, sqlite: Any) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(15):
        with Popen([sys.executable, "-c", WRITE, str(file)], stdout=PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(moments.randrange(1, 30)):
                answered = writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.003))
            writer.send_signal(signal.SIGKILL)
            answered = ([answered, *writer.stdout.readlines()])[-1]
        key, number = answered.split()
        assert sqlite("PRAGMA integrity_check") == [("ok",)]
        ((value,),) = sqlite(f"SELECT value FROM leases WHERE key = '{key}'")
        stands = int(value.partition('"VNI":')[2].partition("}")[0])
        # What was announced and not yet answered when the process died may stand, or not.
        assert stands in (int(number), int(number) + 1)


@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_process_killed_while_it_holds_the_lock_holds_up_nobody(file: Path, opened: Any, how: str) -> None:
    holder = (
        f"import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        f"connection.execute({how!r})\nconnection.execute('DELETE FROM leases')\n"
        f"print('held', flush=True)\nsys.stdin.readline()"
    )

    async def body() -> None:
        async with opened() as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            with Popen([sys.executable, "-c", holder, str(file)], stdin=PIPE, stdout=PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "held\n"
                waiting = asyncio.create_task(store.acquire(Request(IPV4, host(2))))
                await asyncio.sleep(0.2)
                assert not waiting.done()
                process.kill()
            assert set((await store.list()).leases) >= {lease, await waiting}

    asyncio.run(body())


def test_a_commit_is_on_disk_before_it_is_answered(opened: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            await store.acquire(Request(IPV4, host(1)))

            def pragmas(connection: sqlite3.Connection) -> list[Any]:
                return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

            assert await store._engine.read(pragmas) == [b"wal", 2]

    asyncio.run(body())
