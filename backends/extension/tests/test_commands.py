"""Real commands, run by the reconciler of the agent: each writes down what it was given."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from flannel_backend_extension import memory
from flannel_backend_extension.extension import ExtensionBackend, ExtensionOptions
from flannel_core.backend import Node
from flannel_core.errors import CannotGoOn
from flannel_core.host import Host
from flannel_core.journal import Journal
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.lanes import Lanes

CONFIG = parse_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "extension"}}', "net-conf.json")
HOST = Host("eth0", 2, 1500, "02:00:00:00:00:01", ipv4=ip_address("192.0.2.1"), public_ipv4=ip_address("192.0.2.1"))
OURS = Lease("10.5.1.0-24", "extension", Endpoint(ip_network("10.5.1.0/24"), ip_address("192.0.2.1")), None)


def peer(number: int, data: str | None = None, address: str = "") -> Lease:
    endpoint = Endpoint(ip_network(f"10.5.{number}.0/24"), ip_address(address or f"192.0.2.{number}"), data)
    return Lease(f"10.5.{number}.0-24", "extension", endpoint, None)


class Agent:
    """One run of flanneld, as far as its commands go."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.diary = directory / "diary"
        self.backend = ExtensionBackend(ExtensionOptions(**options), directory)
        self.lanes = Lanes(list(self.backend.targets()), OwnedFile(directory / "owned.json"), Journal())

    def start(self, *peers: Lease, stays: bool = False) -> None:
        """Until each command that is due was tried once."""
        asyncio.run(self.run(peers))

    async def run(self, peers: Sequence[Lease]) -> None:
        announcement = await self.backend.prepare(HOST, None, dry_run=False)
        node = Node(CONFIG, HOST, announcement, OURS)
        self.announced = announcement.ipv4_data
        self.lanes.want("this host", self.backend.local(node), "")
        for lease in peers:
            self.lanes.want(lease.key, self.backend.peer(node, lease), "")
        self.lanes.pruning = True
        await self.lanes.settle_all()

    @property
    def failures(self) -> list[str]:
        return [failure.reason for failure in self.lanes.failures()]

    def told(self) -> list[str]:
        """What the commands wrote since this was asked last."""
        lines = self.diary.read_text().splitlines() if self.diary.exists() else []
        self.diary.unlink(missing_ok=True)
        return lines


def writes(directory: Path, what: str) -> list[str]:
    """A command that notes what it was given, and prints some of it."""
    line = f"{what} SUBNET=$SUBNET PUBLIC_IP=$PUBLIC_IP stdin=$(cat)"
    return ["sh", "-c", f'echo "{line}" >> {directory}/diary; echo {what} was here']


@pytest.fixture
def four(tmp_path: Path) -> dict[str, Any]:
    """All four commands."""
    names = ("pre_startup", "post_startup", "subnet_add", "subnet_remove")
    return {f"{name}_command": writes(tmp_path, name) for name in names}


def test_the_four_run_in_their_order_each_with_what_go_gives_it(tmp_path: Path, four: dict[str, Any]) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2, "their words"), peer(3))
    assert agent.told() == [
        "pre_startup SUBNET= PUBLIC_IP= stdin=",
        "post_startup SUBNET=10.5.1.0/24 PUBLIC_IP=192.0.2.1 stdin=",
        "subnet_add SUBNET=10.5.2.0/24 PUBLIC_IP=192.0.2.2 stdin=their words",
        "subnet_add SUBNET=10.5.3.0/24 PUBLIC_IP=192.0.2.3 stdin=",
    ]
    assert agent.announced == "pre_startup was here"
    assert agent.failures == []


def test_what_the_second_one_gets_where_there_is_no_ipv6(tmp_path: Path) -> None:
    agent = Agent(tmp_path, post_startup_command=["sh", "-c", f"env > {tmp_path}/diary"])
    agent.start()
    said = set(agent.told())
    assert said >= {"NETWORK=10.5.0.0/16", "IPV6SUBNET=::/0", "PUBLIC_IPV6=<nil>"}


def test_a_restart_runs_nothing_again_and_announces_the_same(tmp_path: Path, four: dict[str, Any]) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2))
    agent.told()
    again = Agent(tmp_path, **four)
    again.start(peer(2))
    assert again.told() == []
    assert again.announced == "pre_startup was here"


def test_a_peer_that_left_while_the_agent_was_down_is_removed_with_the_words_it_was_added_with(
    tmp_path: Path, four: dict[str, Any]
) -> None:
    first = Agent(tmp_path, **four)
    first.start(peer(2, "their words"), peer(3))
    first.told()
    later = Agent(tmp_path, **four)
    later.start(peer(3))
    assert later.told() == ["subnet_remove SUBNET=10.5.2.0/24 PUBLIC_IP=192.0.2.2 stdin=their words"]


