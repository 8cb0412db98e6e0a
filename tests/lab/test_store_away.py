"""The store goes away: forwarding goes on, also of an agent that starts meanwhile, and nothing is forgotten."""

import json
import stat

import pytest

AWAY = "the store does not answer: "


def etcd_away(host):
    host.store.cluster.kill()


def remembered(host):
    return (host.directory / "snapshot.jsonl").read_text().splitlines()


def knows_its_peers(host, count):
    return (host.directory / "snapshot.jsonl").exists() and len(remembered(host)) == 1 + count


def test_an_agent_that_starts_while_etcd_is_away_goes_on_as_an_earlier_one_left_it(lab):
    a, b = lab.hosts(2, store="etcd", ipv6=True)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    lab.eventually(lambda: knows_its_peers(a, 1))
    before = (a.directory / "subnet.env").read_bytes()
    with a.pinging(b) as pings:
        etcd_away(a)
        a.restart()
        lab.wait_until_ready([a])
        [problem] = a.status().problems
        assert problem.startswith(AWAY)
        assert "forwarding goes on with the peers as of 2" in problem
        assert problem.endswith(", remembered by an earlier run")
        assert [peer.key for peer in a.status().peers if peer.programmed] == [b.status().lease.key]
        assert a.status().writes == 0
        a.store.cluster.start()
        lab.eventually(lambda: a.status().problems == (), 10)
    assert pings.lost == 0
    assert (a.directory / "subnet.env").read_bytes() == before
    lab.eventually(lambda: a.status().lease.renewed, 15)  # a call waits 4 s for its answer, and 4 s before the next


def test_what_is_broken_meanwhile_is_put_back_from_memory(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b) and knows_its_peers(a, 1))
    etcd_away(a)
    a.stop()
    a.run("ip link del flannel.1")
    (a.directory / "subnet.env").unlink()
    a.start()
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    a.run(f"ip route del {b.subnet}")
    lab.eventually(lambda: a.pings(b), 5)


def test_nobody_is_forgotten_on_account_of_what_is_remembered_and_who_left_is_forgotten_when_the_store_is_back(lab):
    a, b, c = lab.hosts(3, store="etcd", started=False)
    for host in (a, b):
        host.start()
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: knows_its_peers(a, 1))
    old = (a.directory / "snapshot.jsonl").read_bytes()
    c.start()
    lab.wait_until_ready([c])
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    gone = b.subnet
    b.kill()
    b.store.release(gone)
    lab.eventually(lambda: str(gone) not in a.run("ip route"))
    a.kill()
    (a.directory / "snapshot.jsonl").write_bytes(old)  # as if it had been killed before it was written again
    etcd_away(a)
    a.start()
    lab.wait_until_ready([a])
    assert a.pings(c)
    assert str(gone) in a.run("ip route")
    a.store.cluster.start()
    lab.eventually(lambda: str(gone) not in a.run("ip route"), 10)
    assert a.pings(c)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("how", ["another network", "another store", "damaged", "without its own lease"])
