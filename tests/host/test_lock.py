"""Who else is here is found out from real processes: agents of ours, and a Go flanneld played by a renamed shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from flannel_core.errors import EXIT_FAILED, FlannelError
from flannel_core.lock import LOCK_FILE, AgentLock

SCRIPT = str(Path(__file__).with_name("hold_a_lock.py"))


class Namespace(Protocol):
    name: str

    def enter(self, *command: str) -> list[str]: ...


class Agent:
    """A process that took the lock, or was refused it: ``said`` is "held" or why not."""

    def __init__(self, command: list[str], **options: object) -> None:
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        self.pid: int = self.process.pid
        self.said: str = self.process.stdout.readline().rstrip("\n")

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.communicate()


Start = Callable[..., Agent]


@pytest.fixture
def agent() -> Iterator[Start]:
    """Start an agent with a state directory and devices, in a namespace or here."""
    started: list[Agent] = []

    def start(directory: Path, *devices: str, at: Namespace | None = None, **options: object) -> Agent:
        command = [sys.executable, SCRIPT, str(directory), *devices]
        started.append(Agent(at.enter(*command) if at else command, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def go_flanneld(tmp_path: Path) -> Iterator[Start]:
    """Start a program that is named flanneld and is no Python, with the arguments and the environment given."""
    program = tmp_path / "go" / "flanneld"
    program.parent.mkdir()
    shutil.copy("/bin/bash", program)
    started: list[Agent] = []

    def start(*arguments: str, at: Namespace | None = None, **options: object) -> Agent:
        command = [str(program), "-c", "echo held; read _", "go", *arguments]
        started.append(Agent(at.enter(*command) if at else command, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


# --- the state directory ----------------------------------------------------------------------------------------------


def test_a_second_agent_of_one_state_directory_is_told_of_the_first(agent: Start, tmp_path: Path) -> None:
    first = agent(tmp_path)
    assert first.said == "held"
    second = agent(tmp_path)
    assert second.said == (
        f"another flanneld (pid {first.pid}) uses {tmp_path}; stop it, or give this one a state directory of its own "
        f"with --subnet-file DIR/subnet.env"
    )
    assert second.process.wait() == EXIT_FAILED


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_that_ended_leaves_no_lock_behind(agent: Start, tmp_path: Path, how: signal.Signals) -> None:
    first = agent(tmp_path, "flannel.1")
    first.stop(how)
    assert (tmp_path / LOCK_FILE).read_text() == f"{first.pid}\n"
    assert agent(tmp_path, "flannel.1").said == "held"


def test_a_lock_given_back_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with AgentLock(tmp_path) as lock:
            lock.claim_device("fh-lock-0", exists=False, ours=False)


def test_agents_of_two_state_directories_live_side_by_side(agent: Start, tmp_path: Path, namespace: Namespace) -> None:
    assert agent(tmp_path / "one", "flannel.1", at=namespace).said == "held"
    assert agent(tmp_path / "two", "flannel.2", at=namespace).said == "held"


def test_the_state_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    with AgentLock(tmp_path / "run" / "flannel"):
        assert (tmp_path / "run" / "flannel" / LOCK_FILE).stat().st_mode & 0o777 == 0o600


def test_a_state_directory_that_is_a_file_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "flannel").touch()
    with pytest.raises(FlannelError) as caught, AgentLock(tmp_path / "flannel"):
        pass
    assert str(tmp_path / "flannel") in str(caught.value)
    assert "--subnet-file DIR/subnet.env" in str(caught.value)


# --- devices ----------------------------------------------------------------------------------------------------------


def test_two_agents_of_one_namespace_cannot_make_one_device(agent: Start, tmp_path: Path, namespace: Namespace) -> None:
    first = agent(tmp_path / "one", "flannel.1", "flannel-v6.1", at=namespace)
    assert first.said == "held"
    assert agent(tmp_path / "two", "flannel.2", "flannel-v6.1", at=namespace).said == (
        f"another flanneld (pid {first.pid}) in this network namespace has the device flannel-v6.1; stop it, or give "
        f"the networks different VNIs or backends"
    )


def test_another_namespace_has_its_own_devices(
    agent: Start, tmp_path: Path, namespace: Namespace, other_namespace: Namespace
) -> None:
    assert agent(tmp_path / "one", "flannel.1", at=namespace).said == "held"
    assert agent(tmp_path / "two", "flannel.1", at=other_namespace).said == "held"


def test_a_device_can_be_given_back_and_claimed_twice(agent: Start, tmp_path: Path) -> None:
    with AgentLock(tmp_path / "one") as lock:
        lock.claim_device("fh-lock-1", exists=False, ours=False)
        lock.claim_device("fh-lock-1", exists=True, ours=True)
        lock.release_device("fh-lock-1")
        assert agent(tmp_path / "two", "fh-lock-1").said == "held"
        with pytest.raises(FlannelError):
            lock.claim_device("fh-lock-1", exists=False, ours=False)


@pytest.mark.parametrize("listens", [True, False])
def test_a_user_who_squats_on_a_name_does_not_keep_the_agent_from_starting(
    agent: Start, tmp_path: Path, namespace: Namespace, listens: bool
) -> None:
    script = (
        "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        f"s.bind('\\0flannel-device-flannel.1'); {listens} and s.listen(); print('held', flush=True); input()"
    )
    squatter = Agent(namespace.enter(sys.executable, "-c", script))
    assert squatter.said == "held"
    assert agent(tmp_path, "flannel.1", at=namespace).said == "held"
    squatter.stop()


# --- Go's flanneld ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["-subnet-file={}"], None),
        (["--subnet-file={}"], None),
        (["--ip-masq", "-subnet-file", "{}"], None),
        ([], "{}"),
        (["-subnet-file={}"], "/run/elsewhere/subnet.env"),
        (["-subnet-file=./state/subnet.env"], None),
    ],
)
def test_a_go_flanneld_that_writes_our_subnet_file_is_named(
    agent: Start,
    go_flanneld: Start,
    tmp_path: Path,
    namespace: Namespace,
    arguments: list[str],
    variable: str | None,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = str(state / "subnet.env")
    environment = {**os.environ, "FLANNELD_SUBNET_FILE": variable.format(file)} if variable else None
    words = [word.format(file) for word in arguments]
    go = go_flanneld(*words, at=namespace, env=environment, cwd=tmp_path)
    refused = agent(state, at=namespace)
    assert refused.said.startswith(f"a Go flanneld (pid {go.pid}: ")
    assert f") writes {file} too; stop it first" in refused.said
    assert all(word in refused.said for word in words)
    assert refused.process.wait() == EXIT_FAILED


def test_a_go_flanneld_of_another_network_is_fine(
    agent: Start, go_flanneld: Start, tmp_path: Path, namespace: Namespace
) -> None:
    go_flanneld("-subnet-file=/run/fh-other/subnet.env", at=namespace)
    assert agent(tmp_path / "state", "flannel.1", at=namespace).said == "held"


def test_a_go_flanneld_of_another_namespace_is_fine(
    agent: Start, go_flanneld: Start, tmp_path: Path, namespace: Namespace, other_namespace: Namespace
) -> None:
    go_flanneld(f"-subnet-file={tmp_path}/state/subnet.env", at=other_namespace)
    assert agent(tmp_path / "state", "!flannel.1", at=namespace).said == "held"


def test_a_device_that_exists_beside_a_go_flanneld_is_taken_for_its_own(
    agent: Start, go_flanneld: Start, tmp_path: Path, namespace: Namespace
) -> None:
    go = go_flanneld("-subnet-file=/run/fh-other/subnet.env", at=namespace)
    refused = agent(tmp_path / "state", "!flannel.1", at=namespace)
    assert refused.said.startswith(f"a Go flanneld (pid {go.pid}: ")
    assert "runs in this network namespace, and flannel.1 exists and is not this agent's" in refused.said


def test_a_device_that_a_stopped_go_flanneld_left_is_taken_over(
    agent: Start, tmp_path: Path, namespace: Namespace
) -> None:
    assert agent(tmp_path / "state", "!flannel.1", at=namespace).said == "held"


def test_an_agent_of_ours_named_flanneld_is_no_go_flanneld(agent: Start, tmp_path: Path, namespace: Namespace) -> None:
    script = tmp_path / "flanneld"
    script.write_text(f"#!{sys.executable}\nprint('held', flush=True)\ninput()\n")
    script.chmod(0o755)
    ours = Agent(namespace.enter(str(script), f"--subnet-file={tmp_path}/state/subnet.env"))
    assert Path(f"/proc/{ours.pid}/comm").read_text() == "flanneld\n"
    assert agent(tmp_path / "state", "!flannel.1", at=namespace).said == "held"
    ours.stop()
