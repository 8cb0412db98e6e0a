"""What an operator's tools print is exactly what a Go flanneld leaves behind, and stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Recorded = Callable[[str], str]


def test_iptables_prints_what_go_leaves(either: Any, recorded: Recorded) -> None:
    either.agent().start()
    assert either.iptables() == recorded("iptables-legacy-masq") == recorded("iptables-nft-masq")


def test_iptables_without_random_fully(either: Any, recorded: Recorded) -> None:
    either.agent().start(random_fully=False)
    assert either.iptables() == recorded("iptables-nft-masq-plain")


def test_iptables_that_only_forwards(either: Any, recorded: Recorded) -> None:
    either.agent().start(masquerade=False, ipv6=False)
    assert either.iptables() == recorded("iptables-nft-forward")


def test_an_iptables_too_old_for_random_fully_is_not_given_it(host: Any, recorded: Recorded) -> None:
    host.script("iptables", 'test "$1" != --version || { echo iptables v1.6.1; exit; }; exec iptables-nft "$@"')
    host.agent().start()
    assert host.iptables() == recorded("iptables-nft-masq-plain")


@pytest.mark.parametrize(
    ("record", "options"),
    [
        ("nft-masq", {}),
        ("nft-masq-plain", {"random_fully": False}),
        ("nft-v4-masq", {"ipv6": False}),
        ("nft-v4-forward", {"ipv6": False, "masquerade": False}),
    ],
)
def test_nft_prints_what_go_leaves(host: Any, recorded: Recorded, record: str, options: dict[str, Any]) -> None:
    host.agent().start(nft=True, **options)
    assert host.nft() == recorded(record)


def test_nft_mode_needs_no_iptables(host: Any, recorded: Recorded) -> None:
    for program in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save"):
        host.script(program, "echo it was called >&2; exit 1")
    agent = host.agent().start(nft=True)
    assert host.nft() == recorded("nft-masq")
    assert agent.failures() == []


@pytest.mark.parametrize("nft", [False, True])
def test_an_unchanged_host_is_not_written_to(either: Any, nft: bool) -> None:
    agent = either.agent().start(nft=nft, excludes=("192.0.2.0/24", "2001:db8::/64", "198.51.100.7/32", "0.0.0.0/0"))
    assert agent.reconciler.writes == (2 if nft else 4)
    assert agent.settle() == 0
    assert agent.plan() == []
    restarted = either.agent().start(
        nft=nft, excludes=("192.0.2.0/24", "2001:db8::/64", "198.51.100.7/32", "0.0.0.0/0")
    )
    assert restarted.reconciler.writes == 0


@pytest.mark.parametrize("record", ["iptables-legacy-masq", "iptables-nft-masq"])
def test_what_go_left_is_taken_over_without_a_write(either: Any, recorded: Recorded, record: str) -> None:
    leave(either, recorded(record))
    assert either.agent().start().reconciler.writes == 0
    assert either.iptables() == recorded(record)


def test_the_nft_tables_that_go_left_are_taken_over_without_a_write(host: Any, recorded: Recorded) -> None:
    host.sh(f"nft -f - <<'END'\n{recorded('nft-masq')}END")
    assert host.agent().start(nft=True).reconciler.writes == 0


def leave(host: Any, record: str) -> None:
    """Bring a host into the state that was recorded."""
    program, table = "", ""
    for line in record.splitlines():
        if line.startswith("# "):
            program, _, table, _ = line[2:].split()
        elif not line.startswith("-P"):
            host.sh(f"{program} -t {table} {line}")


def test_excluded_prefixes_are_not_masqueraded_in_either_direction(either: Any) -> None:
    either.agent().start(excludes=("192.0.2.0/24", "2001:db8::/64"))
    chain = either.sh("iptables -t nat -S FLANNEL-POSTRTG").splitlines()
    comment = '-m comment --comment "flanneld masq-exclude 10.5.0.0/16"'
    assert chain[4:6] == [
        f"-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 192.0.2.0/24 {comment} -j RETURN",
        f"-A FLANNEL-POSTRTG -s 192.0.2.0/24 -d 10.5.0.0/16 {comment} -j RETURN",
    ]
    assert "-s fc00:5::/48 -d 2001:db8::/64" in either.sh("ip6tables -t nat -S FLANNEL-POSTRTG")


def test_excluded_prefixes_are_not_masqueraded_by_nft_either(host: Any) -> None:
    host.agent().start(nft=True, excludes=("192.0.2.0/24",))
    chain = host.sh("nft list chain ip flannel-ipv4 postrtg").splitlines()
    assert [line.strip() for line in chain[7:9]] == [
        'ip saddr 10.5.0.0/16 ip daddr 192.0.2.0/24 return comment "flanneld masq-exclude 10.5.0.0/16"',
        'ip saddr 192.0.2.0/24 ip daddr 10.5.0.0/16 return comment "flanneld masq-exclude 10.5.0.0/16"',
    ]