def test_what_is_remembered_of_something_else_is_not_used(lab, how):
    a, _b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: knows_its_peers(a, 1))
    a.stop()
    if how == "another network":
        replace_in_header(a, config=json.dumps({"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}))
    elif how == "another store":
        replace_in_header(a, location="https://elsewhere:2379 /coreos.com/network")
    elif how == "damaged":
        (a.directory / "snapshot.jsonl").write_text(remembered(a)[0][:50])
    else:
        (a.directory / "lease.json").unlink()
    etcd_away(a)
    a.start()
    lab.eventually(lambda: "connection refused" in "".join(a.status().problems))
    assert not a.ready()
    assert a.status().peers == ()
    assert "Traceback" not in a.log()
    a.store.cluster.start()
    lab.wait_until_ready([a])


def replace_in_header(host, **values):
    first, *rest = remembered(host)
    (host.directory / "snapshot.jsonl").write_text("\n".join([json.dumps(json.loads(first) | values), *rest, ""]))


def test_a_remembered_peer_that_cannot_be_trusted_is_refused_all_the_same(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: knows_its_peers(a, 1))
    a.stop()
    row = json.loads(remembered(a)[1])
    row[5] = "224.0.0.7"
    (a.directory / "snapshot.jsonl").write_text(f"{remembered(a)[0]}\n{json.dumps(row)}\n")
    etcd_away(a)
    a.start()
    lab.eventually(lambda: [refused.key for refused in a.status().refused] == [b.status().lease.key])
    assert "224.0.0.7" in a.status().refused[0].reason


def test_the_file_is_for_root_alone_and_follows_who_comes_and_goes(lab):
    a, b = lab.hosts(2, store="sqlite", started=False)
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: knows_its_peers(a, 0))
    assert stat.S_IMODE((a.directory / "snapshot.jsonl").stat().st_mode) == 0o600
    b.start()
    lab.wait_until_ready([b])
    lab.eventually(lambda: a.pings(b))
    a.stop()  # what is not written yet is written at the end
    assert knows_its_peers(a, 1)


def test_readiness_ends_once_the_store_has_been_silent_for_the_time_given_and_health_does_not(lab):
    a, b, c = lab.hosts(3, store="etcd", started=False)
    a.start(store_silence="2")
    b.start()
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: a.http("/readyz")[0] == 200 and knows_its_peers(a, 1))
    c.start()  # what is heard now is written when the agent ends, and is no younger for that
    lab.wait_until_ready([c])
    lab.eventually(lambda: a.pings(c))
    etcd_away(a)
    lab.eventually(lambda: a.http("/readyz")[0] == 503, 10)
    assert b.http("/readyz")[0] == 200
    assert a.http("/healthz")[0] == 200
    assert a.pings(b)
    a.restart(store_silence="2")
    lab.wait_until_ready([a])  # for systemd: what is remembered stands
    assert a.http("/readyz")[0] == 503
    a.store.cluster.start()
    lab.eventually(lambda: a.http("/readyz")[0] == 200, 10)


def test_a_host_that_changes_while_etcd_is_away_follows_and_tells_it_afterwards(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b) and knows_its_peers(a, 1))
    etcd_away(a)
    a.run(f"ip addr del {a.machine.ipv4} dev eth0")
    a.run("ip addr add 198.51.100.99/24 dev eth0")
    a.run("ip route replace default via 198.51.100.1")
    lab.eventually(lambda: "local 198.51.100.99" in a.run("ip -d link show flannel.1"), 5)
    a.run("ip link set eth0 mtu 1400")
    lab.eventually(lambda: a.env.mtu == 1350, 5)
    a.restart()
    lab.wait_until_ready([a])
    a.store.cluster.start()
    lab.eventually(lambda: a.pings(b) and b.pings(a), 10)
    assert [known.public_ips for known in b.status().peers] == [("198.51.100.99",)]


def test_a_subnet_that_another_host_was_given_while_we_could_not_hear_of_it_ends_the_agent_as_in_go(lab):
    a, b = lab.hosts(2, store="etcd")
    lab.eventually(lambda: a.pings(b) and knows_its_peers(a, 1))
    a.stop()
    prefix = "/coreos.com/network/subnets/"
    key = json.loads(remembered(a)[0])["own"][0]
    cluster = a.store.cluster
    cluster.control("del", f"{prefix}{key}")
    data = {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"}
    value = {"PublicIP": "198.51.100.77", "BackendType": "vxlan", "BackendData": data}
    cluster.control("put", f"{prefix}{key}", json.dumps(value))
    etcd_away(a)
    a.start()
    lab.wait_until_ready([a])
    cluster.start()
    lab.eventually(lambda: not a.running, 10)
    assert a.process.returncode == 0
    assert "Lease has been revoked. Shutting down daemon." in a.log()
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b) and b.pings(a))


def test_a_lease_that_was_released_at_the_end_is_not_gone_on_with(lab):
    a, b = lab.hosts(2, store="etcd")
    a.restart(release_lease_on_exit=True)
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b) and knows_its_peers(a, 1))
    a.stop()
    assert "Released our lease" in a.log()
    etcd_away(a)
    a.start()
    lab.eventually(lambda: "connection refused" in "".join(a.status().problems))
    assert not a.ready()
    a.store.cluster.start()
    lab.wait_until_ready([a])
