"""The journal's file: what outlives an agent, and what a disk may do to it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flannel_core import journal as journal_module
from flannel_core.journal import NAME, OLDER, Entry, Journal, decode, read
from flannel_core.status_report import repairs_of

CLONE_NEWNS = 0x00020000  # linux/sched.h


class SmallDisk:
    """A file system of 64 KiB, in a mount namespace that only one thread is in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._mount)

    def _mount(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", self.directory], check=True)

    def play(self, scenario: Callable[[], Coroutine[None, None, None]]) -> None:
        self._thread.submit(lambda: asyncio.run(scenario())).result()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.directory], check=True)

    def fill(self) -> Path:
        """Takes up what is left of it."""
        filler = self.directory / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return filler

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path)
    yield made
    made.close()


def objects(directory: Path) -> list[str]:
    """Of all entries on the disk, oldest first; every line has to be one."""
    entries, unreadable = decode(read(directory))
    assert unreadable == 0
    return [entry.object for entry in entries]


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(scenario())


def test_what_one_run_did_the_next_one_knows(tmp_path: Path) -> None:
    async def first() -> None:
        journal = Journal(tmp_path)
        journal.add("repair", "route 10.5.2.0/24", "lease 10.5.2.0-24 revision 1", "ip (pid 4711)")
        journal.add("put", "7 more objects", count=7)
        journal.close()

    async def second() -> None:
        journal = Journal(tmp_path)
        journal.add("remove", "route 10.5.3.0/24")
        assert [entry.object for entry in journal.entries()] == [
            "route 10.5.2.0/24", "7 more objects", "route 10.5.3.0/24"
        ]  # fmt: skip
        repaired, put, _ = journal.entries()
        assert (repaired.cause, repaired.by) == ("lease 10.5.2.0-24 revision 1", "ip (pid 4711)")
        assert put.count == 7
        journal.close()

    run(first)
    run(second)
    assert len(objects(tmp_path)) == 3
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_it_is_on_the_disk_a_moment_later_in_one_piece(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path)
        for number in range(50):
            journal.add("put", f"route {number}")
        assert not (tmp_path / NAME).exists()  # nothing that repairs waits for the disk
        async with asyncio.timeout(5):
            while not (tmp_path / NAME).exists():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
        assert len(objects(tmp_path)) == 50

    run(scenario)


