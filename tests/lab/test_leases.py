"""Leases that are given back, by the agent when it stops and by an operator, as their peers see it."""

import subprocess

import pytest

from flannel_core.lab.programs import FLANNELCTL


def flannelctl(host, *words):
    store = [f"--{name}={value}" for name, value in host.store.arguments.items()]
    return subprocess.run(
        ["ip", "netns", "exec", host.namespace, FLANNELCTL, "lease", *words, *store, "--subnet-file", host.subnet_file],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=dict(host.environment),
    )


@pytest.mark.drawn(1)
@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_a_lease_released_on_exit_is_gone_from_its_peers_at_once(lab, store):
    a, b = lab.hosts(2, store=store)
    a.restart(release_lease_on_exit=True)
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet = a.subnet
    assert a.stop() == 0
    assert f"Released our lease of {subnet}" in a.log()
    lab.eventually(lambda: str(subnet) not in b.run("ip route"))
    assert [lease.subnets for lease in a.store.leases().leases] == [(b.subnet,)]
    assert str(b.subnet) in a.run("ip route"), "the data path stays"
    a.start()
    lab.wait_until_ready([a])
    assert a.subnet == subnet, "subnet.env still names it"


def test_without_the_option_the_lease_stays(lab):
    a, b = lab.hosts(2)
    subnet = a.subnet
    lab.eventually(lambda: str(subnet) in b.run("ip route"))
    assert a.stop() == 0
    assert any(subnet in lease.subnets for lease in a.store.leases().leases)
    assert str(subnet) in b.run("ip route")


def test_a_reservation_is_not_released_on_exit(lab):
    (a,) = lab.hosts(1, started=False)
    a.start(release_lease_on_exit=True)
    lab.wait_until_ready([a])
    assert flannelctl(a, "reserve", str(a.subnet)).returncode == 0
    a.stop()
    (lease,) = a.store.leases().leases
    assert (lease.subnets, lease.expires) == ((a.subnet,), None)


def test_a_store_that_is_away_does_not_hold_up_the_end(lab):
    (a,) = lab.hosts(1, store="etcd", started=False)
    a.start(release_lease_on_exit=True)
    lab.wait_until_ready([a])
    (held,) = a.store.leases().leases
    for member in a.store.cluster.members:
        member.freeze()
    assert a.stop() == 0  # raises after 5 s
    assert f"Our lease of {a.subnet} was not released, it expires 20" in a.log()
    for member in a.store.cluster.members:
        member.thaw()
    assert [lease.key for lease in a.store.leases().leases] == [held.key]


def test_the_lease_of_the_agent_at_work_here_is_not_released_by_mistake(lab):
    a, b = lab.hosts(2, store="etcd")
    refused = flannelctl(a, "release", str(a.subnet), "--yes")
    assert refused.returncode == 1
    assert f"{a.subnet} is the lease of the agent at work here (pid {a.process.pid})" in refused.stderr
    gone = b.subnet
    b.kill()
    released = flannelctl(a, "release", str(gone), "--yes")
    assert (released.returncode, released.stderr) == (0, "")
    assert str(b.machine.ipv4.ip) in released.stdout
    lab.eventually(lambda: str(gone) not in a.run("ip route"))
    created = a.status().lease.created
    assert flannelctl(a, "release", str(a.subnet), "--yes", "--force").returncode == 0
    lab.eventually(lambda: a.status().lease.created > created and a.ready())  # and takes it again
    assert flannelctl(a, "list").stdout.count(str(a.subnet)) == 1
