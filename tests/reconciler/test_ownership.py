"""owned.json: what is ours is on disk before it is made, and is forgotten once nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_core.errors import FlannelError
from flannel_core.objects import Link, Vxlan
from flannel_core.ownership import Owned, OwnedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "owned.json"


def test_what_was_recorded_is_known_to_the_next_run(path: Path) -> None:
    OwnedFile(path).record(["flannel.1"], ["10.5.0.0/16"], ["eth0"], {"firewall": ["FLANNEL-FWD"]})
    assert OwnedFile(path).owned == Owned(
        frozenset({"flannel.1"}),
        frozenset({"10.5.0.0/16"}),
        frozenset({"eth0"}),
        {"firewall": frozenset({"FLANNEL-FWD"})},
    )


def test_a_host_without_a_record_owns_nothing(path: Path) -> None:
    assert OwnedFile(path).owned == Owned()
    assert not path.exists()


def test_the_record_is_readable_json_with_a_version_for_root_alone(path: Path) -> None:
    OwnedFile(path).record(["flannel.1"])
    assert msgspec.json.decode(path.read_bytes()) == {
        "devices": ["flannel.1"],
        "networks": [],
        "external": [],
        "records": {},
        "backends": {},
        "version": 1,
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_known_already_is_not_written_again(path: Path) -> None:
    owned = OwnedFile(path)
    owned.record(["flannel.1"])
    before = path.stat().st_ino
    owned.record(["flannel.1"])
    OwnedFile(path).record(["flannel.1"])
    assert path.stat().st_ino == before


def test_what_only_an_earlier_run_recorded_is_forgotten(path: Path) -> None:
    OwnedFile(path).record(["flannel.1", "flannel.2"], ["10.5.0.0/16"], ["eth0"])
    owned = OwnedFile(path)
    owned.record(["flannel.2"], external=["eth1"])
    owned.forget_unclaimed([])
    assert owned.owned == OwnedFile(path).owned == Owned(frozenset({"flannel.2"}), external=frozenset({"eth1"}))


def test_what_a_target_recorded_that_is_not_here_stays_with_the_backend_that_brought_it(path: Path) -> None:
    OwnedFile(path).record(records={"vpc": ["rtb-1"], "fou": ["8285"]}, backends={"aws-vpc": "{}"})
    owned = OwnedFile(path)
    owned.record(["flannel.1"])
    owned.forget_unclaimed(["fou"])
    assert owned.owned.records == {"vpc": {"rtb-1"}}
    assert owned.owned.backends == {"aws-vpc": "{}"}
    owned.forget_unclaimed(["fou", "vpc"])
    assert owned.owned == OwnedFile(path).owned == Owned(frozenset({"flannel.1"}))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"devices": 3}', b'{"devices": ["\xff"]}', b'{"version": "x"}', b"[" * 100_000],
    ids=["empty", "truncated", "a list", "a wrong type", "not UTF-8", "a wrong version", "deeply nested"],
)
def test_a_damaged_record_is_kept_aside_and_said(path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(text)
    with caplog.at_level(logging.WARNING):
        owned = OwnedFile(path)
    assert owned.owned == Owned()
    assert str(path) in caplog.text
    (aside,) = path.parent.glob("owned.json.corrupt-*")
    assert aside.read_bytes() == text
    owned.record(["flannel.1"])
    assert OwnedFile(path).owned.devices == {"flannel.1"}


def test_the_record_of_a_newer_version_is_refused(path: Path) -> None:
    path.write_bytes(b'{"version": 2, "devices": ["flannel.1"], "more": {}}')
    with pytest.raises(FlannelError, match=r"owned\.json: version 2 .* newer"):
        OwnedFile(path)
    assert path.exists()


def test_a_record_that_cannot_be_read_is_refused_by_name(path: Path) -> None:
    path.mkdir()
    with pytest.raises(FlannelError, match=r"owned\.json: cannot be read"):
        OwnedFile(path)


def test_a_record_that_cannot_be_written_is_an_error_and_counts_as_not_recorded(path: Path) -> None:
    owned = OwnedFile(path)
    path.mkdir()
    with pytest.raises(FlannelError, match=r"owned\.json: what is ours cannot be recorded"):
        owned.record(["flannel.1"])
    assert owned.owned == Owned()
    path.rmdir()
    owned.record(["flannel.1"])
    assert OwnedFile(path).owned.devices == {"flannel.1"}


async def test_nothing_of_an_old_network_is_left_and_it_is_forgotten(world: Any) -> None:
    OwnedFile(world.directory / "owned.json").record(["flannel.9"], ["10.9.0.0/16"], ["eth9"])
    old = Link("flannel.9", Vxlan(9, "eth0", "192.0.2.1"), 1450)
    world.target.put(old, tell=False)
    world.start()
    await world.settled(2)
    assert "flannel.9" in world.owned.owned.devices
    world.reconciler.pruning = True
    world.target.broken[old.identity] = "Device or resource busy"
    world.reconciler.suspect()
    await world.reconciler.settle()
    assert "flannel.9" in world.owned.owned.devices
    del world.target.broken[old.identity]
    async with world.running():
        await asyncio.sleep(70)
    assert not world.target.has(old)
    assert OwnedFile(world.directory / "owned.json").owned == Owned(
        frozenset({"flannel.1"}), frozenset({"10.5.0.0/16"}), frozenset({"eth0"})
    )
