"""The traffic rules of real agents on the lab's hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flannel_core.lab import Host, Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


def rules(host: Host) -> str:
    return host.run("iptables-save -t nat") + host.run("iptables-save -t filter") + host.run("nft list ruleset")


def address_of(host: Host) -> str:
    return str(host.machine.ipv4).partition("/")[0]


def hosts_with(lab: Lab, **options: str | bool) -> list[Host]:
    hosts = lab.hosts(2, backend="host-gw", started=False)
    for host in hosts:
        host.start(iptables_resync="1", **options)
    lab.wait_until_ready(hosts)
    return hosts


def sources_seen(host: Host, sender: Host) -> list[str]:
    """Which of the sender's two addresses a packet from its pod has when it arrives outside of the fabric."""
    sender.serve_pod()
    candidates = {"host": address_of(sender), "pod": str(sender.subnet)}
    for name, source in candidates.items():
        host.run(f"iptables -N FROM-{name}")
        host.run(f"iptables -A INPUT -p icmp -s {source} -j FROM-{name}")
        host.run(f"iptables -A FROM-{name}")
    sender.run_in_pod(f"ping -c 1 -W 2 {address_of(host)}")
    counted = host.run("iptables-save -c -t filter")
    return [name for name in candidates if f"[1:84] -A FROM-{name}" in counted]


@pytest.mark.parametrize(
    ("options", "seen"),
    [({}, ["pod"]), ({"ip_masq": True}, ["host"]), ({"ip_masq": True, "ip_masq_exclude": "198.51.100.0/24"}, ["pod"])],
)
def test_what_leaves_the_network_has_the_hosts_address_if_it_is_masqueraded(
    lab: Lab, options: dict[str, Any], seen: list[str]
) -> None:
    a, b = hosts_with(lab, **options)
    lab.eventually(lambda: a.pings(b))
    assert sources_seen(b, a) == seen


def test_pods_ping_through_a_firewall_that_forwards_nothing_else(lab: Lab) -> None:
    a, b = hosts_with(lab, ip_masq=True)
    for host in (a, b):
        host.run("iptables -P FORWARD DROP")
    assert a.pings(b)
    a.run("iptables -F")
    lab.eventually(lambda: a.pings(b))
    lab.eventually(lambda: a.status().problems == ())


def test_the_tool_is_changed_while_pings_go_on(lab: Lab) -> None:
    a, b = hosts_with(lab, ip_masq=True)
    lab.eventually(lambda: a.pings(b))
    config = {"Network": str(a.env.networks[0]), "Backend": {"Type": "host-gw"}}
    before = a.run("iptables -t nat -S") + a.run("iptables -S")
    with a.pinging(b) as pinging:
        lab.set_config({**config, "EnableNFTables": True})
        lab.eventually(lambda: "flannel-ipv4" in rules(a) and "FLANNEL" not in rules(a))
        lab.set_config(config)
        lab.eventually(lambda: "flannel-ipv4" not in rules(a))
    assert pinging.lost == 0
    assert a.run("iptables -t nat -S") + a.run("iptables -S") == before


def test_a_foreign_rule_in_our_chain_is_in_the_status(lab: Lab) -> None:
    [a, _] = hosts_with(lab)
    a.run("iptables -A FLANNEL-FWD -s 203.0.113.1 -j DROP")
    lab.eventually(
        lambda: any("FLANNEL-FWD holds a rule that is not flannel's" in line for line in a.status().problems)
    )


def test_a_restart_with_another_network_leaves_no_rule_of_the_old(lab: Lab) -> None:
    [a] = lab.hosts(1, backend="host-gw", started=False)
    a.start(ip_masq=True, iptables_resync="1")
    lab.wait_until_ready([a])
    old = str(a.env.networks[0])
    assert old in rules(a)
    a.stop()
    (Path(a.directory) / "owned.json").unlink()  # as if a Go flanneld had been there: it leaves subnet.env alone
    lab.set_config(json.dumps({"Network": "10.77.0.0/16", "Backend": {"Type": "host-gw"}}))
    a.start(ip_masq=True, iptables_resync="1")
    lab.wait_until_ready([a])
    lab.eventually(lambda: old not in rules(a))
    assert "10.77.0.0/16" in rules(a)
