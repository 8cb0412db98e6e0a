"""Hosts whose packets a forwarder moves: what pods see, what operators break, who starts and ends the forwarder."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flannel_core.lab import Host, Lab
from flannel_core.lab.network import inside

DATAGRAMS = int(os.environ.get("FLANNEL_FUZZ", "20000"))
SEED = os.environ["FLANNEL_TEST_SEED"]

NETWORK = "10.5.0.0/16"
USERSPACE = {"Mode": "userspace"}
FAULTS = {
    "device deleted": "ip link del flannel0",
    "device down": "ip link set flannel0 down",
    "MTU changed": "ip link set flannel0 mtu 1400",
    "queue shortened": "ip link set flannel0 txqueuelen 10",
    "address deleted": "ip addr flush dev flannel0",
    "routes deleted": "ip route flush dev flannel0",
    "the rest of the network reachable": "ip route del throw 10.5.0.0/16",
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[Lab, Host, Host]]:
    with Lab() as lab:
        a, b = lab.hosts(2, backend="udp", options=USERSPACE)
        lab.eventually(lambda: a.pings(b) and b.pings(a))
        yield lab, a, b


def asked(host: Host, question: str = "Look", **fields: Any) -> dict[str, Any]:
    """What the host's forwarder answers."""

    def ask() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(host.directory / "udp-forwarder.sock"))
            connection.sendall(json.dumps({"type": question, "by": "test", **fields}).encode() + b"\n")
            line = connection.makefile().readline()
            answer: dict[str, Any] = json.loads(line) if line else {}
            return answer

    return inside(host.namespace, ask)


def forwarder(host: Host) -> int:
    """Its pid."""
    return int(asked(host)["pid"])


