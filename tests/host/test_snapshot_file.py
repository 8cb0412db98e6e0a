"""What is remembered of the store: written whole, read back as it was, or not at all."""

from __future__ import annotations

import asyncio
import os
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core import snapshot_file
from flannel_core.lease import Endpoint, Lease
from flannel_core.snapshot_file import Contents, SnapshotFile
from flannel_core.store import ConfigText, PublicAddresses

HERE = "http://127.0.0.1:2379 /coreos.com/network"
CONFIG = ConfigText(b'{"Network": "10.5.0.0/16",\n "Backend": {"Type": "vxlan"}}', "/coreos.com/network/config")


def lease(number: int, data: bytes | None = b'{"VNI":1}', **more: Any) -> Lease:
    endpoint = Endpoint(IPv4Network((f"10.5.{number}.0", 24)), IPv4Address("192.0.2.1") + number, data)
    return Lease(f"10.5.{number}.0-24", "vxlan", endpoint, None, number, number + 7, **more)


def contents(*others: Lease, **changes: Any) -> Contents:
    own = lease(0, expires=1e9)
    said = Contents(HERE, "cafe", 99, CONFIG, PublicAddresses(IPv4Address("203.0.113.9")), own, others)
    return msgspec.structs.replace(said, **changes)


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path)
    both = msgspec.structs.replace(
        lease(2), ipv6=Endpoint(IPv6Network("fc00:5:0:2::/64"), IPv6Address("2001:db8::2"), b'{\n"VNI": 2}')
    )
    peers = [lease(1, None), both, *map(lease, range(3, 250))]
    file.save(contents(*peers))
    remembered = file.load(HERE)
    assert remembered is not None
    assert list(remembered.leases) == peers
    assert remembered.own == lease(0, expires=1e9)
    assert (remembered.cluster, remembered.revision, remembered.config) == ("cafe", 99, CONFIG)
    assert remembered.public == PublicAddresses(IPv4Address("203.0.113.9"))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.jsonl"]


def test_another_store_is_not_remembered(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path)
    assert file.load(HERE) is None
    file.save(contents())
    assert file.load("http://127.0.0.1:2379 /other") is None


@given(st.data())
def test_whatever_is_damaged_it_is_all_or_nothing_and_never_an_error(tmp_path_factory: Any, data: Any) -> None:
    file = SnapshotFile(tmp_path_factory.mktemp("state"))
    file.save(contents(*map(lease, range(1, 5))))
    whole = file.path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([whole[:at], whole[:at] + b"\xff" + whole[at + 1 :], whole + b"[", b"[" * 9000])
    )
    file.path.write_bytes(damaged)
    remembered = file.load(HERE)
    assert remembered is None or damaged == whole[:-1], "the last line's end tells nothing"


def test_where_it_cannot_be_written_that_is_said_once_and_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SnapshotFile(tmp_path)
    file.save(contents())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot_file, "write_atomically", full)
    for _ in range(3):
        file.save(contents(lease(1)))
    assert [record.message for record in caplog.records] == [
        f"{file.path}: the peers cannot be remembered: [Errno 28] No space left on device"
    ]
    remembered = file.load(HERE)
    assert remembered is not None
    assert remembered.leases == ()


def test_changes_that_come_in_a_burst_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FIRST_SECONDS", 0.05)
    written: list[int] = []

    async def body() -> None:
        file = SnapshotFile(tmp_path)
        save = file.save

        def counted(said: Contents) -> bool:
            done = save(said)
            written.append(len(said.leases))
            return done

        monkeypatch.setattr(file, "save", counted)
        peers: list[Lease] = []
        following = asyncio.create_task(file.follow(lambda: contents(*peers)))
        for number in range(1, 100):
            peers.append(lease(number))
            file.note()
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not written:  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.01)
        assert written == [99]
        assert not file.is_behind
        following.cancel()

    asyncio.run(body())


def test_what_is_still_true_is_marked_so_without_being_written_and_what_is_behind_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_file, "TOUCHED_SECONDS", -1.0)
    file = SnapshotFile(tmp_path)
    file.save(contents())
    os.utime(file.path, (1, 1))
    file.note()
    file.still_true()
    assert file.path.stat().st_mtime == 1
    fresh = SnapshotFile(tmp_path)
    fresh.still_true()
    assert file.path.stat().st_mtime > 1
    file.path.unlink()
    fresh.still_true()
    assert fresh.is_behind, "it is gone, and will be written again"


def test_its_age_is_when_the_store_was_heard_of_last_however_late_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    file = SnapshotFile(tmp_path)
    file.note()
    now += 60.0
    file.save(contents())
    remembered = file.load(HERE)
    assert remembered is not None
    assert remembered.as_of == 1_000.0
