"""Hosts whose leases are in a real etcd, which fails in every way while they forward."""

import pytest


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "dual stack"])
def test_hosts_that_share_an_etcd_reach_each_others_pods(lab, ipv6):
    hosts = lab.hosts(3, store="etcd", ipv6=ipv6)
    for one in hosts:
        for other in hosts:
            lab.eventually(lambda a=one, b=other: a is b or a.pings(b))


def test_killing_etcd_interrupts_no_packet_and_an_agent_that_starts_waits_for_it(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnets = b.env.subnets
    with a.pinging(b) as pings:
        a.store.cluster.kill()
        lab.eventually(lambda: any("connection refused" in problem for problem in a.status().problems))
        b.restart()
        lab.eventually(lambda: any("connection refused" in problem for problem in b.status().problems))
        a.store.cluster.start()
        lab.eventually(lambda: b.ready() and not a.status().problems and not b.status().problems, 10)
    assert pings.lost == 0
    assert b.env.subnets == subnets


def test_a_frozen_member_of_three_is_left_for_another(lab):
    a, b = lab.hosts(2, store="etcd", members=3)
    lab.eventually(lambda: a.pings(b))
    frozen = a.store.cluster.members[0]
    frozen.freeze()
    try:
        for host in (a, b):
            host.restart()
        lab.wait_until_ready()
        lab.eventually(lambda: a.pings(b) and b.pings(a))
    finally:
        frozen.thaw()


def test_a_restored_etcd_costs_no_packet_and_what_it_forgot_is_written_again(lab, tmp_path):
    a, b, late = lab.hosts(3, store="etcd", started=False)
    for host in (a, b):
        host.start()
    lab.wait_until_ready([a, b])
    cluster = a.store.cluster
    cluster.save(tmp_path / "backup")
    late.start()
    lab.wait_until_ready([late])
    lab.eventually(lambda: a.pings(late) and late.pings(b))
    subnet = late.subnet
    with a.pinging(late) as pings:
        cluster.restore(tmp_path / "backup")
        lab.eventually(lambda: subnet in [s for lease in a.store.leases().leases for s in lease.subnets], 10)
        lab.eventually(lambda: all(host.ready() for host in (a, b, late)))
    assert pings.lost == 0
    assert late.subnet == subnet
