"""The pure parts: which rules there are, how the tools spell them, and what of a shared chain is whose."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.firewall import iptables_text, nftables_text
from flannel_core.firewall.chains import Line, is_empty, merged, networks_in, rules_of
from flannel_core.firewall.iptables_text import OUR_CHAINS, SavedTable, has_moved, place_of_jump, table_changes
from flannel_core.firewall.rules import MARKED, IptablesRules, Rule, RuleOptions, owner, traffic_rules
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import NetworkConfig, Space


def nat_rules(network: str = "10.5.0.0/16", excludes: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """What masquerading for the third subnet of ``network`` takes with iptables."""
    four = IPv4Network(network)
    pods = list(four.subnets(new_prefix=24))[3]
    config = NetworkConfig(Space(four, 24, four[0], four[-1]), None, "host-gw", {})
    options = RuleOptions(True, False, True, tuple(map(ip_network, excludes)))
    [rules] = traffic_rules(config, Lease("K", ipv4=Endpoint(pods, IPv4Address("192.0.2.1"))), options)
    assert isinstance(rules, IptablesRules)
    return rules.rules


A, B = nat_rules(), nat_rules("10.7.0.0/16", ("10.5.0.0/16",))

prefixes = st.sampled_from(
    ["", "10.5.0.0/16", "10.5.3.0/24", "192.0.2.1/32", "0.0.0.0/1", "fc00:5::/48", "2001:db8::1/128"]
)
rules = st.builds(
    lambda verdict, source, destination, flags, marked, excepts: Rule(
        verdict,
        source,
        destination,
        not_source=flags[0] and bool(source),
        not_destination=flags[1] and bool(destination),
        marked=marked,
        excepts=excepts,
    ),
    st.sampled_from(["return", "accept", "masquerade", "masquerade fully-random"]),
    prefixes,
    prefixes,
    st.tuples(st.booleans(), st.booleans()),
    st.booleans(),
    st.sampled_from(["", "10.5.0.0/16"]),
)


@given(rules)
def test_iptables_text_of_a_rule_reads_as_that_rule(rule: Rule) -> None:
    assert iptables_text.parse_rule(iptables_text.spell(rule, "flanneld masq")) == rule


@given(rules)
def test_nft_text_of_a_rule_reads_as_that_rule(rule: Rule) -> None:
    assert nftables_text.parse_rule(nftables_text.spell(rule, "ip")) == rule


@pytest.mark.parametrize(
    ("printed", "rule"),
    [
        ("meta mark 0x00004000 return", MARKED),
        ("ip saddr 10.5.3.1 accept", Rule("accept", "10.5.3.1/32")),
        ("ip6 daddr fc00:5::1 accept", Rule("accept", destination="fc00:5::1/128")),
    ],
)
def test_what_nft_prints_otherwise_than_we_write_it(printed: str, rule: Rule) -> None:
    assert nftables_text.parse_rule(printed) == rule


@pytest.mark.parametrize(
    "text",
    [
        "-s 10.5.0.0/16 -j ACCEPT",
        '-s 10.5.0.0/16 -m comment --comment "my own" -j ACCEPT',
        '-s 10.5.0.0/16 -i eth0 -m comment --comment "flanneld masq" -j RETURN',
        '-s 10.0.0.0/255.0.255.0 -m comment --comment "flanneld masq" -j RETURN',
    ],
)
def test_what_no_flannel_makes_stays_text(text: str) -> None:
    assert iptables_text.parse_rule(text) == text


def test_every_rule_but_the_shared_one_shows_its_network() -> None:
    assert {owner(rule) for rule in A if rule != MARKED} == {"10.5.0.0/16"}
    assert {owner(rule) for rule in B if rule != MARKED} == {"10.7.0.0/16"}


def test_two_networks_share_a_chain_and_its_mark() -> None:
    chain = merged(merged([], "10.5.0.0/16", A), "10.7.0.0/16", B)
    assert chain == [*A, *B[1:]]
    assert (rules_of(chain, "10.5.0.0/16"), rules_of(chain, "10.7.0.0/16")) == (A, B)
    assert networks_in(chain) == {"10.5.0.0/16", "10.7.0.0/16"}
    assert merged(chain, "10.5.0.0/16", ()) == list(B)
    assert is_empty(merged(merged(chain, "10.5.0.0/16", ()), "10.7.0.0/16", ()))


lines = st.lists(st.sampled_from([*A, *B, "-s 203.0.113.1/32 -j ACCEPT", "-j DROP"]), max_size=20)


@given(lines)
def test_whatever_stands_in_a_chain_ours_are_as_wanted_and_the_rest_keeps_its_order(chain: list[Line]) -> None:
    after = merged(chain, "10.5.0.0/16", A)
    assert rules_of(after, "10.5.0.0/16") == A
    assert merged(after, "10.5.0.0/16", A) == after
    others = [line for line in chain if line not in A]
    assert [line for line in after if line not in A] == others


@given(lines)
def test_two_agents_of_different_networks_agree_whoever_begins(chain: list[Line]) -> None:
    both = merged(merged(chain, "10.5.0.0/16", A), "10.7.0.0/16", B)
    both = merged(both, "10.5.0.0/16", A)
    assert rules_of(both, "10.5.0.0/16") == A
    assert rules_of(both, "10.7.0.0/16") == B


JUMP = OUR_CHAINS["nat"].jump


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        (["a", JUMP, "b"], ["a", JUMP, "b"], False),
        (["a", JUMP, "b"], [JUMP, "a", "b"], True),
        (["a", JUMP, "b"], ["a", "b", JUMP], True),
        (["a", JUMP, "b"], ["c", "a", JUMP, "d", "b"], False),
        (["a", JUMP, "b"], [JUMP], False),
        (["a", JUMP, "a"], ["a", "a", JUMP], False),
    ],
)
def test_a_jump_has_moved_if_a_rule_that_was_there_stands_on_its_other_side(
    before: list[str], now: list[str], moved: bool
) -> None:
    assert has_moved(now, before, JUMP) is moved


@pytest.mark.parametrize(
    ("before", "others", "place"),
    [
        (None, ["a", "b"], 2),
        (["a", JUMP, "b"], ["a", "b"], 1),
        ([JUMP, "b"], ["c", "b"], 1),
        (["a", JUMP], ["a", "c"], 2),
    ],
)
def test_a_jump_is_put_back_above_what_stood_below_it(before: list[str] | None, others: list[str], place: int) -> None:
    assert place_of_jump(others, before, JUMP) == place


def test_a_table_that_is_as_wanted_is_not_written() -> None:
    spelt = [iptables_text.spell(rule, "flanneld masq") for rule in A]
    table = SavedTable({}, {"POSTROUTING": [JUMP], "FLANNEL-POSTRTG": spelt})
    assert table_changes("nat", table, A, None) == []
    assert table_changes("nat", None, [], None) == []
