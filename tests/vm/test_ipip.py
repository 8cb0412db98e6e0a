"""The backend ipip on a kernel that has it."""

import json

import pytest

from flannel_backend_ipip.ipip import IpipBackend
from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.lab import Lab

# No more than three of the device itself: after five repairs in a minute the agent waits for a calmer moment.
FAULTS = {
    "device deleted": "ip link del flannel.ipip",
    "device down": "ip link set flannel.ipip down",
    "another local address": "ip link set flannel.ipip type ipip local 198.51.100.99",
    "address deleted": "ip addr flush dev flannel.ipip",
    "routes deleted": "ip route flush dev flannel.ipip",
    "route elsewhere": "ip route replace {subnet} via 198.51.100.1 dev eth0 proto 76",
}


class TestIpip(KernelBackendConformance):
    backend = IpipBackend
    config = {"Type": "ipip"}  # noqa: RUF012
    families = (4,)


@pytest.fixture(scope="module")
def network():
    with Lab() as lab:
        a, b = lab.hosts(2, backend="ipip")
        lab.eventually(lambda: a.pings(b))
        yield lab, a, b


def shown(host):
    """What `ip` prints of the device and its routes, without the number that a new device has."""
    link = host.run("ip -oneline -details link show flannel.ipip").partition(": ")[2]
    return link, host.run("ip -brief -4 addr show flannel.ipip"), host.run("ip route show dev flannel.ipip")


def test_packets_take_the_tunnel_and_full_ones_fit(network):
    lab, a, b = network
    assert json.loads(a.run(f"ip -json route get {b.pod.addresses[4]}"))[0]["dev"] == "flannel.ipip"
    assert a.env.mtu == 1480
    with a.pinging(b, interval=0.2, size=a.env.mtu) as full:
        lab.eventually(lambda: full.sent >= 5)
    assert full.lost == 0


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
    a.run(FAULTS[fault].format(subnet=b.subnet))
    lab.eventually(lambda: shown(a) == before and a.pings(b))


@pytest.mark.whole
def test_in_dual_stack_ipv4_works_and_the_status_says_that_ipv6_cannot(lab):
    a, b = lab.hosts(2, backend="ipip", ipv6=True)
    lab.eventually(lambda: a.pings(b, family=4))
    assert any("ipip carries IPv4 only" in problem for problem in a.status().problems)


@pytest.mark.whole
def test_a_host_that_moves_to_another_address_keeps_its_device_and_is_reached_there(lab):
    a, b = lab.hosts(2, backend="ipip")
    lab.eventually(lambda: a.pings(b))
    index = b.run("cat /sys/class/net/flannel.ipip/ifindex")
    b.run(f"ip addr del {b.machine.ipv4} dev eth0")
    b.run("ip addr add 198.51.100.99/24 dev eth0")
    b.run("ip route add default via 198.51.100.1")
    lab.eventually(lambda: "via 198.51.100.99 dev flannel.ipip" in a.run(f"ip route show {b.subnet}"))
    lab.eventually(lambda: a.pings(b))
    assert b.run("cat /sys/class/net/flannel.ipip/ifindex") == index
