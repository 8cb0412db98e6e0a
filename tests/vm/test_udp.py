"""The backend udp by a kernel that has FOU: its wire format, beside the forwarder, and in place of other backends.

Neither the port nor anything in the tunnel has an owner that the kernel knows: what is ours is on record.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from flannel_backend_udp.udp import UdpBackend
from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.lab import Lab

FAULTS = {
    "device deleted": "ip link del flannel.udp",
    "device down": "ip link set flannel.udp down",
    "port closed": "ip fou del port 8285 local {local}",
    "checksums left to the underlay": "ethtool -K flannel.udp tx on",
    "address deleted": "ip addr flush dev flannel.udp",
    "routes deleted": "ip route flush dev flannel.udp",
    "the rest of the network reachable": "ip route del throw {network}",
}
GO_FLANNELD = os.environ.get("FLANNELD_GO", "")


@pytest.fixture(scope="module", autouse=True)
def fou():
    """What an agent loads when it starts, which the kit only rehearses; tun, which elsewhere udev's /dev/net/tun loads;
    br_netfilter, which Go flannel wants to see."""
    subprocess.run(["modprobe", "--all", "fou", "ipip", "tun", "br_netfilter"], check=True)


class TestKernel(KernelBackendConformance):
    backend = UdpBackend
    config = {"Type": "udp", "Mode": "kernel"}  # noqa: RUF012
    families = (4,)


@pytest.fixture(scope="module")
def network():
    with Lab() as lab:
        a, b = lab.hosts(2, backend="udp")
        lab.eventually(lambda: a.pings(b))
        yield lab, a, b


def shown(host):
    """All that an agent has a hand in, without the number that a new device has."""
    link = host.run("ip -oneline -details link show flannel.udp").partition(": ")[2]
    features = [line for line in host.run("ethtool -k flannel.udp").splitlines() if "tx-checksum" in line]
    return link, features, host.run("ip fou show"), host.run("ip -4 -brief addr show"), host.run("ip route show")


def tried(host, other, size, *options):
    """Whether packets of ``size`` bytes, headers included, arrive."""
    command = ["ping", "-c", "2", "-i", "0.3", "-W", "3", "-s", str(size - 28), *options, other.pod.addresses[4]]
    return subprocess.run(["ip", "netns", "exec", host.pod.namespace, *command], capture_output=True, text=True)


def test_the_kernel_does_it_where_it_can_and_the_status_says_so(network):
    _, a, b = network
    assert a.status().backend.notes == ("udp by the kernel (FOU)",)
    assert json.loads(a.run(f"ip -json route get {b.pod.addresses[4]}"))[0]["dev"] == "flannel.udp"
    assert not (a.directory / "udp-forwarder.sock").exists()


def test_whole_packets_fit_longer_ones_are_fragments_or_heard_of(network):
    _, a, b = network
    assert tried(a, b, 1472, "-M", "do").returncode == 0
    assert tried(a, b, 4000).returncode == 0
    refused = tried(a, b, 1473, "-M", "do")
    assert refused.returncode != 0
    assert "mtu" in (refused.stdout + refused.stderr).lower()


def test_a_subnet_that_nobody_has_is_unreachable_and_does_not_leave_by_the_default_route(network):
    _, a, _ = network
    assert a.run("ip route show default")
    command = "ping -c 1 -W 2 10.5.255.9"
    said = subprocess.run(["ip", "netns", "exec", a.pod.namespace, *command.split()], capture_output=True, text=True)
    assert "Destination Net Unreachable" in said.stdout


def test_an_agent_killed_and_started_again_loses_no_packet_and_writes_nothing(network):
    lab, a, b = network
    before = shown(a)
    with a.pinging(b, interval=0.2) as pings:
        a.kill()
        a.start()
        lab.wait_until_ready([a])
        sent = pings.sent
        lab.eventually(lambda: pings.sent >= sent + 5)
    assert pings.lost == 0
    assert shown(a) == before
    assert a.status().writes == 0


@pytest.mark.drawn(3)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_an_operator_breaks_is_back(network, fault):
    lab, a, b = network
    before = shown(a)
    a.run(FAULTS[fault].format(local=a.machine.ipv4.ip, network="10.5.0.0/16"))
    lab.eventually(lambda: shown(a) == before and a.pings(b))


def test_who_holds_the_port_is_looked_for_and_named(lab):
    (host,) = lab.hosts(1, backend="udp", started=False)
    host.run(f"ip fou add port 8285 ipproto 47 local {host.machine.ipv4.ip}")
    host.start()
    lab.wait_until_ready()
    (failure,) = host.status().failures
    assert f"UDP port 8285 of {host.machine.ipv4.ip} is in use: `ss -lunp` names the program" in failure.reason
    host.run(f"ip fou del port 8285 local {host.machine.ipv4.ip}")
    lab.eventually(lambda: not host.status().failures, within=10)


@pytest.mark.whole
def test_a_host_changes_to_userspace_and_both_modes_understand_each_other(lab):
    a, b = lab.hosts(2, backend="udp", options={"Mode": "kernel"})
    lab.eventually(lambda: a.pings(b))
    b.stop()
    lab.set_config({"Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Mode": "userspace"}})
    lab.eventually(lambda: a.run("ip fou show") == "" and "flannel.udp" not in a.run("ip link"), within=10)
    lab.eventually(lambda: a.pings(b))
    assert "the forwarder" in a.status().backend.notes[0]
    assert tried(a, b, 4000).returncode == 0
    assert tried(b, a, 1472, "-M", "do").returncode == 0


@pytest.mark.whole
@pytest.mark.parametrize(("first", "second"), [("ipip", "udp"), ("udp", "ipip")])
def test_the_one_tunnel_that_an_address_can_have_changes_hands(lab, first, second):
    a, b = lab.hosts(2, backend=first)
    lab.eventually(lambda: a.pings(b))
    for host in (a, b):
        host.stop()
    lab.set_config({"Network": "10.5.0.0/16", "Backend": {"Type": second}})
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and f"flannel.{first}" not in a.run("ip link"))
    lab.eventually(lambda: bool(a.run("ip fou show")) == (second == "udp"))


@pytest.mark.whole
@pytest.mark.skipif(not GO_FLANNELD, reason="FLANNELD_GO does not name a Go flanneld v0.28.9")
@pytest.mark.parametrize("mode", ["kernel", "userspace"])
@pytest.mark.parametrize("first", ["Go", "ours"])
def test_go_and_ours_understand_each_other(lab, tmp_path, mode, first):
    go, ours = lab.hosts(2, backend="udp", store="etcd", started=False, options={"Mode": mode})
    program = tmp_path / "flanneld"
    program.symlink_to(Path(GO_FLANNELD).resolve(strict=True))
    go.runs(program)
    for host in [go, ours] if first == "Go" else [ours, go]:
        host.start()
        lab.wait_until_ready([host])
    lab.eventually(lambda: go.pings(ours) and ours.pings(go))
    for source, target in ((go, ours), (ours, go)):
        assert tried(source, target, 1472, "-M", "do").returncode == 0
        assert tried(source, target, 4000).returncode == 0
        assert streamed(source, target)


STREAM = """
import socket, sys
address, size = sys.argv[1], 1 << 20
with socket.create_connection((address, 5400), 60) as stream:
    stream.sendall(bytes(size))
    stream.shutdown(socket.SHUT_WR)
    assert stream.recv(1) == b"."
"""
SINK = """
import socket
with socket.create_server(("0.0.0.0", 5400)) as listening:
    print("ready", flush=True)
    stream, _ = listening.accept()
    size = 0
    while data := stream.recv(1 << 16):
        size += len(data)
    assert size == 1 << 20
    stream.sendall(b".")
"""


def streamed(source, target):
    """Whether 1 MiB of TCP arrives in the other's pod."""

    def python(host, script, *arguments):
        return ["ip", "netns", "exec", host.pod.namespace, "python3", "-c", script, *arguments]

    with subprocess.Popen(python(target, SINK), stdout=subprocess.PIPE) as sink:
        sink.stdout.readline()
        sent = subprocess.run(python(source, STREAM, target.pod.addresses[4]), timeout=120)
    return sent.returncode == 0 and sink.returncode == 0
