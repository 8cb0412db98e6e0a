"""Two hosts whose packets are moved by the README's commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flannel_core.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


def test_the_readmes_commands_make_two_hosts_ping(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="extension")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert f"{b.subnet} via 198.51.100." in a.run("ip route")
    ran = (a.directory / "extension.jsonl").read_text()
    a.stop()
    a.start()
    lab.wait_until_ready([a])
    assert (a.directory / "extension.jsonl").read_text() == ran, "a restart runs nothing again"


def test_a_command_that_fails_is_in_the_status_with_its_exit_status_and_words(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="extension", options={"SubnetAddCommand": ["sh", "-c", "echo no such luck; exit 3"]})
    lab.eventually(lambda: a.status().failures)
    (failure,) = a.status().failures
    assert f"for {b.subnet}" in failure.object
    assert "exit status 3 Output: no such luck" in failure.reason
    assert failure.retry_in is not None


def test_a_startup_command_that_fails_ends_the_agent_with_exit_code_1(lab: Lab) -> None:
    (a,) = lab.hosts(1, backend="extension", options={"PostStartupCommand": "false"}, started=False)
    a.start()
    assert a.process is not None
    assert a.process.wait(timeout=20) == 1
    assert "PostStartupCommand: failed to run command: false Err: exit status 1" in a.log()
    assert "Traceback" not in a.log()
