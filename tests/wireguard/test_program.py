"""Real hosts whose WireGuard is a program, wireguard-go: this machine's kernel has none."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flannel_core.lab import Host, Lab

OPTIONS = {"PSK": "cHNrIHBzayBwc2sgcHNrIHBzayBwc2sgcHNrIHBzayA=", "PersistentKeepaliveInterval": 1}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


def program(host: Host, device: str = "flannel-wg") -> int:
    return int((host.directory / f"{device}.pid").read_text().split()[0])


@pytest.mark.parametrize("mode", ["separate", "auto"])
def test_hosts_ping_through_a_program_in_both_families(lab: Lab, mode: str) -> None:
    a, b = lab.hosts(2, backend="wireguard", ipv6=True, options={**OPTIONS, "Mode": mode})
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    status = a.status()
    assert status.backend
    assert "wireguard-go" in status.backend.notes[0]
    assert status.problems == ()


def test_program_and_sessions_outlive_the_agent(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="wireguard", options=OPTIONS)
    lab.eventually(lambda: a.pings(b))
    before = program(a)
    lab.eventually(lambda: "handshake_age" in a.status().peers[0].facts, within=5)
    a.stop()
    assert a.pings(b), "the data path stays"
    a.start()
    lab.wait_until_ready([a])
    assert a.pings(b)
    assert program(a) == before
    lab.eventually(lambda: a.status().peers[0].facts.get("sent_bytes", 0) > 0, within=5)


def test_a_program_that_was_killed_is_started_again(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="wireguard", options=OPTIONS)
    lab.eventually(lambda: a.pings(b))
    before = program(a)
    os.kill(before, signal.SIGKILL)
    lab.eventually(lambda: program(a) != before, within=10)
    lab.eventually(lambda: a.pings(b))


def test_no_secret_shows_anywhere(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="wireguard", options=OPTIONS)
    lab.eventually(lambda: a.pings(b))
    private = (a.directory / "wgkey").read_text()
    a.stop()
    files = [path for path in a.directory.iterdir() if path.is_file()]
    secret = {"wgkey", "snapshot.jsonl"}  # the key, and net-conf.json as last seen
    assert {path.stat().st_mode & 0o077 for path in files if path.name in secret} == {0}
    seen = {path: path.read_bytes() for path in files if path.name not in secret}
    a.start()
    lab.wait_until_ready([a])
    argv = Path(f"/proc/{program(a)}/cmdline").read_bytes()
    plan = a.run(f"{Path(sys.executable).with_name('flannelctl')} plan --json --subnet-file {a.directory}/subnet.env")
    said = [a.log(), plan, repr(a.status()), str(argv), *(str(content) for content in seen.values())]
    for secret in (private, OPTIONS["PSK"]):
        assert not [text for text in said if str(secret) in text]


def test_a_switch_to_another_backend_ends_the_program_and_takes_its_device(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="wireguard", options=OPTIONS)
    lab.eventually(lambda: a.pings(b))
    before = program(a)
    a.stop()
    a.store.set_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}')
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: "flannel-wg" not in a.run("ip -br link"), within=5)
    stat = Path(f"/proc/{before}/stat")
    lab.eventually(lambda: not stat.exists() or ") Z" in stat.read_text(), within=5)
    assert not (a.directory / "flannel-wg.pid").exists()
