"""Another mode, variant, network or option leaves nothing behind, nor does it take what is another agent's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Recorded = Callable[[str], str]


def flannel_lines(host: Any) -> list[str]:
    """Every line that names flannel, of both variants of iptables and of nft."""
    saved = "".join(
        host.sh(f"{program}-{variant}-save") for program in ("iptables", "ip6tables") for variant in ("legacy", "nft")
    )
    return [line for line in (saved + host.nft()).splitlines() if "flannel" in line.lower()]


def test_nothing_is_left_when_no_rules_are_wanted_any_more(either: Any) -> None:
    agent = either.agent().start()
    agent.withdraw()
    assert flannel_lines(either) == []


def test_nothing_is_left_of_nft_when_no_rules_are_wanted_any_more(host: Any) -> None:
    agent = host.agent().start(nft=True)
    agent.withdraw()
    assert flannel_lines(host) == []


@pytest.mark.parametrize("before", [False, True])
def test_a_change_of_mode_leaves_nothing(either: Any, recorded: Recorded, before: bool) -> None:
    agent = either.agent().start(nft=before)
    agent.end()
    agent.start(nft=not before)
    if before:
        assert either.iptables() == recorded("iptables-legacy-masq")
        assert "flannel-ipv" not in either.nft()
    else:
        tables = either.sh("nft list table ip flannel-ipv4; nft list table ip6 flannel-ipv6")
        assert tables == recorded("nft-masq")
        assert "FLANNEL" not in either.iptables()
        assert "FLANNEL" not in either.nft()


def test_what_go_leaves_after_its_change_to_nft_is_taken_away(either: Any, recorded: Recorded) -> None:
    for program in ("iptables", "ip6tables"):
        either.sh(
            f"{program} -t nat -N FLANNEL-POSTRTG; {program} -t nat -A POSTROUTING -m comment --comment 'flanneld masq'"
            f" -j FLANNEL-POSTRTG; {program} -N FLANNEL-FWD;"
            f" {program} -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD"
        )
    either.sh("iptables -A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT")
    either.agent().start(nft=True)
    assert "FLANNEL" not in either.iptables()


def test_a_host_that_changes_its_variant_of_iptables_keeps_no_rules_in_the_other(
    either: Any, recorded: Recorded
) -> None:
    before, now = ("nft", "legacy") if "nf_tables" in either.sh("iptables --version") else ("legacy", "nft")
    agent = either.agent().start()
    either.use(now)
    agent.settle()
    agent.settle()
    assert either.iptables() == recorded("iptables-legacy-masq")
    assert "FLANNEL" not in either.sh(f"iptables-{before}-save; ip6tables-{before}-save")


@pytest.mark.parametrize("nft", [False, True])
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"masquerade": False}, ["masq", "postrtg"]),
        ({"forward": False}, ["fwd", "flanneld forward", "chain to accept"]),
        ({"ipv6": False}, ["fc00:"]),
        ({"network": "10.7.0.0/16"}, ["10.5."]),
    ],
)
def test_what_an_option_switches_off_goes(host: Any, nft: bool, options: dict[str, Any], gone: list[str]) -> None:
    agent = host.agent().start(nft=nft)
    agent.end()
    agent.start(nft=nft, **options)
    text = (host.iptables() + host.nft()).lower()
    assert [word for word in gone if word in text] == []
    assert "flannel" in text
    assert agent.settle() == 0


@pytest.mark.drawn(2)
@pytest.mark.parametrize("nft", [False, True])
def test_two_agents_of_different_networks_share_a_host(either: Any, nft: bool) -> None:
    first = either.agent().start(nft=nft, ipv6=False)
    alone = either.iptables() + either.nft()
    second = either.agent().start(nft=nft, ipv6=False, network="10.7.0.0/16", excludes=("10.5.0.0/16",))
    together = either.iptables() + either.nft()
    assert first.settle() == second.settle() == 0
    either.sh("nft flush table ip flannel-ipv4" if nft else "iptables -t nat -F; iptables -F")
    assert second.settle() > 0
    assert first.settle() > 0
    assert second.settle() == first.settle() == 0
    assert sorted((either.iptables() + either.nft()).split()) == sorted(together.split())
    assert first.problems() == second.problems() == []
    second.withdraw()
    assert first.settle() == 0
    assert either.iptables() + either.nft() == alone
    first.withdraw()
    assert flannel_lines(either) == []


def test_agents_of_different_modes_share_a_host(host: Any) -> None:
    first = host.agent().start(nft=True, ipv6=False)
    second = host.agent().start(network="10.7.0.0/16", ipv6=False)
    assert first.settle() == second.settle() == 0
    second.withdraw()
    assert first.settle() == 0
    assert "10.7." not in host.nft()


def test_a_go_flanneld_of_another_network_may_share_the_chain(host: Any) -> None:
    agent = host.agent().start(ipv6=False)
    go = '-m comment --comment "flanneld masq"'
    for rule in (f"-m mark --mark 0x4000/0x4000 {go} -j RETURN", f"-s 10.7.0.0/16 ! -d 224.0.0.0/4 {go} -j MASQUERADE"):
        host.sh(f"iptables -t nat -D FLANNEL-POSTRTG {rule} || true; iptables -t nat -A FLANNEL-POSTRTG {rule}")
    assert agent.settle() == 1
    assert agent.settle() == 0
    chain = host.sh("iptables -t nat -S FLANNEL-POSTRTG")
    assert chain.count("--mark") == 1
    assert chain.splitlines()[1].startswith("-A FLANNEL-POSTRTG -m mark")
    assert "10.7.0.0/16" in chain
    assert agent.problems() == []
