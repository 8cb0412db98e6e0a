"""Agents that stop, die, start again, and the ones that must not start at all."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

# Not root, but able to read a checkout under /root.
CAPABILITIES = "-all,+dac_read_search"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"]  # fmt: skip


def test_an_unchanged_host_is_not_written_to(lab):
    a, b = lab.hosts(2, backend="vxlan", ipv6=True)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    lab.eventually(lambda: a.plan() == [])
    subnets = a.env.subnets
    a.restart()
    lab.eventually(a.ready)
    assert a.status().writes == 0
    assert a.env.subnets == subnets
    assert a.plan() == []


@pytest.mark.drawn(1)
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_killing_an_agent_loses_no_packet(lab, backend):
    a, b = lab.hosts(2, backend=backend)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    with a.pinging(b) as pings:
        a.kill()
        a.start()
        lab.eventually(a.ready)
    assert pings.lost == 0


def test_sigterm_leaves_the_data_path_and_is_a_success(lab):
    a, b = lab.hosts(2, backend="vxlan")
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    with a.pinging(b) as pings:
        assert a.stop() == 0
        lab.eventually(lambda: pings.sent > 30)
    assert pings.lost == 0
    assert (a.directory / "subnet.env").exists()


def test_a_peer_that_left_while_the_agent_was_away_is_forgotten(lab):
    a, b, c = lab.hosts(3, backend="vxlan")
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    gone = c.subnet
    a.stop()
    c.stop()
    c.store.release(gone)
    a.start()
    lab.eventually(lambda: str(gone) not in a.run("ip route"))
    assert str(gone.network_address) not in a.run("ip neigh")
    assert str(c.machine.ipv4.ip) not in a.run("bridge fdb show dev flannel.1")
    assert a.pings(b)


def test_a_new_host_is_reached_and_a_released_one_forgotten_while_agents_run(lab):
    a, b = lab.hosts(2, backend="vxlan", started=False)
    a.start()
    lab.wait_until_ready([a])
    b.start()
    lab.wait_until_ready([b])
    lab.eventually(lambda: a.pings(b))
    gone = b.subnet
    b.kill()
    b.store.release(gone)
    lab.eventually(lambda: str(gone) not in a.run("ip route"))


def test_a_second_agent_of_one_state_directory_is_refused_by_naming_the_first(lab):
    (a,) = lab.hosts(1)
    second = a.attempt(healthz_port="8099")
    assert second.exit_code == 1
    assert str(a.process.pid) in second.output
    assert "Traceback" not in second.output
    assert a.ready()


def test_without_root_it_says_so(lab):
    (a,) = lab.hosts(1, started=False)
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        refused = a.attempt(AS_NOBODY, subnet_file=f"{directory}/subnet.env", sqlite_file=f"{directory}/flannel.sqlite")
    assert refused.exit_code == 1
    assert "root" in refused.output
    assert "Traceback" not in refused.output


def test_an_interface_that_does_not_exist_ends_it(lab):
    (a,) = lab.hosts(1, started=False)
    refused = a.attempt(iface="nope0")
    assert refused.exit_code == 1
    assert "nope0" in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.parametrize("options", [{"colour": "red"}, {"subnet-lease-renew-margin": "soon"}])
def test_a_wrong_option_is_a_usage_error(lab, options):
    (a,) = lab.hosts(1, started=False)
    a.options = {**a.options, **options}
    refused = a.attempt()
    assert refused.exit_code == 2
    assert next(iter(options)) in refused.output
    assert "Traceback" not in refused.output


def test_a_store_that_is_no_database_ends_it(lab):
    (a,) = lab.hosts(1, started=False, configured=False)
    path = lab.directory / "text.sqlite"
    path.write_text("this is no database, but it is long enough to be looked at as one\n" * 100)
    refused = a.attempt(sqlite_file=str(path))
    assert refused.exit_code == 1
    assert str(path) in refused.output
    assert "Traceback" not in refused.output


def test_health_is_told_apart_from_readiness(lab):
    (a,) = lab.hosts(1, configured=False)
    lab.eventually(lambda: a.http("/healthz"))
    assert a.http("/healthz") == (200, "flanneld is running")
    assert a.http("/readyz")[0] == 503
    lab.set_config({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}})
    lab.eventually(lambda: a.http("/readyz") == (200, "flanneld is ready"))
    assert a.http("/status")[0] == 404


def test_a_flannel_device_made_by_go_is_taken_over_in_place(lab):
    a, b = lab.hosts(2, backend="vxlan", started=False)
    b.start()
    lab.wait_until_ready([b])
    peer, peer_mac = b.subnet, b.run("cat /sys/class/net/flannel.1/address").strip()
    a.directory.mkdir(exist_ok=True)
    (a.directory / "subnet.env").write_text(
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.77.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    for command in (
        "ip link add flannel.1 address 0a:58:0a:05:4d:01 txqueuelen 0 type vxlan"
        f" id 1 dev eth0 local {a.machine.ipv4.ip} dstport 8472 nolearning",
        "ip link set flannel.1 mtu 1450 up",
        "ip addr add 10.5.77.0/32 dev flannel.1",
        f"ip neigh add {peer.network_address} lladdr {peer_mac} dev flannel.1 nud permanent",
        f"bridge fdb add {peer_mac} dev flannel.1 dst {b.machine.ipv4.ip} self permanent",
        f"ip route add {peer} via {peer.network_address} dev flannel.1 onlink proto boot",
    ):
        a.run(command)
    index = a.run("cat /sys/class/net/flannel.1/ifindex")
    a.start()
    lab.wait_until_ready([a])
    assert str(a.subnet) == "10.5.77.0/24"
    assert a.run("cat /sys/class/net/flannel.1/ifindex") == index
    assert a.run("cat /sys/class/net/flannel.1/address") == "0a:58:0a:05:4d:01\n"
    assert [route["protocol"] for route in json.loads(a.run(f"ip -j route show {peer}"))] == ["76"]
    lab.eventually(lambda: a.pings(b) and b.pings(a))


@pytest.mark.drawn(5)
@pytest.mark.parametrize(
    "content", [b"", b'{"version": 1', b"\xff\xfe", b"[" * 5000], ids=["empty", "cut", "no UTF-8", "nested"]
)
@pytest.mark.parametrize("name", ["owned.json", "lease.json", "subnet.env"])
def test_a_damaged_state_file_is_named_or_replaced(lab, name, content):
    a, b = lab.hosts(2, backend="host-gw")
    a.stop()
    (a.directory / name).write_bytes(content)
    a.start()
    lab.eventually(lambda: a.ready() or not a.running)
    assert "Traceback" not in a.log()
    if a.running:
        lab.eventually(lambda: a.pings(b) and b.pings(a))
    else:
        assert a.process.returncode == 1
        assert str(a.directory / name) in a.log()


def test_a_lease_is_renewed_before_it_runs_out(lab):
    (a,) = lab.hosts(1)
    a.restart(sqlite_lease_ttl="2")
    lab.eventually(a.ready)
    first = a.status().lease
    renewed = lab.eventually(lambda: a.status().lease.expires > first.expires + 2 and a.status().lease)
    assert (renewed.subnets, renewed.created) == (first.subnets, first.created)
    assert "Lease renewed, new expiration: " in a.log()


def test_a_dry_run_prints_what_a_start_would_do_and_does_none_of_it(lab):
    a, b = lab.hosts(2)
    a.stop()
    [lease] = [lease for lease in a.store.leases().leases if a.subnet in lease.subnets]
    a.run("ip link del flannel.1")
    before = a.run("ip link"), a.run("ip route"), sorted(a.directory.iterdir()), a.store.leases().revision
    ended = a.attempt(dry_run=True)
    assert ended.exit_code == 0
    assert "create link flannel.1 type vxlan id 1" in ended.output
    assert f"create route {b.subnet} via {b.subnet[0]} dev flannel.1 onlink (lease" in ended.output
    assert (a.run("ip link"), a.run("ip route"), sorted(a.directory.iterdir())) == before[:3]
    assert a.store.leases().revision == before[3]
    assert lease in a.store.leases().leases


def test_a_dry_run_beside_the_running_agent_finds_nothing_to_do(lab):
    a, _ = lab.hosts(2)
    lab.eventually(lambda: a.plan() == [])
    assert a.attempt(dry_run=True).output.splitlines()[-1] == "nothing to do"


def test_what_no_pod_has_is_dropped_here_if_asked_for(lab):
    a, b = lab.hosts(2, ipv6=True)
    lab.eventually(lambda: b.pings(a))
    a.restart(ip_blackhole_route=True)
    lab.eventually(lambda: f"blackhole {a.subnet} proto 76 metric 65535" in a.run("ip route"))
    lab.eventually(lambda: f"blackhole {a.subnet6} dev lo proto 76 metric 65535" in a.run("ip -6 route"))
    lab.eventually(lambda: b.pings(a) and a.status().problems == ())