def test_a_peer_with_another_address_is_removed_as_it_was_and_added_as_it_is(
    tmp_path: Path, four: dict[str, Any]
) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2))
    agent.told()
    agent.start(peer(2, address="192.0.2.99"))
    assert agent.told() == [
        "subnet_remove SUBNET=10.5.2.0/24 PUBLIC_IP=192.0.2.2 stdin=",
        "subnet_add SUBNET=10.5.2.0/24 PUBLIC_IP=192.0.2.99 stdin=",
    ]


def test_after_a_boot_everything_runs(tmp_path: Path, four: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2))
    agent.told()
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(memory, "BOOT_ID", tmp_path / "boot_id")
    agent = Agent(tmp_path, **four)
    agent.start(peer(3))
    assert [line.split()[0] for line in agent.told()] == ["pre_startup", "post_startup", "subnet_add"]


def test_another_first_command_has_the_others_run_again(tmp_path: Path, four: dict[str, Any]) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2))
    agent.told()
    agent = Agent(tmp_path, **{**four, "pre_startup_command": ["echo", "new"]})
    agent.start(peer(2))
    assert [line.split()[0] for line in agent.told()] == ["post_startup", "subnet_add"]
    assert agent.announced == "new"


def test_a_peer_that_cannot_be_added_is_named_and_tried_again_and_no_other_waits(tmp_path: Path) -> None:
    script = f"""
        if [ "$SUBNET" = 10.5.2.0/24 ] && [ ! -e {tmp_path}/repaired ]; then echo no such luck >&2; exit 3; fi
        echo "$SUBNET" >> {tmp_path}/diary"""
    agent = Agent(tmp_path, subnet_add_command=["sh", "-c", script])
    agent.start(peer(2), peer(3))
    assert agent.told() == ["10.5.3.0/24"]
    (reason,) = agent.failures
    assert "exit status 3 Output: no such luck" in reason

    async def repaired() -> None:
        running = asyncio.create_task(agent.lanes.run())
        (tmp_path / "repaired").touch()
        async with asyncio.timeout(5):
            while agent.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await agent.lanes.close()

    asyncio.run(repaired())
    assert agent.told() == ["10.5.2.0/24"]


@pytest.mark.parametrize("which", ["pre_startup_command", "post_startup_command"])
@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("false", "exit status 1"),
        ("no-such-program-at-all", "no-such-program-at-all is not installed or not in flanneld's PATH"),
        (["$UNSET"], "its first word is empty: is the variable set"),
        (["sh", "-c", "kill -9 $(cut -d' ' -f4 /proc/self/stat)"], "signal 9"),
        (["/etc/passwd"], "Permission denied"),
        (["a\0b"], "null byte"),
    ],
    ids=["fails", "missing", "empty", "killed", "no program", "a NUL"],
)
def test_a_startup_command_that_fails_ends_the_agent(tmp_path: Path, which: str, command: Any, why: str) -> None:
    with pytest.raises(CannotGoOn, match=f"StartupCommand: failed to run command: .*{why}"):
        Agent(tmp_path, **{which: command}).start()


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 600 & jobs -p > {tmp_path}/child; wait"
    agent = Agent(tmp_path, subnet_add_command=["sh", "-c", script], command_timeout=1)
    began = time.monotonic()
    agent.start(peer(2))
    assert time.monotonic() - began < 5
    assert "it still ran after 1 s (Backend.CommandTimeout) and was killed" in agent.failures[0]
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


def test_more_than_a_lease_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotGoOn, match="printed 9000 bytes"):
        Agent(tmp_path, pre_startup_command=["sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x"]).start()


def test_what_is_no_utf8_is_told_all_the_same(tmp_path: Path) -> None:
    agent = Agent(tmp_path, pre_startup_command=["printf", "\\377 end"])
    agent.start()
    assert agent.announced == "\ufffd end"


def test_the_memory_is_for_root_alone_and_a_torn_line_is_passed_over(
    tmp_path: Path, four: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2))
    agent.told()
    path = tmp_path / "extension.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("ab") as file:
        file.write(b'{"did": {"type": "pe')
    again = Agent(tmp_path, **four)
    again.start(peer(2), peer(3))
    assert [line.split()[:2] for line in again.told()] == [["subnet_add", "SUBNET=10.5.3.0/24"]]
    assert "is torn or not ours" in caplog.text


def test_a_switch_to_another_backend_removes_every_peer(tmp_path: Path, four: dict[str, Any]) -> None:
    agent = Agent(tmp_path, **four)
    agent.start(peer(2), peer(3))
    agent.told()
    target = next(iter(ExtensionBackend(ExtensionOptions(), tmp_path).targets()))
    lanes = Lanes([target], OwnedFile(tmp_path / "owned.json"), Journal())
    lanes.pruning = True
    asyncio.run(lanes.settle_all())
    assert [line.split()[:2] for line in agent.told()] == [
        ["subnet_remove", "SUBNET=10.5.2.0/24"],
        ["subnet_remove", "SUBNET=10.5.3.0/24"],
    ]


def test_the_agents_own_environment_reaches_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VNI", "17")
    agent = Agent(tmp_path, pre_startup_command="echo vni $MY_VNI")
    agent.start()
    assert agent.announced == "vni 17"
    assert os.environ["MY_VNI"] == "17"
