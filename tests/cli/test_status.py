"""flannelctl status and plan, asking a real HTTP server on a Unix socket where the agent would be."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_core.control import HttpServer, Reply, json_reply
from flannel_core.flannelctl.main import main
from flannel_core.flannelctl.output import duration
from flannel_core.status import (
    BackendStatus,
    ConfigStatus,
    FailureStatus,
    HostStatus,
    LeaseStatus,
    PeerStatus,
    PlanLine,
    RefusedStatus,
    RepairsStatus,
    SpaceStatus,
    Status,
    StoreStatus,
)

Serve = Callable[[dict[str, Reply]], None]

HEALTHY = Status(
    version="0.1.0",
    pid=4711,
    started=time.time() - 7260,
    ready=True,
    writes=12,
    host=HostStatus("eth0", 1500, ("192.0.2.10/24",), "192.0.2.10", reason="of the default route", others=("eth1",)),
    backend=BackendStatus("vxlan", '{"VNI":1,"VtepMAC":"8a:00:00:00:00:01"}', mtu=1450),
    lease=LeaseStatus("10.5.3.0-24", ("10.5.3.0/24",), expires=time.time() + 86_000),
    store=StoreStatus("sqlite", True, answered_ago=0.25),
    config=ConfigStatus("/x/flannel.sqlite", True),
    peers=(
        PeerStatus("10.5.4.0-24", ("10.5.4.0/24", "fc00:4::/64"), ("192.0.2.11",), True),
        PeerStatus("10.5.5.0-24", ("10.5.5.0/24",), ("192.0.2.12",), False, "a foreign route is in the way"),
    ),
    refused=(RefusedStatus("10.9.0.0-24", ("10.9.0.0/24",), "10.9.0.0/24 is not inside 10.5.0.0/16"),),
    space=(SpaceStatus("10.5.0.0/16", used=4, free=251, total=255),),
    failures=(FailureStatus("route 10.5.5.0/24", "a foreign route is in the way", foreign=True, retry_in=42.0),),
)


@pytest.fixture
def subnet_file(tmp_path: Path) -> Path:
    return tmp_path / "subnet.env"


@pytest.fixture
def serve(subnet_file: Path) -> Iterator[Serve]:
    """Starts the agent's own HTTP server with fixed answers; it ends with the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def start(replies: dict[str, Reply]) -> None:
        def route(reply: Reply) -> Any:
            async def answer() -> Reply:
                return reply

            return answer

        server = HttpServer({path: route(reply) for path, reply in replies.items()})
        listening = server.listen_unix(subnet_file.with_name("flanneld.sock"))
        asyncio.run_coroutine_threadsafe(listening, loop).result()

    yield start
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(subnet_file: Path, *words: str) -> int:
    return main([*words, "--subnet-file", str(subnet_file)])


def test_the_status_tells_everything_in_lines_that_a_pipe_can_read(
    serve: Serve, subnet_file: Path, capsys: Any
) -> None:
    serve({"/status": json_reply(HEALTHY)})
    assert run(subnet_file, "status") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert re.fullmatch(r"flanneld 0\.1\.0, pid 4711, up 2 h \d+ min: ready", lines[0])
    assert "host     eth0, reached at 192.0.2.10, MTU 1500 (of the default route)" in lines
    assert "         other interfaces eth1" in lines
    assert "backend  vxlan, MTU 1450 inside it" in lines
    assert '         announces {"VNI":1,"VtepMAC":"8a:00:00:00:00:01"}' in lines
    assert any(line.startswith("lease    10.5.3.0/24, expires in 23 h") for line in lines)
    assert "store    sqlite, answered 0.2 s ago" in lines
    assert "config   /x/flannel.sqlite: valid" in lines
    assert "space    10.5.0.0/16: 4 used, 251 free of 255 subnets" in lines
    assert "peers    1 of 2 programmed, 1 refused" in lines
    table = lines.index("PEER                     ADDRESS     PROGRAMMED")
    assert lines[table + 1 : table + 3] == [
        "10.5.4.0/24 fc00:4::/64  192.0.2.11  yes",
        "10.5.5.0/24              192.0.2.12  no: a foreign route is in the way",
    ]
    assert "10.9.0.0/24  10.9.0.0/24 is not inside 10.5.0.0/16" in lines
    assert "route 10.5.5.0/24  a foreign route is in the way  in 42 s" in lines