def ping(host: Host, other: Host | str, size: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Two pings of ``size`` bytes, headers included, from pod to pod."""
    address = other if isinstance(other, str) else other.pod.addresses[4]
    command = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "-s", str(size - 28), *options, address]
    return subprocess.run(["ip", "netns", "exec", host.pod.namespace, *command], capture_output=True, text=True)


def shown(host: Host) -> tuple[str, str, str]:
    """All that an agent has a hand in, without the number that a new device has."""
    link = host.run("ip -oneline -details link show flannel0").partition(": ")[2]
    return link.replace("numqueues", ""), host.run("ip -4 -brief addr show flannel0"), host.run("ip route show")


# --- what pods see --------------------------------------------------------------------------------------------------


def test_whole_packets_fit_longer_ones_are_fragments_or_heard_of(network: tuple[Lab, Host, Host]) -> None:
    _, a, b = network
    assert a.env.mtu == 1472
    assert ping(a, b, 1472, "-M", "do").returncode == 0
    assert ping(a, b, 9000).returncode == 0
    refused = ping(a, b, 1473, "-M", "do")
    assert refused.returncode != 0
    assert "mtu" in (refused.stdout + refused.stderr).lower()


def test_a_subnet_that_nobody_has_is_unreachable_and_does_not_leave_by_the_default_route(
    network: tuple[Lab, Host, Host],
) -> None:
    _, a, _ = network
    assert a.run("ip route show default")
    assert "Destination Net Unreachable" in ping(a, "10.5.255.9", 84).stdout


def test_each_forwarder_takes_a_hop_as_gos_does(network: tuple[Lab, Host, Host]) -> None:
    """Two hosts route and two forwarders forward; the fourth of them drops what the third has left one hop."""
    _, a, b = network
    assert "ttl=60" in ping(a, b, 84).stdout
    assert ping(a, b, 84, "-t", "5").returncode == 0
    assert ping(a, b, 84, "-t", "4").returncode != 0


def test_a_path_with_a_smaller_mtu_costs_fragments_and_not_packets(network: tuple[Lab, Host, Host]) -> None:
    _, a, b = network
    assert b.machine.ipv4
    route = f"{b.machine.ipv4.ip} dev eth0"
    a.run(f"ip route add {route} mtu lock 1300")
    try:
        assert ping(a, b, 1472, "-M", "do").returncode == 0
        assert streamed(a, b)
    finally:
        a.run(f"ip route del {route}")


def test_tcp_arrives_whole_both_ways(network: tuple[Lab, Host, Host]) -> None:
    _, a, b = network
    before = asked(b)["counters"]
    assert streamed(a, b)
    assert streamed(b, a)
    after = asked(b)["counters"]
    assert after["sent"] > before["sent"] + 100
    assert (after["lost"], after["refused"]) == (before["lost"], before["refused"])


def test_the_status_says_who_forwards_and_why(network: tuple[Lab, Host, Host]) -> None:
    _, a, _ = network
    backend = a.status().backend
    assert backend
    assert backend.notes == ("udp in userspace (the forwarder), as Mode says",)
    assert backend.facts.keys() == {"forwarder", "sent", "received", "strayed", "refused", "lost"}
    assert backend.facts["forwarder"] == forwarder(a)


# --- who is not a peer ----------------------------------------------------------------------------------------------


def test_what_is_not_from_a_peer_or_not_of_its_subnet_is_dropped_and_counted(
    network: tuple[Lab, Host, Host],
) -> None:
    lab, a, b = network
    assert a.machine.ipv4
    assert b.machine.ipv4
    to = (str(a.machine.ipv4.ip), 8285)
    before = asked(a)["counters"]
    own, pod = b.pod.addresses[4], a.pod.addresses[4]
    inside(f"flannel-{lab.id}-net", lambda: send(to, datagram(own, pod)))  # 198.51.100.1 is nobody's
    inside(b.namespace, lambda: send(to, datagram("10.5.255.9", pod), datagram(pod, pod), b"", b"E", bytes(40)))
    lab.eventually(lambda: asked(a)["counters"]["refused"] == before["refused"] + 5)
    inside(b.namespace, lambda: send(to, datagram(own, pod)))
    lab.eventually(lambda: asked(a)["counters"]["received"] > before["received"])


def test_random_datagrams_from_a_peer_harm_nobody(network: tuple[Lab, Host, Host]) -> None:
    print(f"FLANNEL_TEST_SEED={SEED}")
    lab, a, b = network
    assert a.machine.ipv4
    to = (str(a.machine.ipv4.ip), 8285)
    pid, rng = forwarder(a), random.Random(SEED)
    whole = datagram(b.pod.addresses[4], a.pod.addresses[4])

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
            for _ in range(DATAGRAMS):
                some = bytearray(rng.choice([whole, whole + rng.randbytes(1000), rng.randbytes(rng.randrange(1473))]))
                for _ in range(rng.randrange(4) if some else 0):
                    some[rng.randrange(min(len(some), 40))] = rng.getrandbits(8)
                outside.sendto(some, to)

    inside(b.namespace, flood)
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert forwarder(a) == pid


def datagram(source: str, target: str) -> bytes:
    """An empty UDP datagram without a checksum, in IPv4."""
    header = bytearray.fromhex("4500001c 00004000 40110000") + socket.inet_aton(source) + socket.inet_aton(target)
    header[10:12] = (0xFFFF - int.from_bytes(header, "big") % 0xFFFF).to_bytes(2, "big")
    return bytes(header) + bytes.fromhex("00010002 00080000")


def send(to: tuple[str, int], *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        for payload in datagrams:
            outside.sendto(payload, to)


# --- the agent goes, the forwarder stays ----------------------------------------------------------------------------


def test_an_agent_killed_and_started_again_loses_no_packet_and_writes_nothing(
    network: tuple[Lab, Host, Host],
) -> None:
    lab, a, b = network
    before, pid = shown(a), forwarder(a)
    with a.pinging(b, interval=0.01) as pings:
        a.kill()
        a.start()
        lab.wait_until_ready([a])
        sent = pings.sent
        lab.eventually(lambda: pings.sent >= sent + 50)
    assert pings.lost == 0
    assert (shown(a), forwarder(a)) == (before, pid)
    assert a.status().writes == 0


def test_the_forwarder_is_nobody_in_a_session_of_its_own(network: tuple[Lab, Host, Host]) -> None:
    _, a, _ = network
    pid = forwarder(a)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "Gid:\t65534\t65534\t65534\t65534" in status
    assert "CapEff:\t0000000000000000" in status
    assert a.process
    assert os.getsid(pid) == os.getpgid(pid) != os.getpgid(a.process.pid)


# --- what operators break -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_what_an_operator_breaks_is_back(network: tuple[Lab, Host, Host], fault: str) -> None:
    lab, a, b = network
    before = shown(a)
    a.run(FAULTS[fault])
    lab.eventually(lambda: shown(a) == before and a.pings(b) and b.pings(a))


def test_a_forwarder_that_is_killed_is_replaced(network: tuple[Lab, Host, Host]) -> None:
    lab, a, b = network
    before = forwarder(a)
    os.kill(before, signal.SIGKILL)
    lab.eventually(lambda: forwarder(a) != before and a.pings(b))


def test_a_peer_that_somebody_took_out_of_the_forwarder_is_back(network: tuple[Lab, Host, Host]) -> None:
    lab, a, b = network
    asked(a, "Change", remove=[str(b.subnet)])
    lab.eventually(lambda: asked(a)["peers"] == {str(b.subnet): str(b.machine.ipv4.ip)} and a.pings(b))  # type: ignore[union-attr]


def test_a_forwarder_of_another_version_is_replaced_when_the_agent_starts(network: tuple[Lab, Host, Host]) -> None:
    lab, a, b = network
    a.stop()
    asked(a, "Stop")
    path = a.directory / "udp-forwarder.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as old:  # the least that an agent may find there
        old.bind(str(path))
        old.listen()
        a.start()
        said = b""
        while b"Stop" not in said:
            connection, _ = old.accept()
            said = connection.recv(1 << 16)
            if b"Look" in said:
                connection.sendall(b'{"version":0,"pid":1}\n')
                said = connection.recv(1 << 16)
            connection.close()
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b))


# --- other backends, other options ----------------------------------------------------------------------------------


def test_an_agent_of_another_backend_ends_the_forwarder_and_leaves_nothing_of_it(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="udp", options=USERSPACE)
    lab.eventually(lambda: a.pings(b))
    pids = [forwarder(host) for host in (a, b)]
    for host in (a, b):
        host.stop()
    lab.set_config({"Network": NETWORK, "Backend": {"Type": "alloc"}})
    for host in (a, b):
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    lab.eventually(lambda: all("flannel0" not in host.run("ip link") for host in (a, b)))
    lab.eventually(lambda: all("10.5" not in host.run("ip route show proto 76") for host in (a, b)))


def test_cleanup_ends_the_forwarder_and_takes_device_and_socket_away(lab: Lab) -> None:
    (host,) = lab.hosts(1, backend="udp", options=USERSPACE)
    pid = forwarder(host)
    host.stop()
    host.run(f"{Path(sys.executable).with_name('flannelctl')} cleanup --subnet-file {host.subnet_file}")
    lab.eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert "flannel0" not in host.run("ip link")
    assert list(host.directory.iterdir()) == []


def test_port_and_mtu_change_under_a_running_agent(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="udp", options=USERSPACE)
    lab.eventually(lambda: a.pings(b))
    lab.set_config({"Network": NETWORK, "Backend": {"Type": "udp", **USERSPACE, "Port": 9000, "MTU": 1400}})
    lab.eventually(lambda: all(host.env.mtu == 1372 for host in (a, b)) and a.pings(b))
    lab.eventually(lambda: all(asked(host)["settings"]["port"] == 9000 for host in (a, b)))
    assert ping(a, b, 1372, "-M", "do").returncode == 0


def test_who_holds_the_port_is_named_and_waited_for(lab: Lab) -> None:
    (host,) = lab.hosts(1, backend="udp", options=USERSPACE, started=False)
    assert host.machine.ipv4
    address = (str(host.machine.ipv4.ip), 8285)
    with inside(host.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as holder:
        holder.bind(address)
        host.start()
        lab.eventually(
            lambda: any("UDP port 8285 of 198.51.100.11 is in use" in p.reason for p in host.status().failures)
        )
    lab.wait_until_ready()
    lab.eventually(lambda: not host.status().failures)


# --- TCP ------------------------------------------------------------------------------------------------------------

TCP_PORT = 5400
SENDER = """
import random, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as stream:
    stream.sendall(random.Random(sys.argv[3]).randbytes(4 << 20))
"""


def streamed(source: Host, target: Host) -> bool:
    """Whether 4 MiB of random data reach the other's pod as they were sent."""
    with inside(target.pod.namespace, lambda: socket.create_server(("0.0.0.0", TCP_PORT))) as listening:
        command = ["ip", "netns", "exec", source.pod.namespace, sys.executable, "-c", SENDER]
        with subprocess.Popen([*command, target.pod.addresses[4], str(TCP_PORT), source.name]):
            accepted, _ = listening.accept()
            with accepted, accepted.makefile("rb") as stream:
                accepted.settimeout(30)
                received = stream.read()
    return received == random.Random(source.name).randbytes(4 << 20)
