"""What the virtual machine is there for: a kernel that can do all that flannel uses."""

import json
import time

import pytest

LINKS = {
    "dummy": "type dummy",
    "vxlan": "type vxlan id 1 dstport 8472",
    "ipip": "type ipip local 198.51.100.11 remote any",
    "wireguard": "type wireguard",
    "fou": "type ipip local 198.51.100.11 remote any encap fou encap-sport 8285 encap-dport 8285",
}


@pytest.mark.parametrize("kind", LINKS)
def test_the_kernel_makes_devices_of_every_kind_that_flannel_uses(lab, kind):
    (host,) = lab.hosts(1, started=False)
    host.run("modprobe fou")  # the one module that the kernel does not load by itself when it is used
    host.run(f"ip link add probe {LINKS[kind]}")
    assert json.loads(host.run("ip -json link show dev probe"))[0]["ifname"] == "probe"


def test_packets_can_be_delayed(lab):
    a, b = lab.hosts(2, started=False)
    a.run("tc qdisc add dev eth0 root netem delay 300ms")
    began = time.monotonic()
    a.run(f"ping -c 1 {b.machine.ipv4.ip}")
    assert time.monotonic() - began > 0.3


def test_the_clock_is_right():
    assert time.time() > 1_700_000_000