def test_what_was_on_the_disk_survives_kill_9(tmp_path: Path) -> None:
    script = """if True:
        import asyncio, sys
        from pathlib import Path
        from flannel_core.journal import NAME, Journal
        async def main():
            journal = Journal(Path(sys.argv[1]))
            journal.add("repair", "route 10.5.2.0/24")
            while not (Path(sys.argv[1]) / NAME).exists():
                await asyncio.sleep(0.01)
            print("written", flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"written\n"
        agent.send_signal(signal.SIGKILL)
    assert objects(tmp_path) == ["route 10.5.2.0/24"]


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    whole = b'{"time":1.5,"action":"put","object":"route 1"}\n'
    (tmp_path / NAME).write_bytes(whole + b'{"time":2.5,"action":"put","obj')

    async def scenario() -> None:
        journal = Journal(tmp_path)
        journal.add("put", "route 3")
        journal.close()

    run(scenario)
    entries, unreadable = decode((tmp_path / NAME).read_bytes())
    assert [entry.object for entry in entries] == ["route 1", "route 3"]
    assert unreadable == 1


@pytest.mark.parametrize("content", [b"\0" * 1000, b"\xff\xfe\n\n", b"[" * 5000, b'{"time":"soon"}\n{}\n'])
def test_a_file_that_is_no_journal_is_passed_over_and_added_to(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)

    async def scenario() -> None:
        journal = Journal(tmp_path)
        assert journal.entries() == []
        journal.add("put", "route 1")
        journal.close()

    run(scenario)
    assert [entry.object for entry in decode(read(tmp_path))[0]] == ["route 1"]


def test_it_never_takes_more_than_two_files_of_a_mebibyte(tmp_path: Path) -> None:
    text = "\N{SNOWMAN}" * 600  # longer than an entry may say, and three bytes each

    async def scenario() -> None:
        journal = Journal(tmp_path)
        for number in range(2000):
            journal.add("failed", f"{number} {text}", text, text)
            if number % 500 == 499:
                journal.text()  # writes
        journal.close()

    run(scenario)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {NAME, OLDER}
    assert max(sizes.values()) <= 1 << 20
    numbers = [int(name.partition(" ")[0]) for name in objects(tmp_path)]
    assert numbers == list(range(numbers[0], 2000))


def test_a_start_reads_no_more_than_it_keeps(tmp_path: Path) -> None:
    line = journal_module.lines([Entry(1.5, "put", "route 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink")])
    (tmp_path / OLDER).write_bytes(line * 10_000)
    (tmp_path / NAME).write_bytes(line * 100)
    assert len(Journal(tmp_path).entries()) == 1000
    assert decode(journal_module._tail_of(tmp_path))[1] == 0
    assert len(journal_module._tail_of(tmp_path)) <= journal_module.TAIL


def test_a_full_disk_is_said_once_and_loses_nothing_for_a_while(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        journal = Journal(disk.directory)
        journal.add("put", "before")
        journal.text()
        filler = disk.fill()
        for number in range(100):
            journal.add("put", f"route {number} {'x' * 100}")
            journal.text()  # tries to write
        assert len(decode(journal.text())[0]) == 101
        assert journal.trouble == f"{disk.directory / NAME}: the journal cannot be written: No space left on device"
        assert journal.lost == 0
        filler.unlink()
        journal.close()
        assert journal.trouble is None
        assert [name.partition(" x")[0] for name in objects(disk.directory)] == [
            "before", *(f"route {number}" for number in range(100))
        ]  # fmt: skip

    with caplog.at_level(logging.INFO):
        disk.play(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_what_is_lost_for_good_is_counted_in_the_file(disk: SmallDisk) -> None:
    async def scenario() -> None:
        journal = Journal(disk.directory, capacity=10)
        disk.remount("ro")
        for number in range(13):
            journal.add("put", f"route {number}")
        journal.text()
        assert journal.lost == 3
        assert "Read-only file system" in str(journal.trouble)
        disk.remount("rw")
        journal.close()
        lost, *rest = decode(read(disk.directory))[0]
        assert (lost.action, lost.object, lost.count) == ("lost", "3 entries", 3)
        assert lost.cause.endswith("Read-only file system")
        assert [entry.object for entry in rest] == [f"route {number}" for number in range(3, 13)]

    disk.play(scenario)


def test_it_is_tried_again_without_anything_new(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.02)

    async def scenario() -> None:
        journal = Journal(disk.directory)
        disk.remount("ro")
        journal.add("put", "route 1")
        journal.text()
        assert journal.trouble
        disk.remount("rw")
        async with asyncio.timeout(5):
            while journal.trouble:  # noqa: ASYNC110 - a disk has no event
                await asyncio.sleep(0.01)
        assert objects(disk.directory) == ["route 1"]
        journal.close()

    disk.play(scenario)


def test_what_an_ending_agent_cannot_write_is_said_to_be_lost(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        journal = Journal(disk.directory)
        disk.remount("ro")
        for number in range(3):
            journal.add("put", f"route {number}")
        journal.close()

    disk.play(scenario)
    assert caplog.messages[-1].endswith("Read-only file system; 3 entries of it are lost")


def test_nobody_is_led_elsewhere_by_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / NAME).symlink_to(elsewhere)

    async def scenario() -> None:
        journal = Journal(tmp_path)
        journal.add("put", "route 1")
        journal.close()
        assert journal.trouble

    run(scenario)
    assert not elsewhere.exists()


def test_an_agent_without_a_directory_keeps_it_in_memory() -> None:
    journal = Journal(capacity=2)
    for number in range(3):
        journal.add("put", f"route {number}")
    assert [entry.object for entry in decode(journal.text())[0]] == ["route 1", "route 2"]
    assert journal.lost == 0


def test_who_waits_for_news_gets_all_of_it_in_order() -> None:
    async def scenario() -> None:
        journal = Journal(capacity=3)
        journal.add("put", "old")
        position = journal.added
        waiting = asyncio.create_task(journal.after(position))
        await asyncio.sleep(0)
        assert not waiting.done()
        journal.add("put", "route 1")
        journal.add("put", "route 2")
        assert [entry.object for entry in await waiting] == ["route 1", "route 2"]
        for number in range(3, 9):
            journal.add("put", f"route {number}")
        lost, *rest = await journal.after(position + 2)
        assert (lost.action, lost.count) == ("lost", 3)
        assert [entry.object for entry in rest] == ["route 6", "route 7", "route 8"]

    run(scenario)


def test_a_state_directory_that_vanishes_is_written_again_when_it_is_back(tmp_path: Path) -> None:
    directory = tmp_path / "flannel"
    directory.mkdir()

    async def scenario() -> None:
        journal = Journal(directory)
        directory.rmdir()
        journal.add("put", "route 1")
        journal.text()
        assert "No such file or directory" in str(journal.trouble)
        directory.mkdir()
        journal.close()

    run(scenario)
    assert objects(directory) == ["route 1"]


def test_the_status_counts_the_repairs_of_the_last_hour() -> None:
    now = 10_000.0
    journal = Journal(clock=lambda: now)
    journal.add("repair", "route 1")
    now = 20_000.0
    for name in ("route 1", "route 2", "route 2"):
        journal.add("repair", name)
    journal.add("put", "route 9")
    journal.add("repair", "7 more objects", count=7)
    found = repairs_of(journal, now + 60)
    assert (found.seconds, found.count) == (3600.0, 10)
    assert found.objects == (("route 2", 2), ("route 1", 1))


def test_it_counts_no_further_back_than_the_journal_knows() -> None:
    times = iter(range(1000, 1010))
    journal = Journal(capacity=4, clock=lambda: next(times))
    for _ in range(10):
        journal.add("repair", "route 1")
    found = repairs_of(journal, 1020.0)
    assert (found.seconds, found.count) == (14.0, 4)
