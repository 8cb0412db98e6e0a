"""Go flannel and ours on one store: every combination, with each of the things that happen to a flanneld.

A network is made once and lives through all of them; the summary prints a table.
"""

import json
from itertools import product

import pytest

from flannel_core.lab import Lab
from flannel_core.lab.network import ip_batch
from flannel_core.lab.pings import Pinging
from flannel_core.lab.programs import FLANNELD

BACKENDS = {
    "vxlan": {"backend": "vxlan"},
    "vxlan DirectRouting": {"backend": "vxlan", "options": {"DirectRouting": True}},
    "host-gw": {"backend": "host-gw"},
}
FAMILIES = {"IPv4": False, "dual stack": True}
STORES = ("etcd", "kubernetes")
FIRST = ("Go", "ours")


def restart(cluster, host):
    host.stop()
    cluster.start(host)


def kill(cluster, host):
    host.kill()
    cluster.start(host)


HAPPENINGS = {
    "nothing": lambda cluster: None,
    "Go restarted": lambda cluster: restart(cluster, cluster.go),
    "Go killed": lambda cluster: kill(cluster, cluster.go),
    "ours restarted": lambda cluster: restart(cluster, cluster.ours),
    "ours killed": lambda cluster: kill(cluster, cluster.ours),
    "Go becomes ours": lambda cluster: cluster.switch(cluster.go, FLANNELD),
    "and Go again": lambda cluster: cluster.switch(cluster.go, cluster.go_flanneld),
    "ours becomes Go": lambda cluster: cluster.switch(cluster.ours, cluster.go_flanneld),
    "and ours again": lambda cluster: cluster.switch(cluster.ours, FLANNELD),
}


def behind_a_router(lab, host):
    """Move a host to another network than the others', which the underlay's bridge routes to."""
    underlay = f"flannel-{lab.id}-net"
    ip_batch(["addr add 203.0.113.1/24 dev underlay", "addr add 2001:db8:71::1/64 dev underlay nodad"], underlay)
    host.run(f"ip netns exec {underlay} sysctl --quiet net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    commands = ["addr flush dev eth0 scope global", "addr add 203.0.113.13/24 dev eth0",
                "route replace default via 203.0.113.1"]  # fmt: skip
    if host.machine.ipv6:
        commands += ["addr add 2001:db8:71::d/64 dev eth0 nodad", "route replace default via 2001:db8:71::1"]
    ip_batch(commands, host.namespace)


@pytest.fixture(
    scope="module", params=product(BACKENDS, FAMILIES, STORES, FIRST), ids=lambda key: ", ".join(key) + " first"
)
def network(request, new_cluster):
    backend, family, store, first = request.param
    with Lab() as lab:
        made = lab.hosts(3, **BACKENDS[backend], ipv6=FAMILIES[family], store=store, started=False)
        cluster = new_cluster(lab, made)
        if backend == "vxlan DirectRouting":
            behind_a_router(lab, cluster.other)
        go_ones = [cluster.go, cluster.other]
        cluster.start(*([*go_ones, cluster.ours] if first == "Go" else [cluster.ours, *go_ones]))
        yield cluster


def identity(host):
    """What a host is known by: its subnets, and its devices with index and MAC."""
    links = json.loads(host.run("ip -json link show type vxlan"))
    return host.env.subnets, {(link["ifname"], link["ifindex"], link["address"]) for link in links if link}


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_nobody_notices(network, request, happening, record_property):
    record_property("row", request.node.callspec.id.removesuffix(f"-{happening}"))
    record_property("column", happening)
    network.lab.eventually(network.all_ping)
    before = [identity(host) for host in network.hosts]
    with Pinging(network.flows()) as pings:
        HAPPENINGS[happening](network)
        network.lab.eventually(network.all_ping)
        sent = pings.sent
        network.lab.eventually(lambda: pings.sent > sent + 10 * len(pings.flows))
    assert [identity(host) for host in network.hosts] == before
    for host in network.hosts:
        if host.is_ours:
            network.lab.eventually(lambda host=host: host.plan() == [])
    record_property("result", f"{pings.lost} of {pings.sent} lost")
    assert pings.lost == 0


def test_packets_take_the_way_that_the_backend_says(network, request):
    backend = request.node.callspec.params["network"][0]
    peers = {network.go, network.other}
    tunnelled = {"vxlan": peers, "vxlan DirectRouting": {network.other}, "host-gw": set()}[backend]
    for peer in peers:
        for subnet in peer.env.subnets:
            (route,) = json.loads(network.ours.run(f"ip -json -{subnet.version} route show {subnet}"))
            device = "eth0" if peer not in tunnelled else "flannel.1" if subnet.version == 4 else "flannel-v6.1"
            assert route["dev"] == device
