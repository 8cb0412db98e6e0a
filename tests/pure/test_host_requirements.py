"""What a host's kernel must be set to, from values to sentences."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from flannel_core.host import Host
from flannel_core.host_requirements import Facts, problems, requirements
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.objects import Sysctl

PEER = ip_address("198.51.100.7")
GOOD = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/eth0/rp_filter": "0",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
    "net/ipv4/neigh/default/gc_thresh3": "1024",
    "net/ipv6/neigh/default/gc_thresh3": "1024",
}


def config(**keys: Any) -> NetworkConfig:
    text = {"Network": "10.5.0.0/16", "IPv6Network": "fc00::/48", "EnableIPv6": True, **keys}
    return parse_config(msgspec.json.encode(text), "net-conf.json")


CONFIG = config()
IPV4_ONLY = config(EnableIPv6=False)
IPV6_ONLY = config(EnableIPv4=False)
HOST = Host("eth0", 2, 1500, "02:00:00:00:00:01")


def told(
    on: NetworkConfig = CONFIG,
    host: Host = HOST,
    *,
    sysctls: Mapping[str, str] = {},
    set_sysctls: bool = False,
    read_only: bool = False,
    without: str = "",
    neighbours: dict[Any, int] | None = None,
    elsewhere: Any = None,
    services: tuple[Any, ...] = (),
) -> list[str]:
    """The sentences for a host that is as it should be but for what is said."""
    values = {name: value for name, value in {**GOOD, **sysctls}.items() if not without or without not in name}
    facts = Facts(values, read_only, neighbours or {}, elsewhere, frozenset(services))
    found = requirements(on, host, facts)
    return problems(found, read_only=read_only, set_sysctls=set_sysctls)


def wanted(host: Host = HOST, **facts: Any) -> list[Sysctl]:
    return [sysctl for item in requirements(CONFIG, host, Facts(**facts)) for sysctl in item.sysctls]


def test_a_host_that_is_as_it_should_be_has_no_problem() -> None:
    assert told() == []


def test_what_cannot_be_read_is_no_problem() -> None:
    assert told(without="/") == []


# --- forwarding ------------------------------------------------------------------------------------------------------


def test_a_host_that_does_not_forward_is_told_the_command() -> None:
    assert told(sysctls={"net/ipv4/ip_forward": "0"}) == [
        "net.ipv4.ip_forward is 0: this host forwards no IPv4 packet between containers and other hosts; run"
        " `sysctl -w net.ipv4.ip_forward=1`, or start flanneld with --set-sysctls"
    ]


def test_an_agent_that_sets_sysctls_is_not_advised_to_do_so() -> None:
    (sentence,) = told(set_sysctls=True, sysctls={"net/ipv4/ip_forward": "0"})
    assert sentence.endswith("; run `sysctl -w net.ipv4.ip_forward=1`")


def test_a_family_that_is_off_needs_no_forwarding() -> None:
    off = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"}
    assert [sentence.split(" ")[0] for sentence in told(IPV4_ONLY, sysctls=off)] == ["net.ipv4.ip_forward"]
    assert [sentence.split(" ")[0] for sentence in told(IPV6_ONLY, sysctls=off)] == ["net.ipv6.conf.all.forwarding"]


def test_forwarding_is_wanted_whether_it_is_on_or_not() -> None:
    names = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
    assert [sysctl.name for sysctl in wanted(sysctls=GOOD)] == names
    assert [sysctl.name for sysctl in wanted(sysctls={})] == names


ADVERTISED = msgspec.structs.replace(HOST, advertised=("eth0.7",))


def test_ipv6_forwarding_keeps_the_route_of_a_router_advertisement() -> None:
    (sentence,) = told(
        host=ADVERTISED, sysctls={"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0.7/accept_ra": "1"}
    )
    assert "drop the route that a router advertised at eth0.7" in sentence
    assert "`sysctl -w net.ipv6.conf.eth0/7.accept_ra=2 net.ipv6.conf.all.forwarding=1`" in sentence


@pytest.mark.parametrize("accept_ra", ["1", "2"])
def test_ipv6_forwarding_is_never_wanted_without_accept_ra_where_a_route_was_advertised(accept_ra: str) -> None:
    name = "net/ipv6/conf/eth0.7/accept_ra"
    ipv4, guard, forwarding = wanted(ADVERTISED, sysctls={**GOOD, name: accept_ra})
    assert ipv4.after == ()
    assert guard == Sysctl(name, "2", "eth0.7", optional=True)
    assert forwarding == Sysctl("net/ipv6/conf/all/forwarding", "1", optional=True, after=((name, "2"),))


def test_advertisements_that_a_program_takes_are_left_to_it() -> None:
    found = wanted(ADVERTISED, sysctls={**GOOD, "net/ipv6/conf/eth0.7/accept_ra": "0"})
    assert [sysctl.name for sysctl in found] == ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
    assert found[1].after == ()


# --- br_netfilter ----------------------------------------------------------------------------------------------------


def test_without_kube_proxy_nobody_needs_br_netfilter() -> None:
    assert told(without="bridge") == []


def test_with_kube_proxy_a_missing_module_is_named_in_gos_words_and_once() -> None:
    (sentence,) = told(without="bridge", services=(4, 6))
    go = "Failed to check br_netfilter: stat /proc/sys/net/bridge/bridge-nf-call-iptables: no such file or directory"
    assert sentence.startswith(go)
    assert sentence.endswith("; run `modprobe br_netfilter`")


def test_iptables_that_are_not_called_for_a_bridge_are_named_by_family() -> None:
    off = {"net/bridge/bridge-nf-call-iptables": "0", "net/bridge/bridge-nf-call-ip6tables": "0"}
    assert told(sysctls=off) == []
    (sentence,) = told(services=(6,), sysctls=off)
    assert sentence.startswith("net.bridge.bridge-nf-call-ip6tables is 0: ")
    assert "`sysctl -w net.bridge.bridge-nf-call-ip6tables=1`" in sentence
    assert len(told(services=(4, 6), sysctls=off)) == 2
    assert len(told(IPV4_ONLY, services=(4, 6), sysctls=off)) == 1


def test_in_nft_mode_br_netfilter_is_nobodys_business() -> None:
    assert told(config(EnableNFTables=True), without="bridge", services=(4, 6)) == []


# --- rp_filter -------------------------------------------------------------------------------------------------------

RP_ALL, RP_ETH0 = "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/eth0/rp_filter"


@pytest.mark.parametrize(
    ("all_", "eth0", "strict"),
    [("0", "0", False), ("1", "0", True), ("0", "1", True), ("1", "1", True), ("2", "1", False), ("1", "2", False)],
)
def test_a_strict_reverse_path_is_named_where_peers_are_answered_by_another_way(
    all_: str, eth0: str, strict: bool
) -> None:
    sentences = told(elsewhere=(PEER, "eth1"), sysctls={RP_ALL: all_, RP_ETH0: eth0})
    if strict:
        (sentence,) = sentences
        assert "drops what 198.51.100.7 sends to eth0" in sentence
        assert "leave through eth1" in sentence
        assert "`sysctl -w net.ipv4.conf.eth0.rp_filter=2`" in sentence
    else:
        assert sentences == []


def test_a_strict_reverse_path_that_drops_nothing_is_nobodys_business() -> None:
    assert told(sysctls={RP_ALL: "1", RP_ETH0: "1"}) == []


# --- neighbour table -------------------------------------------------------------------------------------------------


def test_a_neighbour_table_that_holds_all_peers_and_some_containers_is_large_enough() -> None:
    assert told(neighbours={4: 768, 6: 768}) == []


def test_a_neighbour_table_that_is_too_small_is_told_its_sizes() -> None:
    (sentence,) = told(neighbours={4: 5000})
    assert "no room for 5000 peers" in sentence
    prefix = "net.ipv4.neigh.default.gc_thresh"
    assert f"`sysctl -w {prefix}1=2048 {prefix}2=8192 {prefix}3=16384`" in sentence
    (sentence,) = told(neighbours={6: 769})
    assert "net.ipv6.neigh.default.gc_thresh3=4096`" in sentence


@pytest.mark.parametrize("peers", [800, 1000, 4095, 4096, 50_000])
def test_what_is_set_is_enough_for_the_same_peers_and_below_the_point_where_entries_are_thrown_out(peers: int) -> None:
    found = wanted(sysctls=GOOD, neighbours={4: peers})
    limits = {sysctl.name[-1]: int(sysctl.value) for sysctl in found if "gc_thresh" in sysctl.name}
    assert limits["1"] < limits["2"] < limits["3"]
    assert peers + 256 <= limits["2"]
    assert told(neighbours={4: peers}, sysctls={"net/ipv4/neigh/default/gc_thresh3": str(limits["3"])}) == []


# --- read-only /proc/sys -------------------------------------------------------------------------------------------


def test_a_read_only_proc_is_named_once_with_one_command_for_all() -> None:
    sentences = told(
        read_only=True,
        set_sysctls=True,
        without="bridge",
        services=(4,),
        sysctls={"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"},
    )
    settings, module = sentences
    assert settings.count("read-only") == 1
    assert "net.ipv4.ip_forward is 0" in settings
    assert settings.endswith(
        "run on the host `sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`",
    )
    assert module.endswith("`modprobe br_netfilter`")


def test_a_read_only_proc_in_which_all_is_well_is_not_named() -> None:
    assert told(read_only=True) == []


def test_none_of_it_is_a_failure_where_it_cannot_be_set() -> None:
    everything = wanted(ADVERTISED, sysctls={}, neighbours={4: 9000}, elsewhere=(PEER, "eth1"))
    assert everything
    assert all(sysctl.optional for sysctl in everything)
