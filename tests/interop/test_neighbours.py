"""What one side does in etcd, seen from the other. Go drops all its peers at one entry that it cannot read: nothing
that ours does may ever be such a one."""

import base64
import json
import re
import urllib.request

import pytest

from flannel_core.lab.network import inside
from flannel_core.lab.programs import FLANNELCTL, FLANNELD

SUBNETS = "/coreos.com/network/subnets"
GO_KEY = re.compile(r"(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$")
"""Go's own expression, in pkg/subnet/subnet.go."""


def put(cluster, key, value, *words):
    cluster.ours.store.cluster.control("put", f"{SUBNETS}{key}", value, *words)


def history(cluster):
    """Every (key, value) that was ever written under the prefix that Go watches, in order; "" for a deletion."""
    control = cluster.ours.store.cluster.control
    control("put", "/the/end", "")
    everything = {"create_request": {"key": "AA==", "range_end": "AA==", "start_revision": 1}}
    found = []

    def read():
        url = cluster.ours.store.cluster.members[0].urls[0]
        with urllib.request.urlopen(f"{url}/v3/watch", json.dumps(everything).encode(), timeout=10) as answers:
            for line in answers:
                for event in json.loads(line)["result"].get("events", ()):
                    key, value = (base64.b64decode(event["kv"].get(part, "")).decode() for part in ("key", "value"))
                    if key == "/the/end":
                        return
                    if key.startswith(SUBNETS):
                        found.append((key, value))

    inside(cluster.lab.all_hosts[0].machine.namespace, read)
    return found


def removals(host, of):
    """What a Go flanneld has logged of leases of another host that it took for gone."""
    address = f"PublicIP:{int(of.machine.ipv4.ip):#x},"
    return [line for line in host.log().splitlines() if "lease.Event{Type:1," in line and address in line]


def start_and_end(cluster):
    cluster.ours.stop()
    cluster.start(cluster.ours)
    cluster.ours.kill()
    cluster.start(cluster.ours)


def renew(cluster):
    ours = cluster.ours
    ours.restart(etcd_lease_ttl="2")
    cluster.lab.eventually(lambda: ours.log().count("Lease renewed") >= 3, within=10)


def dry_run(cluster):
    cluster.ours.stop()
    assert cluster.ours.attempt(dry_run=True).exit_code == 0
    cluster.start(cluster.ours)


def set_the_config(cluster):
    ours = cluster.ours
    config = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
    (ours.directory / "net-conf.json").write_text(config)
    words = f"config set --store etcd --etcd-endpoints {ours.store.options['endpoints']}"
    ours.run(f"{FLANNELCTL} {words} {ours.directory}/net-conf.json")


def reserve(cluster):
    ours = cluster.ours
    ours.stop()
    (lease,) = (lease for lease in ours.store.leases().leases if ours.subnet in lease.subnets)
    ours.store.release(ours.subnet)
    ours.store.reserve(lease)
    cluster.start(ours)
    assert ours.status().lease.expires is None


def change_address(host, old, new):
    """As a DHCP client does it when it is offered another."""
    host.run(f"ip addr del {old}/24 dev eth0")
    host.run(f"ip addr add {new}/24 dev eth0")
    host.run("ip route replace default via 198.51.100.1")


def move(cluster):
    ours, own = cluster.ours, cluster.ours.machine.ipv4.ip
    for old, new in ((own, "198.51.100.99"), ("198.51.100.99", own)):
        change_address(ours, old, new)
        cluster.lab.eventually(lambda new=new: f"dst {new} " in cluster.go.run("bridge fdb show dev flannel.1"), 10)
        cluster.lab.eventually(cluster.all_ping)


def lose_the_lease(cluster):
    """It is taken again."""
    cluster.ours.store.release(cluster.ours.subnet)
    cluster.lab.eventually(lambda: "Our lease is gone" in cluster.ours.log())
    cluster.lab.eventually(cluster.all_ping)


@pytest.mark.parametrize(
    "do", [start_and_end, renew, dry_run, set_the_config, reserve, move, lose_the_lease], ids=lambda do: do.__name__
)
def test_what_ours_does_never_disturbs_go(cluster, do):
    cluster.lab.eventually(cluster.all_ping)
    with cluster.go.pinging(cluster.other) as pings:
        do(cluster)
        cluster.lab.eventually(cluster.all_ping)
    assert pings.lost == 0
    for key, value in history(cluster):
        assert GO_KEY.fullmatch(key.removeprefix(f"{SUBNETS}/"))
        assert value == "" or {"PublicIP", "PublicIPv6"} <= json.loads(value).keys()
    assert not removals(cluster.go, of=cluster.other)
    assert not removals(cluster.other, of=cluster.go)


