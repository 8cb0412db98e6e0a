"""Peers that are many, that move, that lose their lease, or that cannot be trusted."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from flannel_core.lease import Endpoint, Lease


def peer(number, data=None, subnet=None):
    """A lease of a vxlan host that is not there."""
    subnet = IPv4Network(subnet or (IPv4Address("10.5.0.0") + number * 16, 28))
    data = data or f'{{"VNI":1,"VtepMAC":"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}}'.encode()
    key = str(subnet).replace("/", "-")
    return Lease(key, "vxlan", Endpoint(subnet, IPv4Address("192.0.2.0") + number, data))


def test_a_restart_beside_1000_peers_writes_nothing(lab):
    (a,) = lab.hosts(1, backend="vxlan", configured=False, started=False)
    lab.set_config({"Network": "10.5.0.0/16", "SubnetLen": 28, "Backend": {"Type": "vxlan"}})
    a.store.reserve(peer(number) for number in range(1000, 2000))
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: len(a.run("ip route show proto 76").splitlines()) == 1000)
    lab.eventually(lambda: a.plan() == [])
    assert a.status().writes >= 3000
    a.restart()
    lab.wait_until_ready([a])
    lab.eventually(lambda: sum(known.programmed for known in a.status().peers) == 1000)
    assert a.status().writes == 0


@pytest.mark.parametrize(
    ("data", "subnet", "named"),
    [
        (b'{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}', None, "unicast"),
        (b'{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}', None, "unicast"),
        (b'{"VNI":1}', None, "VtepMAC"),
        (b'"text"', None, ""),
        (None, "10.5.0.0/16", "10.5.0.0/16"),
        (None, "10.77.1.0/24", "10.77.1.0/24"),
    ],
    ids=["multicast MAC", "zero MAC", "no MAC", "wrong type", "the whole network", "outside the network"],
)
def test_a_lease_that_cannot_be_trusted_is_named_and_harms_nobody(lab, data, subnet, named):
    a, b = lab.hosts(2, backend="vxlan", started=False)
    bad = peer(3000, data, subnet)
    a.store.reserve([bad])
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    lab.eventually(lambda: [refused.key for refused in a.status().refused] == [bad.key])
    assert named in str(a.status().refused[0])
    assert "192.0.2" not in a.run("ip route") + a.run("bridge fdb show dev flannel.1")
    assert "Traceback" not in a.log()


def test_a_lease_that_was_released_under_its_owner_is_taken_again(lab):
    a, b = lab.hosts(2, backend="vxlan")
    lab.eventually(lambda: a.pings(b))
    subnet = a.subnet
    a.store.release(subnet)
    lab.eventually(lambda: subnet in {net for lease in a.store.leases().leases for net in lease.subnets})
    lab.eventually(lambda: b.pings(a))
    assert a.ready()
    assert a.subnet == subnet


def test_a_host_whose_address_changes_keeps_its_subnet_and_is_found_again(lab):
    a, b = lab.hosts(2, backend="vxlan")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet = a.subnet
    a.run(f"ip addr del {a.machine.ipv4} dev eth0")
    a.run("ip addr add 198.51.100.99/24 dev eth0")
    a.run("ip route replace default via 198.51.100.1")
    lab.eventually(lambda: a.pings(b) and b.pings(a), within=5)
    assert a.subnet == subnet
    assert [known.public_ips for known in b.status().peers] == [("198.51.100.99",)]
