"""flannelctl events: asking a real HTTP server on a Unix socket where the agent would be, or reading its file."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flannel_core import control
from flannel_core.control import HttpServer, Reply
from flannel_core.flannelctl.main import main
from flannel_core.journal import NAME, Entry, Journal, lines

NOW = time.time()
ENTRIES = [
    Entry(NOW - 7200, "put", "7 more objects", "lease 10.5.3.0-24 revision 1", count=7),
    Entry(NOW - 60, "repair", "route 10.5.3.0/24 dev flannel.1", "lease 10.5.3.0-24 revision 1", "ip (pid 4711)"),
    Entry(NOW - 2, "repair", "link flannel.1", "this host"),
    Entry(NOW - 1, "failed", "route 10.5.9.0/24", "File exists"),
]


@pytest.fixture
def subnet_file(tmp_path: Path) -> Path:
    return tmp_path / "subnet.env"


class Agent:
    """The journal's part of an agent: its own server, routes as it has them, in an event loop of its own."""

    def __init__(self, directory: Path) -> None:
        self.journal = Journal(clock=lambda: NOW)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = HttpServer({"/events": self._events, "/events/follow": self._follow})
        self._call(self._server.listen_unix(directory / "flanneld.sock"))

    async def _events(self) -> Reply:
        return Reply(self.journal.text())

    async def _follow(self) -> Reply:
        return Reply(self.journal.text(), more=control._news(self.journal, self.journal.added))

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(5)

    def add(self, *words: Any) -> None:
        async def add() -> None:
            self.journal.add(*words)

        self._call(add())

    def connections(self) -> int:
        """How many clients are being answered."""

        async def count() -> int:
            return sum("_serve" in repr(task.get_coro()) for task in asyncio.all_tasks())

        return int(self._call(count()))

    def end(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def running(subnet_file: Path) -> Iterator[Agent]:
    agent = Agent(subnet_file.parent)
    try:
        yield agent
    finally:
        agent.end()


def run(subnet_file: Path, *words: str) -> int:
    return main(["events", *words, "--subnet-file", str(subnet_file)])


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_an_agent_the_file_tells(subnet_file: Path, capsys: Any) -> None:
    subnet_file.with_name(NAME).write_bytes(lines(ENTRIES))
    assert run(subnet_file) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == ["TIME", "ACTION", "OBJECT", "CAUSE", "BY"]
    assert [row[25:] for row in rows] == [
        "put     7 more objects                   lease 10.5.3.0-24 revision 1",
        "repair  route 10.5.3.0/24 dev flannel.1  lease 10.5.3.0-24 revision 1  ip (pid 4711)",
        "repair  link flannel.1                   this host                     unknown",
        "failed  route 10.5.9.0/24                File exists",
    ]
    assert len(err.splitlines()) == 1
    assert str(subnet_file.with_name(NAME)) in err


def test_since_leaves_out_what_is_older(subnet_file: Path, capsys: Any) -> None:
    subnet_file.with_name(NAME).write_bytes(lines(ENTRIES))
    assert run(subnet_file, "--since", "1h30m", "--json") == 0
    assert [entry["object"] for entry in json.loads(capsys.readouterr().out)] == [e.object for e in ENTRIES[1:]]
    assert run(subnet_file, "--since", "0s") == 0
    assert capsys.readouterr().out == "Nothing was done within 0s.\n"


@pytest.mark.parametrize("text", ["soon", "10", "-5m", "1h 30m", "5w", "", "\x1b[31m"])
def test_a_duration_that_is_none_is_wrong_usage(subnet_file: Path, capsys: Any, text: str) -> None:
    assert run(subnet_file, f"--since={text}") == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_a_torn_line_is_counted_and_passed_over(subnet_file: Path, capsys: Any) -> None:
    subnet_file.with_name(NAME).write_bytes(lines(ENTRIES) + b'{"time": 17')
    assert run(subnet_file, "--json") == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 4
    assert "lines of the journal that cannot be read: 1" in err


def test_without_an_agent_and_without_a_file_the_socket_is_named(subnet_file: Path, capsys: Any) -> None:
    assert run(subnet_file) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no agent runs behind {subnet_file.with_name('flanneld.sock')}" in err
    assert run(subnet_file, "--follow") == 1


def test_a_running_agent_tells_what_its_file_lacks_too(subnet_file: Path, capsys: Any) -> None:
    with running(subnet_file) as agent:
        assert run(subnet_file) == 0
        assert capsys.readouterr().out == "Nothing was done yet.\n"
        agent.add("repair", "route 10.5.3.0/24", "lease", "ip (pid 4711)")
        assert run(subnet_file, "--json") == 0
        out, err = capsys.readouterr()
    assert [entry["by"] for entry in json.loads(out)] == ["ip (pid 4711)"]
    assert err == ""


@pytest.mark.parametrize("target", ["/events", "/events/follow"])
def test_who_asks_for_the_head_gets_no_body(subnet_file: Path, target: str) -> None:
    with running(subnet_file) as agent, socket.socket(socket.AF_UNIX) as client:
        agent.add("put", "route 10.5.2.0/24")
        client.connect(str(subnet_file.with_name("flanneld.sock")))
        client.settimeout(5)
        client.sendall(f"HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_text_from_the_store_cannot_command_the_terminal(subnet_file: Path, capsys: Any) -> None:
    evil = "\x1b]0;owned\x07[red]x[/red]\u202e\n"
    subnet_file.with_name(NAME).write_bytes(lines([Entry(NOW, "repair", evil, evil, evil)]))
    assert run(subnet_file) == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(capsys.readouterr().out)


FLANNELCTL = [sys.executable, "-c", "import sys; from flannel_core.flannelctl.main import main; sys.exit(main())"]


@pytest.mark.parametrize("json_lines", [False, True])
def test_following_prints_each_new_event_until_the_agent_ends(subnet_file: Path, json_lines: bool) -> None:
    command = [
        *FLANNELCTL,
        "events",
        "--follow",
        "--subnet-file",
        str(subnet_file),
        *(["--json"] if json_lines else []),
    ]
    with running(subnet_file) as agent:
        agent.add("put", "route 10.5.2.0/24")
        program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert program.stdout is not None
        read = program.stdout.readline
        old = read()
        agent.add("repair", "route 10.5.3.0/24", "lease", "ip (pid 4711)")
        new = read()
        assert agent.connections() == 1
    _, err = program.communicate(timeout=5)
    if json_lines:
        assert [json.loads(line)["object"] for line in (old, new)] == ["route 10.5.2.0/24", "route 10.5.3.0/24"]
    else:
        assert old[23:] == "  put     route 10.5.2.0/24\n"
        assert new[23:] == "  repair  route 10.5.3.0/24  (lease)  by ip (pid 4711)\n"
    assert program.returncode == 1
    assert err == f"flannelctl: the agent behind {subnet_file.with_name('flanneld.sock')} has ended\n"


def test_a_follower_that_goes_away_is_forgotten_at_once(subnet_file: Path) -> None:
    with running(subnet_file) as agent:
        agent.add("put", "route 10.5.2.0/24")
        command = [*FLANNELCTL, "events", "--follow", "--subnet-file", str(subnet_file)]
        program = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert program.stdout is not None
        assert program.stdout.readline()
        program.kill()
        program.communicate()
        eventually(lambda: agent.connections() == 0)
