"""What else drops the network's packets is named, and the command in the sentence opens it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from flannel_core.firewall.iptables_text import parse_save
from flannel_core.firewall.obstacles import forward_chains, iptables_obstacle

NETWORK = ip_network("10.5.0.0/16")


@pytest.mark.parametrize(
    ("setup", "place"),
    [
        ("iptables -A FORWARD -j DROP", "iptables -t filter: chain FORWARD has the rule `-j DROP`"),
        (
            "iptables -N LAST; iptables -A LAST -m comment --comment 'all the rest' -j REJECT;"
            " iptables -A FORWARD -j LAST",
            'iptables -t filter: chain LAST has the rule `-m comment --comment "all the rest" -j REJECT --reject-with'
            " icmp-port-unreachable`",
        ),
        (
            "nft add table inet mine;"
            " nft add chain inet mine passing '{ type filter hook forward priority 0; policy drop; }'",
            "nft table inet mine: chain passing has the policy drop",
        ),
        (
            "nft add table ip mine;"
            " nft add chain ip mine passing '{ type filter hook forward priority 0; policy accept; }';"
            " nft add rule ip mine passing counter reject",
            "nft table ip mine: chain passing ends in `reject",
        ),
    ],
)
@pytest.mark.parametrize("nft", [False, True])
def test_what_drops_is_named_until_the_command_opened_it(either: Any, setup: str, place: str, nft: bool) -> None:
    either.sh(setup)
    agent = either.agent().start(nft=nft, ipv6=False)
    [told] = agent.problems()
    assert told.startswith(place)
    assert "which drops what this host forwards for 10.5.0.0/16" in told
    either.sh(told.split("To open it: `")[1].rstrip("`"))
    assert agent.problems() == []


def test_a_policy_that_drops_is_no_obstacle_behind_our_own_rules(either: Any) -> None:
    either.sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
    assert either.agent().start().problems() == []


def test_a_policy_that_drops_is_named_for_each_family_where_nothing_of_ours_accepts(either: Any) -> None:
    either.sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
    agent = either.agent().start(forward=False)
    told = agent.problems()
    assert [line.partition(",")[0] for line in told] == [
        "iptables -t filter: chain FORWARD has the policy DROP",
        "ip6tables -t filter: chain FORWARD has the policy DROP",
    ]
    for line in told:
        either.sh(line.split("`")[1])
    assert agent.problems() == []


UFW = """\
*filter
:FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
{opened}-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
FIREWALLD = """\
*filter
:FORWARD ACCEPT [0:0]
:FORWARD_direct - [0:0]
:FORWARD_IN_ZONES - [0:0]
:FORWARD_OUT_ZONES - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -j FORWARD_direct
-A FORWARD -j FORWARD_IN_ZONES
-A FORWARD -j FORWARD_OUT_ZONES
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
{opened}COMMIT
"""


def obstacle(save: str) -> str | None:
    return iptables_obstacle("iptables", parse_save(save)["filter"], NETWORK)


def test_ufw_is_opened_by_its_own_command() -> None:
    told = obstacle(UFW.format(opened=""))
    assert told is not None
    assert "chain ufw-reject-forward has the rule `-j REJECT --reject-with icmp-port-unreachable`" in told
    assert told.endswith("`ufw route allow from 10.5.0.0/16 && ufw route allow to 10.5.0.0/16`")
    opened = "-A ufw-user-forward -s 10.5.0.0/16 -j ACCEPT\n-A ufw-user-forward -d 10.5.0.0/16 -j ACCEPT\n"
    assert obstacle(UFW.format(opened=opened)) is None


def test_half_an_opening_is_none() -> None:
    assert obstacle(UFW.format(opened="-A ufw-user-forward -s 10.5.0.0/16 -j ACCEPT\n")) is not None


def test_firewalld_is_opened_by_its_own_command() -> None:
    told = obstacle(FIREWALLD.format(opened=""))
    assert told is not None
    assert told.endswith("`firewall-cmd --permanent --zone=trusted --add-source=10.5.0.0/16 && firewall-cmd --reload`")
    opened = (
        "-A FORWARD_IN_ZONES -s 10.5.0.0/16 -g FWDI_trusted\n-A FORWARD_OUT_ZONES -d 10.0.0.0/8 -g FWDI_trusted\n"
        "-A FWDI_trusted -j ACCEPT\n"
    )
    assert obstacle(FIREWALLD.format(opened=opened)) is None


FIREWALLD_NFT = """\
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		jump filter_FORWARD_ZONES
		reject with icmpx admin-prohibited
	}

	chain filter_FORWARD_ZONES {
{opened}		goto filter_FWD_public
	}
}
"""


def test_firewalld_on_nft_is_opened_by_its_own_command() -> None:
    text = FIREWALLD_NFT.replace("{opened}", "")
    [chain] = forward_chains(text)
    told = chain.with_rules(text).obstacle(NETWORK)
    assert told is not None
    assert told.startswith(
        "nft table inet firewalld: chain filter_FORWARD ends in `reject with icmpx admin-prohibited`"
    )
    assert "--add-source=10.5.0.0/16" in told
    text = FIREWALLD_NFT.replace("{opened}", "\t\tip saddr 10.5.0.0/16 goto filter_FWD_trusted\n")
    assert chain.with_rules(text).obstacle(NETWORK) is None