def test_the_status_tells_how_the_backend_works_here_and_what_it_counted(
    serve: Serve, subnet_file: Path, capsys: Any
) -> None:
    backend = BackendStatus("udp", mtu=1472, notes=("udp by a process",), facts={"sent": 7, "refused": 0})
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, backend=backend))})
    run(subnet_file, "status")
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("backend  udp, MTU 1472 inside it")
    assert lines[at + 1 : at + 3] == ["         udp by a process", "         sent 7, refused 0"]


@pytest.mark.parametrize(
    ("repairs", "text"),
    [
        (RepairsStatus(3600.0, 1, (("link flannel.1", 1),)), "repaired once in the last hour: link flannel.1"),
        (
            RepairsStatus(3600.0, 3, (("route 10.5.3.0/24 dev flannel.1", 2), ("link flannel.1", 1))),
            "repaired 3 times in the last hour: route 10.5.3.0/24 dev flannel.1 (2), link flannel.1",
        ),
        (
            RepairsStatus(720.5, 1013, (("a", 3), ("b", 2), ("c", 2), ("d", 2))),
            "repaired 1013 times in the last 12 min: a (3), b (2), c (2), 1006 more",
        ),
    ],
)
def test_the_status_tells_of_the_repairs_of_the_last_hour(
    serve: Serve, subnet_file: Path, capsys: Any, repairs: RepairsStatus, text: str
) -> None:
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, repairs=repairs))})
    assert run(subnet_file, "status") == 0  # it was repaired: nothing needs a hand
    assert text in capsys.readouterr().out.splitlines()


def test_a_status_with_a_problem_is_exit_code_1(serve: Serve, subnet_file: Path, capsys: Any) -> None:
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, problems=("ip_forward is off",)))})
    assert run(subnet_file, "status") == 1
    assert "problem: ip_forward is off" in capsys.readouterr().out


def test_a_flood_of_problems_leaves_the_first_on_the_screen(serve: Serve, subnet_file: Path, capsys: Any) -> None:
    problems = tuple(f"lease {i} is refused" for i in range(1000))
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, problems=problems))})
    assert run(subnet_file, "status") == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    assert lines[0] == "problem: lease 0 is refused"
    assert lines[20:] == ["problem: and 980 more (--json lists all)"]


def test_an_agent_that_just_started_says_what_it_waits_for(serve: Serve, subnet_file: Path, capsys: Any) -> None:
    early = Status(
        version="0.1.0",
        pid=1,
        started=time.time(),
        ready=False,
        waiting_for="a network configuration",
        store=StoreStatus("sqlite", False, None, "the file is locked"),
        config=ConfigStatus("/x/flannel.sqlite", False, "there is none yet"),
    )
    serve({"/status": json_reply(early)})
    assert run(subnet_file, "status") == 1
    out = capsys.readouterr().out
    assert "not ready, waiting for a network configuration" in out
    assert "lease    none" in out
    assert "store    sqlite, has not answered yet, does not now: the file is locked" in out
    assert "config   /x/flannel.sqlite: there is none yet" in out


@pytest.mark.parametrize(
    ("expires", "text"), [(None, "never expires"), (time.time() - 3600, "expired 1 h"), (1e17, "expires in ")]
)
def test_a_lease_says_when_it_ends(
    serve: Serve, subnet_file: Path, capsys: Any, expires: float | None, text: str
) -> None:
    lease = LeaseStatus("10.5.3.0-24", ("10.5.3.0/24",), expires=expires)
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, lease=lease))})
    assert run(subnet_file, "status") == 0
    assert text in capsys.readouterr().out


