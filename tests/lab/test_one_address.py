"""Two hosts that are given one address, and a host that comes back to its own: they are told apart."""

import shutil

import pytest

STORES = pytest.mark.parametrize("store", ["sqlite", "etcd"])


def forget(host):
    """As a reboot does with /run."""
    shutil.rmtree(host.directory)


@pytest.mark.drawn(1)
@STORES
def test_a_host_that_is_given_the_address_of_a_running_one_is_refused_and_both_are_named(lab, store):
    a, b, c = lab.hosts(3, store=store, started=False)
    for host in (a, c):
        host.start()
    lab.wait_until_ready([a, c])
    lab.eventually(lambda: a.pings(c) and c.pings(a))
    subnets, mac = a.env.subnets, a.run("cat /sys/class/net/flannel.1/address").strip()
    with c.pinging(a) as pings:
        b.start(public_ip=str(a.machine.ipv4.ip))
        lab.eventually(lambda: "another host" in (b.status().waiting_for or ""))
        lab.eventually(lambda: "asked for our lease" in "".join(a.status().problems))
    assert pings.lost == 0
    refused = b.status().waiting_for
    assert f"{a.machine.ipv4.ip} is the address of another host, which runs and holds {subnets[0]}" in refused
    assert mac in refused
    assert f"with eth0 {b.machine.ipv4.ip}, needs an address of its own: see --public-ip and --iface" in refused
    assert not b.ready()
    assert not b.subnet_file.exists()
    assert "flannel.1" not in b.run("ip link")
    assert a.env.subnets == subnets
    assert f"it is reached at {a.machine.ipv4.ip}, too" in a.log()
    b.restart()
    lab.wait_until_ready([b])
    lab.eventually(lambda: b.pings(a) and a.pings(b))


@pytest.mark.drawn(1)
@STORES
def test_a_host_that_has_lost_its_memory_gets_its_lease_back(lab, store):
    a, b = lab.hosts(2, store=store)
    lab.eventually(lambda: a.pings(b))
    subnet, mac = a.subnet, a.run("cat /sys/class/net/flannel.1/address")
    a.stop()
    a.run("ip link del flannel.1")
    forget(a)
    a.start()
    lab.wait_until_ready([a])
    assert a.subnet == subnet
    assert a.run("cat /sys/class/net/flannel.1/address") == mac
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert b.status().problems == ()


def test_a_host_that_takes_over_the_address_of_one_that_is_gone_gets_its_lease(lab):
    a, b = lab.hosts(2, store="etcd", started=False)
    a.start()
    lab.wait_until_ready([a])
    subnet = a.subnet
    a.kill()
    b.start(public_ip=str(a.machine.ipv4.ip))
    lab.wait_until_ready([b])
    assert b.subnet == subnet


def test_an_unanswered_question_is_not_asked_where_a_device_tells_whose_the_lease_is(lab):
    (a,) = lab.hosts(1, store="etcd")
    subnet, revision = a.subnet, a.store.leases().revision
    a.stop()
    forget(a)  # but flannel.1 is there, as Go flannel leaves it
    a.start()
    lab.wait_until_ready([a])
    assert a.subnet == subnet
    assert a.store.leases().revision == revision + 1, "one write: the lease is taken again"
