"""Peers that are many, that move, that lose their lease, or that cannot be trusted."""

import json
import sqlite3
from contextlib import closing
from ipaddress import IPv4Address

import pytest


def lease(number, key=None, data=None):
    """Key and value of the lease of a vxlan host that is not there."""
    data = data or {"VNI": 1, "VtepMAC": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}
    value = {"PublicIP": str(IPv4Address("192.0.2.0") + number), "BackendType": "vxlan", "BackendData": data}
    return key or f"{IPv4Address('10.5.0.0') + number * 16}-28", json.dumps(value)


def put(host, leases):
    """Write them as an operator does with the sqlite3 command."""
    with closing(sqlite3.connect(host.store.options["file"])) as connection, connection:
        connection.executemany("INSERT INTO leases (key, value) VALUES (?, ?)", leases)


def test_a_restart_beside_1000_peers_writes_nothing(lab):
    (a,) = lab.hosts(1, backend="vxlan", configured=False, started=False)
    lab.set_config({"Network": "10.5.0.0/16", "SubnetLen": 28, "Backend": {"Type": "vxlan"}})
    put(a, [lease(number) for number in range(1000, 2000)])
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: len(a.run("ip route show proto 76").splitlines()) == 1000)
    lab.eventually(lambda: a.plan() == [])
    assert a.status().writes >= 3000
    a.restart()
    lab.wait_until_ready([a])
    lab.eventually(lambda: sum(known.programmed for known in a.status().peers) == 1000)
    assert a.status().writes == 0


@pytest.mark.drawn(5)
@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (lease(3000, data={"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"}), "unicast"),
        (lease(3000, data={"VNI": 1, "VtepMAC": "00:00:00:00:00:00"}), "unicast"),
        (lease(3000, data={"VNI": 1}), "VtepMAC"),
        (lease(3000, data="text"), "object"),
        (lease(3000, data="x" * 20000), "16384"),
        (lease(3000, key="10.5.0.0-16"), "10.5.0.0/16"),
        (lease(3000, key="10.77.1.0-24"), "10.77.1.0/24"),
        (lease(3000, key="nonsense"), "nonsense"),
        (("10.5.200.0-24", '{"PublicIP":"192.0.2.7","Back'), "truncated"),
        (("10.5.200.0-24", "[" * 8000), "array"),
        (("10.5.200.0-24", '{"PublicIP":"224.0.0.7","BackendType":"vxlan"}'), "224.0.0.7"),
    ],
    ids=[
        "multicast MAC",
        "zero MAC",
        "no MAC",
        "data of a wrong type",
        "huge",
        "the whole network",
        "outside the network",
        "a key that is none",
        "truncated",
        "deeply nested",
        "multicast address",
    ],
)
def test_a_lease_that_cannot_be_trusted_is_named_and_harms_nobody(lab, entry, named):
    a, b = lab.hosts(2, backend="vxlan", started=False)
    a.store.leases()  # makes the tables
    put(a, [entry])
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    lab.eventually(lambda: [refused.key for refused in a.status().refused] == [entry[0]])
    assert named in str(a.status().refused[0])
    assert len(a.run("ip route show proto 76").splitlines()) == 1
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


def test_a_lease_that_another_host_took_ends_its_former_owner_as_in_go(lab):
    a, b = lab.hosts(2, backend="vxlan")
    key = str(a.subnet).replace("/", "-")
    with closing(sqlite3.connect(a.store.options["file"])) as connection, connection:
        connection.execute("DELETE FROM leases WHERE key = ?", (key,))
        connection.execute("INSERT INTO leases (key, value) VALUES (?, ?)", lease(9, key=key))
    lab.eventually(lambda: not a.running)
    assert a.process.returncode == 0
    assert "Lease has been revoked. Shutting down daemon." in a.log()
    assert b.ready()


@pytest.mark.drawn(1)
@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_a_host_whose_address_changes_keeps_its_subnet_and_is_found_again(lab, store):
    a, b = lab.hosts(2, backend="vxlan", store=store)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    subnet = a.subnet
    a.run(f"ip addr del {a.machine.ipv4} dev eth0")
    a.run("ip addr add 198.51.100.99/24 dev eth0")
    a.run("ip route replace default via 198.51.100.1")
    lab.eventually(lambda: a.pings(b) and b.pings(a), within=5)
    assert a.subnet == subnet
    assert [known.public_ips for known in b.status().peers] == [("198.51.100.99",)]


def test_a_host_that_is_back_at_its_address_before_etcd_answers_is_not_announced_at_the_other(lab):
    a, b = lab.hosts(2, backend="host-gw", store="etcd")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    own = a.machine.ipv4
    a.store.cluster.kill()
    for old, new in ((own, "198.51.100.99/24"), ("198.51.100.99/24", own)):
        a.run(f"ip addr del {old} dev eth0")
        a.run(f"ip addr add {new} dev eth0")
        a.run("ip route replace default via 198.51.100.1")
        lab.eventually(lambda old=old, new=new: f"{str(new)[:-3]}, MTU 1500), was eth0 ({str(old)[:-3]}," in a.log())
    a.store.cluster.start()
    lab.eventually(lambda: f"Announced anew: {own.ip}" in a.log(), 15)
    assert "Announced anew: 198.51.100.99" not in a.log()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert [known.public_ips for known in b.status().peers] == [(str(own.ip),)]