def test_one_entry_that_does_not_parse_costs_go_all_peers_and_ours_none(lab, new_cluster):
    """A fault of Go's, and the proof that the test above can fail. Our renewal is a Put: it brings us back."""
    cluster = new_cluster(lab, lab.hosts(3, backend="host-gw", store="etcd", started=False))
    go, ours = cluster.go, cluster.ours
    cluster.start(go, cluster.other)
    ours.start(etcd_lease_ttl="4")
    lab.wait_until_ready()
    lab.eventually(cluster.all_ping)
    put(cluster, "/nonsense", "nonsense")
    lab.eventually(lambda: removals(go, of=cluster.other))
    lab.eventually(lambda: str(cluster.other.subnet) not in go.run("ip route"))
    lab.eventually(lambda: [refused.key for refused in ours.status().refused] == ["nonsense"])
    assert str(cluster.other.subnet) in ours.run("ip route")
    ours.store.cluster.control("del", f"{SUBNETS}/nonsense")
    lab.eventually(lambda: go.pings(ours))
    lab.eventually(lambda: ours.status().refused == ())


def test_a_key_beside_the_prefix_is_no_key_of_ours(cluster):
    """Go reads PREFIX/subnets without a slash at its end, and so this one too."""
    put(cluster, "-of-old/10.5.0.0-16", '{"PublicIP":"192.0.2.1","BackendType":"vxlan"}')
    put(cluster, "/10.5.200.0-24", '{"PublicIP":"192.0.2.1","BackendType":"vxlan"}')
    cluster.lab.eventually(lambda: [refused.key for refused in cluster.ours.status().refused] == ["10.5.200.0-24"])
    assert cluster.ours.pings(cluster.other)


def test_gos_renewal_writes_nothing_here(cluster):
    """A new etcd lease and the same value, without looking: as Go does it."""
    go, ours = cluster.go, cluster.ours
    control = ours.store.cluster.control
    key = "/" + str(go.subnet).replace("/", "-")
    value = control("get", f"{SUBNETS}{key}", "--print-value-only").strip()
    writes = ours.status().writes
    granted = control("lease", "grant", "86400").split()[1]
    put(cluster, key, value, f"--lease={granted}")
    put(cluster, "/10.5.200.0-24", '{"PublicIP":"192.0.2.1","BackendType":"vxlan"}')
    cluster.lab.eventually(lambda: ours.status().refused)  # so it has heard of the one before
    assert ours.status().writes == writes
    assert ours.pings(go)


def test_a_go_host_that_is_gone_is_forgotten(cluster):
    go, ours = cluster.go, cluster.ours
    subnet = go.subnet
    go.kill()
    go.store.release(subnet)
    cluster.lab.eventually(lambda: str(subnet) not in ours.run("ip route"))
    assert str(subnet.network_address) not in ours.run("ip neigh")
    assert go.machine.ipv4.ip.compressed not in ours.run("bridge fdb show dev flannel.1")


def test_a_host_of_ours_that_is_gone_is_forgotten_by_go(cluster):
    go, ours = cluster.go, cluster.ours
    subnet = ours.subnet
    ours.kill()
    ours.store.release(subnet)
    cluster.lab.eventually(lambda: str(subnet) not in go.run("ip route"))
    assert go.pings(cluster.other)


def test_a_device_made_anew_reaches_go_with_the_same_mac(cluster):
    """Go's own device would come back with a new MAC that nobody hears of."""
    cluster.ours.run("ip link del flannel.1")
    cluster.lab.eventually(cluster.all_ping)


def test_gos_command_line_runs_ours_as_it_stands(lab, go_flanneld):
    """Only the program is another."""
    go, ours = lab.hosts(2, store="etcd", started=False)
    go.runs(go_flanneld)
    ours.runs(ours.program)
    as_go = {"store": None, "set_sysctls": None}
    assert [word.replace("h1", "h2") for word in go.command()[1:]] == ours.command(**as_go)[1:]
    go.start()
    ours.start(**as_go)
    lab.wait_until_ready()
    lab.eventually(lambda: go.pings(ours) and ours.pings(go))


def test_two_flannelds_of_one_host_are_refused(cluster):
    cluster.go.runs(FLANNELD)
    refused = cluster.go.attempt(healthz_port=None)
    cluster.go.runs(cluster.go_flanneld)
    assert refused.exit_code == 1
    assert "Go flanneld" in refused.output
    assert cluster.go.running