def test_json_is_all_that_the_agent_said_fields_of_a_newer_one_too(
    serve: Serve, subnet_file: Path, capsys: Any
) -> None:
    said = msgspec.to_builtins(HEALTHY) | {"invented_later": 1}
    serve({"/status": json_reply(said)})
    assert run(subnet_file, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(msgspec.json.encode(said))


@pytest.mark.parametrize("terminal", [False, True])
def test_text_from_the_store_cannot_command_the_terminal(
    serve: Serve, subnet_file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    evil = "\x1b]0;owned\x07[red]x[/red]\u202e[/nothing]\n"
    serve({
        "/status": json_reply(
            msgspec.structs.replace(
                HEALTHY,
                problems=(evil,),
                config=ConfigStatus(evil, False, evil),
                peers=(PeerStatus(evil, (), (evil,), False, evil),),
                refused=(RefusedStatus(evil, (evil,), evil),),
            )
        )
    })  # fmt: skip
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    run(subnet_file, "status")
    out = capsys.readouterr().out
    assert out.count("\\x1b]0;owned\\x07[red]x[/red]\\u202e[/nothing]\\n") == 8
    assert not {"\x07", "\u202e"} & set(out)
    assert "\x1b]" not in out


def test_a_table_on_a_narrow_terminal_folds_and_loses_nothing(
    serve: Serve, subnet_file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "".join(f"{i:04}" for i in range(60))
    peer = PeerStatus("k", ("10.5.4.0/24",), ("192.0.2.11",), False, why)
    serve({"/status": json_reply(msgspec.structs.replace(HEALTHY, peers=(peer,), refused=(), failures=()))})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    run(subnet_file, "status")
    table = capsys.readouterr().out.partition("PEER")[2]
    assert len(table.splitlines()) > 4
    assert "".join(line[-len(why) :] for line in table.split()).find("0059") > 0


def test_the_plan_lists_each_change_with_its_cause(serve: Serve, subnet_file: Path, capsys: Any) -> None:
    serve({
        "/plan": json_reply([
            PlanLine("create", "route 10.5.4.0/24", "lease 10.5.4.0-24 revision 7"),
            PlanLine("remove", "route 10.5.9.0/24", "nobody wants it", held="the store was restored"),
        ])
    })  # fmt: skip
    assert run(subnet_file, "plan") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ACTION  OBJECT             CAUSE                         NOT YET BECAUSE",
        "create  route 10.5.4.0/24  lease 10.5.4.0-24 revision 7",
        "remove  route 10.5.9.0/24  nobody wants it               the store was restored",
    ]
    assert run(subnet_file, "plan", "--json") == 0
    assert [line["action"] for line in json.loads(capsys.readouterr().out)] == ["create", "remove"]


def test_an_empty_plan_says_so(serve: Serve, subnet_file: Path, capsys: Any) -> None:
    serve({"/plan": json_reply([])})
    assert run(subnet_file, "plan") == 0
    assert capsys.readouterr().out == "Nothing to do: this host is as it should be.\n"


def test_the_variable_of_flanneld_names_the_agent_too(
    serve: Serve, subnet_file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve({"/plan": json_reply([])})
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", str(subnet_file))
    assert main(["plan"]) == 0


@pytest.mark.parametrize("command", ["status", "plan"])
def test_without_an_agent_one_line_names_its_socket(subnet_file: Path, capsys: Any, command: str) -> None:
    assert run(subnet_file, command) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert str(subnet_file.with_name("flanneld.sock")) in err
    assert f"flanneld --subnet-file {subnet_file}" in err


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"500 see the agent's log\n", 500), "answers /status with 500: 500 see the agent's log"),
        (Reply(b"{}"), "are they of one version?"),
        (Reply(b"\xff"), "are they of one version?"),
        (Reply(b"\x1b[31m", 503), "\\x1b[31m"),
    ],
)
def test_an_answer_that_is_none_is_one_line(
    serve: Serve, subnet_file: Path, capsys: Any, reply: Reply, message: str
) -> None:
    serve({"/status": reply})
    assert run(subnet_file, "status") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_socket_that_nobody_can_open_is_one_line(tmp_path: Path, capsys: Any) -> None:
    deep = tmp_path / ("x" * 120) / "subnet.env"
    assert run(deep, "status") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.25, "0.2 s"),
        (9.96, "10.0 s"),
        (10, "10 s"),
        (60, "1 min"),
        (3725, "1 h 2 min"),
        (3605, "1 h"),
        (86400, "1 d"),
        (183600, "2 d 3 h"),
    ],
)
def test_a_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
