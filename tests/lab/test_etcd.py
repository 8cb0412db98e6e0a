"""Hosts whose leases are in a real etcd, which fails in every way while they forward."""

import json
import signal
import time

import pytest


@pytest.mark.drawn(1)
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


def holders(host, subnet):
    """The public addresses of the leases of ``subnet``."""
    return [str(lease.ipv4.public_ip) for lease in host.store.leases().leases if subnet in lease.subnets]


def record(host):
    """The etcd key of the host's own lease."""
    return f"/coreos.com/network/subnets/{host.status().lease.key}"


def of_another(address="198.51.100.77", mac="02:00:00:00:00:77"):
    data = {"VNI": 1, "VtepMAC": mac}
    return json.dumps({"PublicIP": address, "BackendType": "vxlan", "BackendData": data})


def test_a_lease_that_is_deleted_is_taken_again_and_no_packet_is_lost_on_this_host(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet, created = a.subnet, a.status().lease.created
    a.store.cluster.control("del", record(a))
    lab.eventually(lambda: holders(a, subnet) == [str(a.machine.ipv4.ip)])
    lab.eventually(lambda: b.pings(a) and a.status().lease.created > created)
    assert "Our lease is gone: " in a.log()
    assert "Took our subnet again" in a.log()
    assert a.ready()


def test_a_lease_that_runs_out_while_its_agent_is_frozen_is_taken_again(lab):
    a, b = lab.hosts(2, store="etcd", started=False)
    a.start(etcd_lease_ttl="2")
    b.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet = a.subnet
    a.process.send_signal(signal.SIGSTOP)
    lab.eventually(lambda: holders(b, subnet) == [], 15)
    lab.eventually(lambda: str(subnet) not in b.run("ip route"))
    a.process.send_signal(signal.SIGCONT)
    lab.eventually(lambda: holders(b, subnet) == [str(a.machine.ipv4.ip)], 10)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert a.subnet == subnet


@pytest.mark.drawn(1)
@pytest.mark.parametrize("how", ["made anew", "overwritten"])
def test_a_lease_that_is_anothers_by_now_ends_the_agent_as_in_go_and_the_next_start_takes_another_subnet(lab, how):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b))
    subnet, key = a.subnet, record(a)
    a.process.send_signal(signal.SIGSTOP)  # the other is faster
    if how == "made anew":
        a.store.cluster.control("del", key)
    a.store.cluster.control("put", key, of_another())
    a.process.send_signal(signal.SIGCONT)
    lab.eventually(lambda: not a.running)
    assert a.process.returncode == 0
    assert "Lease has been revoked. Shutting down daemon." in a.log()
    assert holders(b, subnet) == ["198.51.100.77"]
    (a.directory / "lease.json").unlink()  # of the same creation, it would be the host's own with another address
    a.start()
    lab.wait_until_ready([a])
    assert a.subnet != subnet
    lab.eventually(lambda: a.pings(b) and b.pings(a))


def test_an_etcd_that_is_silent_for_longer_than_a_lease_lasts_costs_no_packet_and_no_subnet(lab):
    a, b = lab.hosts(2, store="etcd", started=False)
    for host in (a, b):
        host.start(etcd_lease_ttl="5", removal_hold_off="4")
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnets = a.subnet, b.subnet
    [member] = a.store.cluster.members
    with a.pinging(b) as pings:
        member.freeze()
        lab.eventually(lambda: "does not answer" in "".join(a.status().problems), 20)
        lab.eventually(lambda: "the peers as of" in "".join(a.status().problems))
        member.thaw()
        lab.eventually(lambda: "the store was silent for " in "".join(a.status().problems), 20)
        lab.eventually(lambda: not a.status().problems and not b.status().problems, 20)
        lab.eventually(lambda: all(holders(a, subnet) for subnet in subnets), 10)
    assert pings.lost == 0
    assert (a.subnet, b.subnet) == subnets


def test_a_history_that_is_compacted_while_the_agent_is_cut_off_is_made_up_for_by_a_list(lab):
    a, b, c = lab.hosts(3, store="etcd")
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    gone = c.subnet
    a.process.send_signal(signal.SIGSTOP)
    c.stop()
    c.store.release(gone)
    cluster = a.store.cluster
    revision = cluster.control("get", "x", "--write-out=fields").split('"Revision" : ')[1].split()[0]
    cluster.control("compact", revision)
    a.process.send_signal(signal.SIGCONT)
    lab.eventually(lambda: str(gone) not in a.run("ip route"), 10)
    assert a.pings(b)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("away", [False, True], ids=["etcd answers", "etcd is away"])
def test_sigterm_ends_the_agent_within_a_second(lab, away):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b))
    if away:
        a.store.cluster.kill()
        lab.eventually(lambda: "connection refused" in "".join(a.status().problems))
    began = time.monotonic()
    assert a.stop() == 0
    assert time.monotonic() - began < 1
    assert a.pings(b)
