"""A host that becomes another while its agent runs, or while it does not: the subnet stays, the peers follow."""

import pytest

WITHIN = 5.0
STORES = pytest.mark.parametrize("store", ["sqlite", "etcd"])


def move(host, address="198.51.100.99"):
    """Another address, as a DHCP server gives it."""
    host.run(f"ip addr del {host.machine.ipv4} dev eth0")
    host.run(f"ip addr add {address}/24 dev eth0")
    host.run("ip route replace default via 198.51.100.1")


def known_at(host):
    return [address for peer in host.status().peers for address in peer.public_ips]


@pytest.mark.drawn(2)
@STORES
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_an_address_that_changes_is_announced_under_the_same_subnet(lab, store, backend):
    a, b = lab.hosts(2, backend=backend, store=store)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    before = a.status()
    move(a)
    lab.eventually(lambda: known_at(b) == ["198.51.100.99"] and a.pings(b) and b.pings(a), WITHIN)
    after = a.status()
    assert (after.lease.subnets, after.lease.created) == (before.lease.subnets, before.lease.created)
    assert "This host changed: eth0 (198.51.100.99, MTU 1500), was eth0 (198.51.100.11, MTU 1500)" in a.log()
    assert after.problems == ()


@pytest.mark.drawn(1)
@STORES
def test_an_address_that_changed_while_the_agent_was_away_finds_the_same_lease(lab, store):
    a, b = lab.hosts(2, store=store)
    lab.eventually(lambda: a.pings(b))
    before = a.status().lease
    a.stop()
    move(a)
    a.start()
    lab.wait_until_ready([a])
    assert (a.status().lease.subnets, a.status().lease.created) == (before.subnets, before.created)
    lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)
    assert known_at(b) == ["198.51.100.99"]
    assert len(a.store.leases().leases) == 2


def test_the_tunnel_device_is_changed_in_place(lab):
    a, b = lab.hosts(2)
    index = a.run("cat /sys/class/net/flannel.1/ifindex")
    move(a)
    lab.eventually(lambda: "local 198.51.100.99" in a.run("ip -d link show flannel.1"), WITHIN)
    a.run("ip link set eth0 mtu 1400")
    lab.eventually(lambda: a.run("cat /sys/class/net/flannel.1/mtu") == "1350\n", WITHIN)
    lab.eventually(lambda: a.env.mtu == 1350, WITHIN)
    a.run("ip link set eth0 mtu 1500")
    lab.eventually(lambda: a.env.mtu == 1450 and a.run("cat /sys/class/net/flannel.1/mtu") == "1450\n", WITHIN)
    assert a.run("cat /sys/class/net/flannel.1/ifindex") == index
    lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_renamed_interface_is_followed(lab, backend):
    a, b = lab.hosts(2, backend=backend, started=False)
    a.start(iface=None)  # that of the default route
    b.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    a.run("ip link set eth0 down")
    a.run("ip link set eth0 name uplink0")
    a.run("ip link set uplink0 up")
    a.run("ip route replace default via 198.51.100.1")
    lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)
    lab.eventually(lambda: a.status().host.interface == "uplink0", WITHIN)
    lab.eventually(lambda: a.plan() == [] and a.status().problems == (), WITHIN)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_an_interface_that_is_put_into_a_bridge_hands_over_to_it(lab, backend):
    a, b = lab.hosts(2, backend=backend, started=False)
    a.start(iface=None)
    b.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet = a.subnet
    for command in (
        "ip link add br0 type bridge mcast_snooping 0",
        "ip link set br0 up",
        "ip link set eth0 master br0",
        f"ip addr del {a.machine.ipv4} dev eth0",
        f"ip addr add {a.machine.ipv4} dev br0",
        "ip route replace default via 198.51.100.1",
    ):
        a.run(command)
    lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)
    lab.eventually(lambda: a.status().host.interface == "br0", WITHIN)
    lab.eventually(lambda: a.plan() == [] and a.status().problems == (), WITHIN)
    assert a.subnet == subnet


def test_a_device_whose_mac_changes_at_the_same_moment_keeps_the_announced_one(lab):
    a, b = lab.hosts(2)
    announced = a.status().backend.announced_ipv4
    for number in range(5):
        a.run(f"ip link set flannel.1 address 02:00:5e:00:53:{number:02x}")
        a.run(f"ip link set eth0 mtu {1400 + number}")
        lab.eventually(lambda number=number: a.env.mtu == 1350 + number, WITHIN)
        lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)
    assert a.status().backend.announced_ipv4 == announced
    assert a.run("cat /sys/class/net/flannel.1/address").strip() in announced


@pytest.mark.drawn(1)
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_link_that_goes_down_and_comes_up_without_its_address_keeps_the_last_one_announced(lab, family):
    a, b = lab.hosts(2, ipv4=family == 4, ipv6=family == 6)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    address, gateway = (
        (a.machine.ipv4, "198.51.100.1") if family == 4 else (f"{a.machine.ipv6} nodad", "2001:db8:51::1")
    )
    bare = str(address).split()[0]
    a.run(f"ip addr del {bare} dev eth0")
    a.run("ip link set eth0 down")
    lab.eventually(lambda: f"keeping eth0 ({bare.split('/')[0]}, MTU 1500) until something fits again" in a.log())
    assert known_at(b) == [bare.split("/")[0]]
    a.run("ip link set eth0 up")
    a.run(f"ip addr add {address} dev eth0")
    a.run(f"ip route replace default via {gateway}")
    lab.eventually(lambda: a.pings(b) and b.pings(a), WITHIN)
    assert len([line for line in a.log().splitlines() if "until something fits again" in line]) == 1


def test_the_choice_of_the_interface_says_why_and_which_others_there_were(lab):
    (a,) = lab.hosts(1, started=False)
    a.run("ip link add vpn0 type bridge")
    a.run("ip addr add 203.0.113.5/24 dev vpn0")
    a.run("ip link set vpn0 up")
    a.start(iface=None)
    lab.wait_until_ready([a])
    said = "Using interface with name eth0 and address 198.51.100.11, because the default route is on it"
    assert f"{said}; others: vpn0 (203.0.113.5)" in a.log()
    assert a.status().host.others == ("vpn0 (203.0.113.5)",)
