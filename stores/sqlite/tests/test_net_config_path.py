"""--net-config-path: a file that wins over the store's own configuration."""

# ruff: noqa: ASYNC240 - a test writes its files where it reads best
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flannel_core.store import ConfigText

VALID = b'{"Network":"10.5.0.0/16"}'
OTHER = b'{"Network":"10.6.0.0/16"}'


@pytest.fixture
def net_conf(tmp_path: Path) -> Path:
    return tmp_path / "net-conf.json"


def test_the_stores_own_configuration_is_named_after_the_file(file: Path, opened: Any) -> None:
    async def body() -> None:
        async with opened() as store:
            await store.set_config(VALID)
            assert (await anext(aiter(store.config()))).source == f"{file} (config)"

    asyncio.run(body())


def test_the_file_wins_and_is_written_into_the_store(opened: Any, net_conf: Path) -> None:
    async def body() -> None:
        async with opened() as other:
            await other.set_config(OTHER)
            texts = aiter(other.config())
            assert (await anext(texts)).text == OTHER
            net_conf.write_bytes(VALID)
            async with opened(net_config_path=net_conf) as store:
                following, found = follow(store)
                assert (await asyncio.wait_for(anext(texts), 5)).text == VALID
                assert [(text.text, text.source) for text in found] == [(VALID, str(net_conf))]
                following.cancel()

    asyncio.run(body())


def test_a_missing_file_is_waited_for_and_every_change_followed(opened: Any, net_conf: Path, eventually: Any) -> None:
    async def body() -> None:
        async with opened(net_config_path=net_conf) as store:
            following, found = follow(store)
            await eventually(lambda: found)
            assert (found[-1].text, found[-1].source) == (None, f"{net_conf} (no such file or directory)")
            for text in (VALID, b"{", b"", b"\xff\xfe", OTHER):
                net_conf.write_bytes(text)
                await eventually(lambda text=text: (found[-1].text, found[-1].source) == (text, str(net_conf)))
            net_conf.unlink()
            await eventually(lambda: found[-1].text is None)
            following.cancel()

    asyncio.run(body())


def test_a_file_that_breaks_a_rule_is_shown_but_not_passed_on(opened: Any, net_conf: Path, eventually: Any) -> None:
    async def body() -> None:
        net_conf.write_bytes(VALID)
        async with opened(net_config_path=net_conf) as store, opened() as other:
            following, found = follow(store)
            peers, heard = follow(other)
            await eventually(lambda: heard and heard[-1].text == VALID)
            net_conf.write_bytes(b'{"Network":"10.5.0.0/16","SubnetLen":31}')
            await eventually(lambda: len(found) == 2)
            net_conf.write_bytes(OTHER)
            await eventually(lambda: heard[-1].text == OTHER)
            assert b"31" not in b"".join(text.text or b"" for text in heard)
            following.cancel()
            peers.cancel()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_bytes(b" " * (1 << 20) + b"{}"), "longer than 1048576 bytes"),
        (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
    ],
    ids=["a directory", "a huge file", "a symbolic link to itself"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    opened: Any, net_conf: Path, make: Any, reason: str
) -> None:
    make(net_conf)

    async def body() -> None:
        async with opened(net_config_path=net_conf) as store:
            text = await anext(aiter(store.config()))
            assert (text.text, text.source) == (None, f"{net_conf} ({reason})")

    asyncio.run(body())


def test_two_agents_with_different_files_do_not_overwrite_each_other_for_ever(
    opened: Any, net_conf: Path, tmp_path: Path, sqlite: Any, eventually: Any
) -> None:
    net_conf.write_bytes(VALID)
    (tmp_path / "other.json").write_bytes(OTHER)

    async def body() -> None:
        async with opened(net_config_path=net_conf) as one, opened(net_config_path=tmp_path / "other.json") as two:
            await one.set_config(b"{}")
            following = [follow(store)[0] for store in (one, two)]
            await eventually(lambda: sqlite("SELECT count(*) FROM changes WHERE kind = 'config'") == [(3,)])
            await asyncio.sleep(1.5)
            assert sqlite("SELECT count(*) FROM changes WHERE kind = 'config'") == [(3,)]
            for task in following:
                task.cancel()

    asyncio.run(body())


def test_the_file_is_read_though_the_store_cannot_be_written(opened: Any, net_conf: Path, small_disk: Path) -> None:
    net_conf.write_bytes(VALID)
    (small_disk / "filler").write_bytes(b"x" * 500_000)

    async def body() -> None:
        async with opened(small_disk / "flannel.sqlite", net_config_path=net_conf) as store:
            assert (await anext(aiter(store.config()))).text == VALID

    asyncio.run(body())


def test_a_dry_run_does_not_write_the_file_into_the_store(file: Path, opened: Any, net_conf: Path) -> None:
    net_conf.write_bytes(VALID)

    async def body() -> None:
        async with opened(net_config_path=net_conf, dry_run=True) as store:
            following, found = follow(store)
            await asyncio.sleep(0.3)
            assert [text.text for text in found] == [VALID]
            following.cancel()

    asyncio.run(body())
    assert not file.exists()


def follow(store: Any) -> tuple[asyncio.Task[None], list[ConfigText]]:
    """A task that collects what ``config()`` yields, and what there is so far."""
    found: list[ConfigText] = []

    async def collect() -> None:
        async for text in store.config():
            found.append(text)  # noqa: PERF401 - it is looked at meanwhile

    return asyncio.create_task(collect()), found
