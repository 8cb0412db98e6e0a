"""What an operator breaks comes back, and what is not ours stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Recorded = Callable[[str], str]

MASQ_JUMP = 'POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
FORWARD_JUMP = 'FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'


@pytest.mark.drawn(11)
@pytest.mark.parametrize(
    "fault",
    [
        "iptables -t nat -F",
        "iptables -F; iptables -t nat -F; ip6tables -F; ip6tables -t nat -F",
        "iptables -t nat -F FLANNEL-POSTRTG",
        f"iptables -t nat -D {MASQ_JUMP}",
        f"iptables -D {FORWARD_JUMP}; iptables -F FLANNEL-FWD; iptables -X FLANNEL-FWD",
        f"iptables -A {FORWARD_JUMP}",
        "iptables -t nat -D FLANNEL-POSTRTG 1",
        "iptables -t nat -D FLANNEL-POSTRTG 3",
        "iptables -t nat -D FLANNEL-POSTRTG 6; ip6tables -t nat -D FLANNEL-POSTRTG 6",
        "iptables -t nat -I FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment 'flanneld masq'"
        " -j RETURN",
        "iptables -D FLANNEL-FWD 1; iptables -A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment 'flanneld forward'"
        " -j ACCEPT",
    ],
)
def test_iptables_rules_come_back(either: Any, recorded: Recorded, fault: str) -> None:
    agent = either.agent().start()
    either.sh(fault)
    assert agent.settle() > 0
    assert either.iptables() == recorded("iptables-legacy-masq")
    assert agent.reconciler.repairs == agent.reconciler.writes - 4
    assert agent.settle() == 0


@pytest.mark.parametrize(
    "fault",
    [
        "nft flush ruleset",
        "nft delete table ip flannel-ipv4",
        "nft flush chain ip flannel-ipv4 postrtg",
        "nft flush chain ip6 flannel-ipv6 forward; nft delete chain ip6 flannel-ipv6 forward",
        "nft delete rule ip flannel-ipv4 postrtg handle $(nft -a list chain ip flannel-ipv4 postrtg"
        " | sed -n 's/.*return # handle //p' | head -1)",
        "nft flush chain ip flannel-ipv4 forward; nft delete chain ip flannel-ipv4 forward;"
        " nft add chain ip flannel-ipv4 forward '{ type filter hook forward priority 10; policy drop; }';"
        " nft add rule ip flannel-ipv4 forward ip saddr 10.5.0.0/16 accept;"
        " nft add rule ip flannel-ipv4 forward ip daddr 10.5.0.0/16 accept",
        "nft delete table ip6 flannel-ipv6; nft add table ip6 flannel-ipv6",
    ],
)
def test_nft_rules_come_back(host: Any, recorded: Recorded, fault: str) -> None:
    agent = host.agent().start(nft=True)
    host.sh(fault)
    assert agent.settle() > 0
    assert host.nft() == recorded("nft-masq")
    assert agent.settle() == 0


def test_the_nft_table_of_a_family_that_is_off_comes_back(host: Any, recorded: Recorded) -> None:
    agent = host.agent().start(nft=True, ipv6=False)
    host.sh("nft delete table ip6 flannel-ipv6")
    assert agent.settle() == 1
    assert host.nft() == recorded("nft-v4-masq")


@pytest.mark.parametrize("fault", ["iptables -D {jump}", "iptables -D {jump}; iptables -I {jump}"])
def test_a_jump_comes_back_to_where_it_stood_among_the_rules_of_others(either: Any, fault: str) -> None:
    either.sh("iptables -A FORWARD -s 203.0.113.1 -j DROP")
    agent = either.agent().start()
    either.sh("iptables -A FORWARD -s 203.0.113.2 -j DROP")
    before = either.sh("iptables -S FORWARD")
    assert before.splitlines()[2] == f"-A {FORWARD_JUMP}"
    assert agent.settle() == 0
    either.sh(fault.format(jump=FORWARD_JUMP))
    assert agent.settle() == 1
    assert either.sh("iptables -S FORWARD") == before
    assert agent.settle() == 0


def test_a_jump_that_was_moved_to_the_end_comes_back(either: Any) -> None:
    agent = either.agent().start()
    either.sh("iptables -A FORWARD -s 203.0.113.2 -j DROP")
    assert agent.settle() == 0
    either.sh(f"iptables -D {FORWARD_JUMP}; iptables -A {FORWARD_JUMP}")
    assert agent.settle() == 1
    assert either.sh("iptables -S FORWARD").splitlines()[1] == f"-A {FORWARD_JUMP}"


def test_others_may_come_and_go_around_our_jump(either: Any) -> None:
    either.sh("iptables -A FORWARD -s 203.0.113.1 -j DROP")
    agent = either.agent().start()
    either.sh("iptables -I FORWARD -s 203.0.113.3 -j DROP; iptables -A FORWARD -s 203.0.113.4 -j DROP")
    assert agent.settle() == 0
    either.sh("iptables -D FORWARD -s 203.0.113.1 -j DROP; iptables -D FORWARD -s 203.0.113.4 -j DROP")
    assert agent.settle() == 0


def test_the_rules_of_others_are_untouched(either: Any) -> None:
    either.sh(
        "iptables -P FORWARD DROP; iptables -N MINE; iptables -A MINE -s 203.0.113.1 -j ACCEPT;"
        " iptables -A FORWARD -j MINE;"
        " iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE; iptables -t mangle -A FORWARD -j ACCEPT"
    )
    before = either.sh("iptables-save | grep -v '^#'")
    agent = either.agent().start()
    either.sh("iptables -F FLANNEL-FWD; iptables -t nat -F FLANNEL-POSTRTG")
    agent.settle()
    agent.withdraw()
    assert either.sh("iptables-save | grep -v '^#'") == before


def test_a_foreign_rule_in_our_chain_is_named_and_left_where_it_is(either: Any, recorded: Recorded) -> None:
    agent = either.agent().start()
    either.sh("iptables -t nat -I FLANNEL-POSTRTG 2 -s 203.0.113.1/32 -p tcp -m tcp --dport 80 -j ACCEPT")
    foreign = either.iptables()
    assert agent.settle() == 0
    [told] = agent.problems()
    assert "FLANNEL-POSTRTG holds a rule that is not flannel's" in told
    either.sh("iptables -t nat -D FLANNEL-POSTRTG 4")
    assert agent.settle() == 1
    assert either.iptables() == foreign
    either.sh(told.split("`")[1])
    assert either.iptables() == recorded("iptables-legacy-masq")
    assert agent.problems() == []


def test_a_foreign_rule_in_our_nft_chain_is_named_and_survives_repairs(host: Any) -> None:
    agent = host.agent().start(nft=True)
    host.sh("nft insert rule ip flannel-ipv4 forward ip saddr 10.5.7.7 tcp dport { 80, 443 } counter drop")
    assert agent.settle() == 0
    [told] = agent.problems()
    assert "our chain forward holds a rule that is not flannel's" in told
    assert "`ip saddr 10.5.7.7 tcp dport { 80, 443 } counter drop`" in told
    host.sh("nft flush chain ip flannel-ipv4 postrtg")
    assert agent.settle() == 1
    assert "tcp dport { 80, 443 } counter" in host.nft()
    assert host.nft().count("masquerade") == 4


def test_a_foreign_chain_and_set_in_our_nft_table_survive_repairs(host: Any) -> None:
    agent = host.agent().start(nft=True)
    host.sh(
        "nft add set ip flannel-ipv4 pods '{ type ipv4_addr; elements = { 10.5.1.1, 10.5.1.2 }; }';"
        " nft add chain ip flannel-ipv4 mine; nft add rule ip flannel-ipv4 mine ip saddr @pods drop;"
        " nft insert rule ip flannel-ipv4 forward jump mine"
    )
    mine = host.sh("nft list chain ip flannel-ipv4 mine; nft list set ip flannel-ipv4 pods")
    host.sh("nft flush chain ip flannel-ipv4 postrtg")
    assert agent.settle() == 1
    assert host.sh("nft list chain ip flannel-ipv4 mine; nft list set ip flannel-ipv4 pods") == mine
    told = agent.problems()
    assert [line.partition(" that is")[0] for line in told[1:]] == [
        "nft table ip flannel-ipv4 holds a set pods",
        "nft table ip flannel-ipv4 holds a chain mine",
    ]
    agent.withdraw()
    assert host.sh("nft list chain ip flannel-ipv4 mine; nft list set ip flannel-ipv4 pods") == mine
    assert "masquerade" not in host.nft()


def test_repairs_end_when_something_fights_over_a_rule(host: Any) -> None:
    agent = host.agent().start()
    for _ in range(8):
        host.sh("iptables -F FLANNEL-FWD")
        agent.settle()
    assert agent.reconciler.repairs == 5
    assert agent.failures() == [
        "iptables -t filter rules of 10.5.0.0/16: something else keeps changing it",
    ]
