"""Dual stack on hosts that are not: one family that cannot work leaves the other working, is named, and joins when it
can."""

import json

import pytest

DUAL = {
    "Network": "10.5.0.0/16",
    "EnableIPv6": True,
    "IPv6Network": "fc00:5::/48",
    "Backend": {"Type": "vxlan"},
}
NO_IPV6 = "IPv6 does not work on this host, IPv4 does: "


def take_ipv6_from(host):
    host.run("ip -6 route flush default")
    host.run(f"ip addr del {host.machine.ipv6} dev eth0")


def give_ipv6_to(host):
    host.run(f"ip addr add {host.machine.ipv6} dev eth0 nodad")
    host.run("ip route add default via 2001:db8:51::1")


@pytest.mark.drawn(1)
@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_a_host_without_an_ipv6_address_works_over_ipv4_and_joins_with_ipv6_when_it_has_one(lab, store):
    a, b = lab.hosts(2, store=store, ipv6=True, started=False)
    take_ipv6_from(a)
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b, 4) and b.pings(a, 4))
    assert [subnet.version for subnet in a.env.subnets] == [4]
    assert a.env.mtu == 1450
    assert [lease.ipv6.leads_nowhere for lease in a.store.leases().leases if a.subnet in lease.subnets] == [True]
    [problem] = a.status().problems
    assert problem == f"{NO_IPV6}eth0 (--iface eth0) has no usable IPv6 address"
    assert problem in a.log()
    assert "flannel-v6.1" not in a.run("ip link")
    assert b.status().problems == ()
    subnet, lease = a.subnet, a.status().lease
    with b.pinging(a, 4) as pings:
        give_ipv6_to(a)
        lab.eventually(lambda: len(a.env.subnets) == 2, 5)
    assert pings.lost == 0
    lab.eventually(lambda: a.pings(b, 6) and b.pings(a, 6))  # the pods are addressed anew for it
    assert a.subnet == subnet
    assert a.status().problems == ()
    assert a.env.mtu == 1430
    assert (a.status().lease.key, a.status().lease.created) == (lease.key, lease.created)
    assert a.status().lease.subnets == tuple(map(str, a.env.subnets))


def test_a_host_that_loses_its_ipv6_address_keeps_its_lease_and_goes_on_over_ipv4(lab):
    a, b = lab.hosts(2, ipv6=True)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnets = a.env.subnets
    with b.pinging(a, 4) as pings:
        take_ipv6_from(a)
        lab.eventually(lambda: "2001:db8:51::b stays announced" in "".join(a.status().problems))
        a.restart()
        lab.wait_until_ready([a])
        assert "2001:db8:51::b stays announced" in "".join(a.status().problems)
        assert a.env.subnets == subnets
        give_ipv6_to(a)
        lab.eventually(lambda: a.pings(b, 6) and b.pings(a, 6))
    assert pings.lost == 0
    lab.eventually(lambda: a.status().problems == ())


def test_a_change_of_the_ipv4_address_is_followed_while_ipv6_is_gone(lab):
    a, b = lab.hosts(2, ipv6=True)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    take_ipv6_from(a)
    a.run(f"ip addr del {a.machine.ipv4} dev eth0")
    a.run("ip addr add 198.51.100.99/24 dev eth0")
    a.run("ip route replace default via 198.51.100.1")
    lab.eventually(lambda: a.pings(b, 4) and b.pings(a, 4), 5)


def test_ipv6_that_the_kernel_has_switched_off_is_named_and_joins_when_it_is_switched_on(lab):
    a, b = lab.hosts(2, ipv6=True, started=False)
    a.run("sysctl -q net.ipv6.conf.all.disable_ipv6=1")
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b, 4) and b.pings(a, 4))
    assert any(problem.startswith(NO_IPV6) for problem in a.status().problems)
    a.run("sysctl -q net.ipv6.conf.all.disable_ipv6=0")
    give_ipv6_to(a)
    lab.eventually(lambda: a.pings(b, 6) and b.pings(a, 6), 10)


