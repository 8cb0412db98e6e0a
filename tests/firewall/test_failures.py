"""A tool that is missing or fails is named with the cure; what does not need it goes on."""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

Recorded = Callable[[str], str]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hides programs."""
    which = shutil.which

    def hide(*programs: str) -> None:
        monkeypatch.setattr(
            shutil, "which", lambda name, path=None: None if name in programs else which(name, path=path)
        )

    return hide


def test_without_iptables_the_failure_names_the_package(host: Any, without: Callable[..., None]) -> None:
    without("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
    agent = host.agent().start()
    assert len(agent.failures()) == 4
    for failure in agent.failures():
        assert "is not installed: install the package iptables" in failure


def test_without_nft_the_failure_names_the_package(host: Any, without: Callable[..., None]) -> None:
    without("nft")
    agent = host.agent().start(nft=True)
    assert [line.partition(": ")[2] for line in agent.failures()] == [
        "nft is not installed: install the package nftables on the host (or in the image)"
    ] * 2


def test_without_ip6tables_ipv4_has_its_rules(host: Any, recorded: Recorded, without: Callable[..., None]) -> None:
    without("ip6tables", "ip6tables-save", "ip6tables-restore")
    agent = host.agent().start()
    assert len(agent.failures()) == 2
    four = recorded("iptables-legacy-masq").partition("# ip6tables")[0]
    assert host.iptables().partition("# ip6tables")[0] == four


def test_iptables_that_is_installed_later_is_used(
    host: Any, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    agent = host.agent().start()
    monkeypatch.setattr(shutil, "which", which)
    agent.keeps_at_it_until(lambda: not agent.failures())
    assert host.iptables() == recorded("iptables-legacy-masq")


@pytest.fixture
def xtables_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """A lock that only this test's iptables go by (since 1.8.8 they can be told), taken by another program."""
    path = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def test_a_held_xtables_lock_is_waited_for(
    new_host: Callable[[], Any], recorded: Recorded, xtables_lock: IO[str]
) -> None:
    host = new_host()
    host.use("legacy")
    release = threading.Timer(0.5, fcntl.flock, (xtables_lock, fcntl.LOCK_UN))
    release.start()
    agent = host.agent().start()
    release.join()
    assert agent.failures() == []
    assert host.iptables() == recorded("iptables-legacy-masq")


def test_an_xtables_lock_that_is_held_for_long_is_named_and_tried_again(
    new_host: Callable[[], Any], recorded: Recorded, xtables_lock: IO[str]
) -> None:
    host = new_host()
    host.use("legacy")
    agent = host.agent().start(ipv6=False, masquerade=False)
    [failure] = agent.failures()
    assert failure.startswith("iptables -t filter rules of 10.5.0.0/16: iptables-restore: ")
    assert failure.endswith("(another program has held the xtables lock for 2 s)")
    fcntl.flock(xtables_lock, fcntl.LOCK_UN)
    agent.keeps_at_it_until(lambda: not agent.failures())
    assert host.iptables() == recorded("iptables-nft-forward")


def test_a_table_that_fails_does_not_keep_the_other_from_being_written(host: Any) -> None:
    host.script(
        "iptables-restore",
        'text=$(cat); case "$text" in *"*nat"*) echo "table nat: no such module" >&2; exit 3;; esac;'
        ' echo "$text" | iptables-nft-restore "$@"',
    )
    agent = host.agent().start()
    assert agent.failures() == ["iptables -t nat rules of 10.5.0.0/16: iptables-restore: table nat: no such module"]
    assert "FLANNEL-FWD" in host.sh("iptables -S FORWARD")


def test_a_program_that_hangs_is_ended(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flannel_core.firewall.programs.TIMEOUT_SECONDS", 0.2)
    host.script("iptables-restore", "exec sleep 60")
    agent = host.agent().start(ipv6=False, masquerade=False)
    assert agent.failures() == ["iptables -t filter rules of 10.5.0.0/16: iptables-restore did not end within 0 s"]


def test_nft_that_fails_for_one_family_serves_the_other(host: Any, recorded: Recorded) -> None:
    host.script(
        "nft",
        'if test "$*" = "-f -"; then text=$(cat); case "$text" in *ip6*) echo "Error: no ip6" >&2; exit 1;; esac;'
        ' echo "$text" | /usr/sbin/nft -f -; else exec /usr/sbin/nft "$@"; fi',
    )
    agent = host.agent().start(nft=True)
    assert agent.failures() == ["nft ip6 rules of fc00:5::/48: nft: Error: no ip6"]
    assert host.nft() == recorded("nft-masq").partition("table ip6")[0]


def test_nft_that_does_not_know_fully_random_is_not_given_it(host: Any, recorded: Recorded) -> None:
    host.script("nft", 'test "$1" != --check || exit 1; exec /usr/sbin/nft "$@"')
    host.agent().start(nft=True)
    assert host.nft() == recorded("nft-masq-plain")
