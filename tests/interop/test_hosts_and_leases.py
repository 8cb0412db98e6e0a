"""Hosts of ours that lack a family or share an address, beside Go: see docs/explanation/hosts-and-leases.md."""

import shutil

import pytest


def take_from(host, family):
    address, ip = (host.machine.ipv4, "ip -4") if family == 4 else (host.machine.ipv6, "ip -6")
    host.run(f"{ip} route flush default")
    host.run(f"ip addr del {address} dev eth0")


def give_to(host, family):
    if family == 4:
        host.run(f"ip addr add {host.machine.ipv4} dev eth0")
        host.run("ip route add default via 198.51.100.1")
    else:
        host.run(f"ip addr add {host.machine.ipv6} dev eth0 nodad")
        host.run("ip route add default via 2001:db8:51::1")


@pytest.mark.parametrize("lacking", [4, 6], ids=["without IPv4", "without IPv6"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_host_of_ours_that_lacks_a_family_is_reached_by_go_over_the_other_and_later_over_both(
    lab, new_cluster, backend, lacking
):
    """``other`` starts without a lease beside it, which is when Go reads everybody's."""
    cluster = new_cluster(lab, lab.hosts(3, backend=backend, store="etcd", ipv6=True, started=False))
    go, ours, other = cluster.hosts
    works = 10 - lacking
    cluster.start(go)
    take_from(ours, lacking)
    if lacking == 4:  # the lab's etcd is reached over IPv4
        ours.run("ip addr add 198.51.100.200/32 dev lo")
        ours.run("ip route add 198.51.100.1 dev eth0 src 198.51.100.200")
    cluster.start(ours, other)
    pairs = [(one, two) for one in cluster.hosts for two in cluster.hosts if one is not two]
    lab.eventually(lambda: all(one.pings(two, works) for one, two in pairs))
    lease = ours.status().lease
    with go.pinging(other) as pings:
        if lacking == 4:
            ours.run("ip route del 198.51.100.1 dev eth0")
        give_to(ours, lacking)
        lab.eventually(lambda: len(ours.env.subnets) == 2, 10)
        lab.eventually(cluster.all_ping, 20)
    assert pings.lost == 0
    assert (ours.status().lease.key, ours.status().lease.created) == (lease.key, lease.created)
    assert "panic" not in other.log() + go.log()


def test_a_second_host_of_ours_with_gos_address_takes_its_lease_as_a_second_go_would(cluster):
    """Go does not answer who asks. See also tests/lab/test_one_address.py."""
    go, ours = cluster.go, cluster.ours
    subnet = go.subnet
    ours.stop()
    ours.run("ip link del flannel.1")
    shutil.rmtree(ours.directory)
    ours.start(public_ip=str(go.machine.ipv4.ip))
    cluster.lab.wait_until_ready([ours])
    assert ours.subnet == subnet


@pytest.mark.parametrize("state", ["as Go leaves it", "after a reboot"])
def test_a_host_switched_from_go_keeps_its_subnet_with_and_without_what_go_left(cluster, state):
    go, lab = cluster.go, cluster.lab
    subnet = go.subnet
    go.stop()
    if state == "after a reboot":
        go.run("ip link del flannel.1")
        shutil.rmtree(go.directory)
    go.runs(cluster.ours.program)
    cluster.start(go)
    assert go.subnet == subnet
    lab.eventually(cluster.all_ping)
