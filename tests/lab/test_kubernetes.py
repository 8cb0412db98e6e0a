"""Hosts that are the nodes of a cluster; what happens to its API server is in test_faults.py."""

import json
from itertools import permutations
from pathlib import Path

import pytest

from flannel_core.lab.kubernetes import node

PREFIX = "flannel.alpha.coreos.com"
GO = Path(__file__).parents[1] / "data/go-flannel-kubernetes"
"""Recorded by tests/interop/record_kubernetes.py."""
NO_BACKEND_YET = {"udp"}


def annotations(host):
    """Those that are flannel's, without their prefix."""
    found = host.store.server.node(host.name)["metadata"].get("annotations", {}).items()
    return {name.removeprefix(f"{PREFIX}/"): text for name, text in found if name.startswith(PREFIX)}


def network_unavailable(host):
    conditions = host.store.server.node(host.name)["status"]["conditions"]
    return [(c["status"], c["reason"]) for c in conditions if c["type"] == "NetworkUnavailable"]


def link(host, name):
    (shown,) = json.loads(host.run(f"ip -json link show {name}"))
    return shown["address"]


@pytest.mark.drawn(3)
@pytest.mark.parametrize("family", ["IPv4", "IPv6", "dual stack"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_the_nodes_of_a_cluster_reach_each_others_pods(lab, backend, family):
    hosts = lab.hosts(3, store="kubernetes", backend=backend, ipv4=family != "IPv6", ipv6=family != "IPv4")
    lab.eventually(lambda: all(one.pings(other) for one, other in permutations(hosts, 2)))
    for host in hosts:
        lab.eventually(lambda host=host: network_unavailable(host) == [("False", "FlannelIsUp")])


def test_a_node_takes_the_subnets_that_the_cluster_gave_it_and_says_where_it_is(lab):
    a, _ = lab.hosts(2, store="kubernetes", ipv6=True)
    assert [str(subnet) for subnet in a.env.subnets] == a.store.server.node(a.name)["spec"]["podCIDRs"]
    assert annotations(a) == {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": f'{{"VNI":1,"VtepMAC":"{link(a, "flannel.1")}"}}',
        "backend-v6-data": f'{{"VNI":1,"VtepMAC":"{link(a, "flannel-v6.1")}"}}',
        "public-ip": str(a.machine.ipv4.ip),
        "public-ipv6": str(a.machine.ipv6.ip),
    }


def test_a_restarted_agent_writes_nothing_and_keeps_its_mac(lab):
    a, b = lab.hosts(2, store="kubernetes")
    lab.eventually(lambda: a.pings(b) and network_unavailable(a) == [("False", "FlannelIsUp")])
    mac = link(a, "flannel.1")
    a.stop()
    a.run("ip link del flannel.1")
    a.store.server.forget_requests()
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b))
    assert link(a, "flannel.1") == mac
    assert not [name for name in a.store.server.counts() if name.startswith("patch")]


def test_a_node_without_a_pod_cidr_waits_for_one_and_says_who_gives_it(lab):
    a, b = lab.hosts(2, store="kubernetes", started=False)
    a.store.server.put_nodes([node(a.name)])
    for host in (a, b):
        host.start()
    lab.wait_until_ready([b])
    lab.eventually(lambda: "pod cidr not assigned" in a.log() and "--allocate-node-cidrs" in a.log())
    assert a.running
    a.store.server.put_nodes([node(a.name, ["10.5.77.0/24"])])
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b) and b.pings(a))


def test_a_node_that_is_deleted_is_forgotten_by_the_others(lab):
    a, b, c = lab.hosts(3, store="kubernetes")
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    subnet = c.subnet
    c.kill()
    a.store.release(subnet)
    lab.eventually(lambda: str(subnet) not in a.run("ip route") and str(subnet) not in b.run("ip route"))
    assert a.pings(b)


def test_a_node_that_is_deleted_after_a_long_silence_is_forgotten_at_once_for_none_expires(lab):
    hosts = lab.hosts(3, store="kubernetes", started=False)
    a, b, c = hosts
    for host in hosts:
        host.start(removal_hold_off="2")
    lab.wait_until_ready(hosts)
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    lab.eventually(lambda: a.status().store.answered_ago > 3, 15)
    subnet = c.subnet
    c.kill()
    a.store.release(subnet)
    lab.eventually(lambda: str(subnet) not in a.run("ip route"), 1)
    assert "Removing nothing" not in a.log()


@pytest.mark.drawn(4)
@pytest.mark.parametrize("case", sorted(file.stem for file in GO.glob("*.json") if file.stem not in NO_BACKEND_YET))
def test_a_node_that_go_annotated_is_taken_over_without_a_write_and_written_anew_byte_for_byte(lab, case):
    recorded = json.loads((GO / f"{case}.json").read_text())
    gos = recorded["hosts"][0]
    config = json.loads(recorded["config"])
    (host,) = lab.hosts(
        1,
        store="kubernetes",
        backend=config["Backend"]["Type"],
        ipv4=config["EnableIPv4"],
        ipv6=config["EnableIPv6"],
        started=False,
    )
    server = host.store.server
    lab.set_config(recorded["config"])
    server.put_nodes([node(host.name, gos["podCIDRs"], annotations=gos["annotations"])])
    server.forget_requests()
    host.start()
    lab.wait_until_ready([host])
    lab.eventually(lambda: network_unavailable(host) == [("False", "FlannelIsUp")])
    assert [asked.body for asked in server.requests() if "annotations" in asked.body] == []
    server.put_nodes([node(host.name, gos["podCIDRs"])])
    lab.eventually(lambda: annotations(host))
    assert server.node(host.name)["metadata"]["annotations"] == gos["annotations"]
    (ours,) = [asked for asked in server.requests() if "annotations" in asked.body]
    (theirs,) = [asked for asked in gos["requests"] if "annotations" in asked.get("body", "")]
    assert {name: getattr(ours, name) for name in theirs} == theirs
    assert without_mtu(host.subnet_file.read_text()) == without_mtu(gos["subnet.env"])


def without_mtu(text):
    """Ours is right over IPv6: docs/reference/differences.md."""
    return [line for line in text.splitlines() if not line.startswith("FLANNEL_MTU=")]
