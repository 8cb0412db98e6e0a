"""Our flanneld and Go's on one etcd, over backends that this machine's own kernel may be without.

By hand, as tests/interop: ``make vm FLANNELD_GO=/path/to/a/v0.28.9``.
"""

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flannel_core.lab.network import inside
from flannel_core.lab.patience import PATIENCE

GO_FLANNELD = os.environ.get("FLANNELD_GO", "")
LACKING = "FLANNELD_GO does not name a Go flanneld v0.28.9 (make vm FLANNELD_GO=/path/to/flanneld)"
pytestmark = [pytest.mark.whole, pytest.mark.skipif(not GO_FLANNELD, reason=LACKING)]

BACKENDS = {
    "ipip": {"backend": "ipip"},
    "ipip DirectRouting": {"backend": "ipip", "options": {"DirectRouting": True}},
    "wireguard": {"backend": "wireguard"},
    "wireguard, both families": {"backend": "wireguard", "ipv6": True},
    "wireguard, one device": {"backend": "wireguard", "ipv6": True, "options": {"Mode": "auto"}},
}
PAYLOAD = os.urandom(1 << 20)
PORT = 5001


@pytest.fixture(scope="module")
def go_flanneld(tmp_path_factory):
    """Under the name that it has on a host: by that ours knows it."""
    subprocess.run(["modprobe", "br_netfilter"], check=True)  # Go's does not start without
    link = tmp_path_factory.mktemp("go") / "flanneld"
    link.symlink_to(Path(GO_FLANNELD).resolve(strict=True))
    return link


def tcp_carries(source, target):
    """Whether a mebibyte arrives whole at the target's pod from the source's."""
    source.flows(target)  # gives both pods their addresses
    limit = 10 * PATIENCE
    server = inside(target.pod.namespace, lambda: socket.create_server((target.pod.addresses[4], PORT)))
    server.settimeout(limit)

    def take():
        connection, _ = server.accept()
        with connection:
            connection.settimeout(limit)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    def give():
        with socket.create_connection((target.pod.addresses[4], PORT), timeout=limit) as connection:
            connection.sendall(PAYLOAD)

    with server, ThreadPoolExecutor(1) as taking:
        taken = taking.submit(take)
        inside(source.pod.namespace, give)
        return taken.result() == PAYLOAD


@pytest.mark.parametrize("first", ["Go first", "ours first"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_pings_and_tcp_go_both_ways(lab, go_flanneld, backend, first):
    go, ours = hosts = lab.hosts(2, **BACKENDS[backend], store="etcd", started=False)
    go.runs(go_flanneld)
    go.environment = {**go.environment, "WIREGUARD_KEY_FILE": str(go.directory / "wgkey")}  # else one for all hosts
    for host in hosts if first == "Go first" else reversed(hosts):
        host.start()
        lab.wait_until_ready([host])
    lab.eventually(lambda: go.pings(ours) and ours.pings(go))
    assert tcp_carries(go, ours)
    assert tcp_carries(ours, go)
    lab.eventually(lambda: ours.plan() == [])


def test_a_host_switched_in_place_keeps_its_subnet_and_device_and_loses_no_ping(lab, go_flanneld):
    go, ours = lab.hosts(2, backend="ipip", store="etcd", started=False)
    go.runs(go_flanneld)
    for host in (go, ours):
        host.start()
        lab.wait_until_ready([host])
    lab.eventually(lambda: go.pings(ours))
    before = go.env.subnets, go.run("cat /sys/class/net/flannel.ipip/ifindex")
    with ours.pinging(go, interval=0.2) as pings:
        go.stop()
        go.runs(ours.program)
        go.start()
        lab.wait_until_ready([go])
        sent = pings.sent
        lab.eventually(lambda: pings.sent > sent + 5)
    assert pings.lost == 0
    assert (go.env.subnets, go.run("cat /sys/class/net/flannel.ipip/ifindex")) == before