def test_a_backend_that_refuses_one_family_serves_the_other(lab):
    a, b = lab.hosts(2, backend="host-gw", ipv6=True, started=False)
    a.start(public_ipv6="2001:db8::77", iface="eth0")
    b.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b, 4) and b.pings(a, 4))
    [problem] = a.status().problems
    assert problem.startswith(NO_IPV6)
    assert "--public-ipv6 2001:db8::77 is not eth0's address" in problem
    a.restart()
    lab.eventually(lambda: a.pings(b, 6) and b.pings(a, 6))


@pytest.mark.drawn(1)
@pytest.mark.parametrize(("taken", "broken", "works"), [("flannel-v6.1", 6, 4), ("flannel.1", 4, 6)])
def test_a_device_that_cannot_be_made_leaves_the_other_family_and_is_made_when_it_can_be(lab, taken, broken, works):
    a, b = lab.hosts(2, ipv6=True, started=False)
    local = a.machine.ipv6.ip if broken == 6 else a.machine.ipv4.ip
    a.run(f"ip link add in-the-way type vxlan id 1 dstport 8472 dev eth0 local {local}")
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b, works) and b.pings(a, works))
    assert any(taken in problem for problem in a.status().problems)
    a.run("ip link del in-the-way")
    lab.eventually(lambda: a.pings(b, broken) and b.pings(a, broken), 30)


def test_without_a_free_ipv6_subnet_a_host_has_its_ipv4_one_and_says_so(lab):
    a, b = lab.hosts(2, ipv6=True, configured=False, started=False)
    lab.set_config(DUAL | {"IPv6SubnetMin": "fc00:5:0:1::", "IPv6SubnetMax": "fc00:5:0:1::"})
    a.start()
    lab.wait_until_ready([a])
    b.start()
    lab.wait_until_ready([b])
    lab.eventually(lambda: a.pings(b, 4) and b.pings(a, 4))
    assert [problem for problem in b.status().problems if "no free subnet in fc00:5::/48" in problem]
    assert [subnet.version for subnet in b.env.subnets] == [4]
    subnet, gone = b.subnet, a.subnet
    a.stop()
    a.store.release(gone)
    b.run("ip link set eth0 mtu 1400")  # it is tried again at each change of the host, and once a minute
    lab.eventually(lambda: [subnet.version for subnet in b.env.subnets] == [4, 6])
    assert b.subnet == subnet
    lab.eventually(lambda: b.status().problems == ())
    assert [lease.subnets for lease in b.store.leases().leases] == [b.env.subnets]


def test_one_family_of_a_peer_that_cannot_be_trusted_leaves_its_other_one(lab):
    a, b = lab.hosts(2, backend="vxlan", store="etcd", ipv6=True)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    [lease] = [lease for lease in a.store.leases().leases if b.subnet in lease.subnets]
    b.kill()
    value = {
        "PublicIP": str(b.machine.ipv4.ip),
        "PublicIPv6": str(b.machine.ipv6.ip),
        "BackendType": "vxlan",
        "BackendData": json.loads(lease.ipv4.data),
        "BackendV6Data": {"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"},
    }
    a.store.cluster.control("put", f"/coreos.com/network/subnets/{lease.key}", json.dumps(value))
    lab.eventually(lambda: [refused.subnets for refused in a.status().refused] == [(str(b.subnet6),)])
    assert "unicast" in a.status().refused[0].reason
    assert a.pings(b, 4)


@pytest.mark.drawn(1)
@pytest.mark.parametrize(("ipv4", "mtu"), [(False, 1430), (True, 1430)], ids=["IPv6 alone", "dual stack"])
def test_the_mtu_over_ipv6_is_the_same_in_the_device_and_in_subnet_env(lab, ipv4, mtu):
    a, b = lab.hosts(2, ipv4=ipv4, ipv6=True)
    lab.eventually(lambda: a.pings(b))
    assert a.env.mtu == mtu
    assert a.run("cat /sys/class/net/flannel-v6.1/mtu") == "1430\n"
    with a.pinging(b, 6, size=mtu - 48) as pings:
        lab.eventually(lambda: pings.sent > 20)
    assert pings.lost == 0
