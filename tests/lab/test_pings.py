"""Pods reach each other through every backend in every family."""

import json

import pytest

BACKENDS = ["vxlan", "host-gw"]
FAMILIES = {"IPv4": (True, False), "IPv6": (False, True), "dual stack": (True, True)}


@pytest.mark.drawn(3)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_pod_reaches_every_other(lab, backend, family):
    ipv4, ipv6 = FAMILIES[family]
    lab.hosts(3, backend=backend, ipv4=ipv4, ipv6=ipv6)
    table = lab.ping_table()
    assert len(table) == 6 * (ipv4 + ipv6)
    assert [(ping.source, ping.target, ping.reason) for ping in table if ping.milliseconds is None] == []


def test_vxlan_with_direct_routing_goes_through_no_tunnel(lab):
    a, b = lab.hosts(2, backend="vxlan", options={"DirectRouting": True})
    lab.eventually(lambda: a.pings(b))
    assert json.loads(a.run(f"ip -j route get {b.pod.addresses[4]}"))[0]["dev"] == "eth0"


def test_alloc_leases_subnets_and_forwards_nothing(lab):
    a, b = lab.hosts(2, backend="alloc")
    assert a.subnet != b.subnet
    assert not a.pings(b)
    lab.eventually(lambda: a.status().healthy)
    assert a.run("ip route show proto 76") == ""


def test_a_pod_may_send_packets_of_the_size_that_subnet_env_promises(lab):
    a, b = lab.hosts(2, backend="vxlan", ipv6=True)
    lab.eventually(lambda: a.pings(b))
    for family in (4, 6):
        with a.pinging(b, family, size=a.env.mtu) as full:
            lab.eventually(lambda p=full: p.sent >= 20)
        assert full.lost == 0
