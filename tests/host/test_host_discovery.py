"""A real host in a namespace, discovered and followed. Nothing here is chosen by a test double."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from flannel_core.host_discovery import STEADY_SECONDS

SCRIPT = str(Path(__file__).with_name("print_hosts.py"))
BOUND = 5.0
"""design.md: what changed is acted upon within 5 s."""
Facts = dict[str, Any]


class Namespace(Protocol):
    name: str

    def run(self, command: str) -> str: ...
    def enter(self, *command: str) -> list[str]: ...


def discover(host: Namespace, families: str = "4", own: tuple[str, ...] = (), **options: Any) -> Facts:
    command = host.enter(sys.executable, SCRIPT, "discover", families, json.dumps(options), *own)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Facts = json.loads(done.stdout)
    return found


class Follower:
    """follow() at work in a namespace: its hosts and its log lines as they come."""

    def __init__(self, host: Namespace, families: str, own: tuple[str, ...], options: Facts) -> None:
        command = host.enter(sys.executable, SCRIPT, "follow", families, json.dumps(options), *own)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.hosts: queue.Queue[str] = queue.Queue()
        self.lines: queue.Queue[str] = queue.Queue()
        for stream, into in ((self.process.stdout, self.hosts), (self.process.stderr, self.lines)):
            threading.Thread(target=_pour, args=(stream, into), daemon=True).start()
        self.first = self.next(BOUND)

    def next(self, seconds: float = BOUND) -> Facts:
        found: Facts = json.loads(self.hosts.get(timeout=seconds))
        return found

    def log_line(self) -> str:
        return self.lines.get(timeout=BOUND)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def _pour(stream: Any, into: queue.Queue[str]) -> None:
    for line in stream:
        into.put(line)


@pytest.fixture
def follow(host: Namespace) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(families: str = "4", own: tuple[str, ...] = (), **options: Any) -> Follower:
        started.append(Follower(host, families, own, options))
        return started[-1]

    yield start
    for follower in started:
        follower.stop()


# --- discover ---------------------------------------------------------------------------------------------------------


def test_every_field_of_the_host_is_what_the_kernel_says(host: Namespace) -> None:
    found = discover(host, "46")
    shown = json.loads(host.run("ip -j link show eth0"))[0]
    assert (found["interface"], found["index"], found["mtu"], found["mac"]) == (
        "eth0",
        shown["ifindex"],
        shown["mtu"],
        shown["address"],
    )
    assert (found["ipv4"], found["ipv6"]) == ("192.0.2.11", "fc00::11")
    assert (found["public_ipv4"], found["public_ipv6"]) == ("192.0.2.11", "fc00::11")
    assert found["connected"] == [
        ["192.0.2.0/24", "eth0"],
        ["198.51.100.0/24", "eth1"],
        ["fc00::/64", "eth0"],
        ["fc01::/64", "eth1"],
    ]
    assert found["addresses"] == ["192.0.2.11", "198.51.100.11", "fc00::11", "fc01::11"]
    assert set(found["links"]) == {"lo", "eth0", "eth1"}
    assert found["others"] == ["eth1 (198.51.100.11, fc01::11)"]


@pytest.mark.parametrize(
    ("options", "families", "expected"),
    [
        ({}, "4", ("eth0", "192.0.2.11", None)),
        ({}, "6", ("eth0", None, "fc00::11")),
        ({"iface": ["eth1"]}, "46", ("eth1", "198.51.100.11", "fc01::11")),
        ({"iface": ["fc01::11"]}, "6", ("eth1", None, "fc01::11")),
        ({"iface_regex": ["^198"]}, "4", ("eth1", "198.51.100.11", None)),
        ({"iface_can_reach": "198.51.100.99"}, "4", ("eth1", "198.51.100.11", None)),
        ({"iface_can_reach": "fc01::99"}, "6", ("eth1", None, "fc01::11")),
        ({"iface_can_reach": "8.8.8.8"}, "4", ("eth0", "192.0.2.11", None)),
        ({"iface_can_reach": "198.51.100.11"}, "4", ("eth1", "198.51.100.11", None)),
        ({"public_ip": "198.51.100.11"}, "4", ("eth1", "198.51.100.11", None)),
    ],
)
def test_the_kernels_tables_lead_to_the_interface(
    host: Namespace, options: Facts, families: str, expected: tuple[str, str | None, str | None]
) -> None:
    found = discover(host, families, **options)
    assert (found["interface"], found["ipv4"], found["ipv6"]) == expected


def test_the_running_kernel_is_known_by_its_first_two_numbers(host: Namespace) -> None:
    assert discover(host)["kernel"] == [int(number) for number in os.uname().release.split(".")[:2]]


def test_the_interfaces_at_which_a_router_advertised_a_route_are_known(host: Namespace) -> None:
    assert discover(host, "46")["advertised"] == []
    host.run("ip -6 route add default via fc01::1 dev eth1 proto ra metric 2048")
    host.run("ip -6 route add fc09::/64 dev eth0 proto ra")
    assert discover(host, "46")["advertised"] == ["eth0", "eth1"]
    assert discover(host, "46", own=("eth0",), iface=("eth1",))["advertised"] == ["eth1"]


def test_a_deprecated_and_a_secondary_address_stand_back(host: Namespace) -> None:
    host.run("ip addr flush dev eth1")
    host.run("ip addr add 198.51.100.1/24 dev eth1 preferred_lft 0")
    host.run("ip addr add 198.51.100.2/24 dev eth1")
    host.run("ip addr add 203.0.113.3/24 dev eth1")
    assert discover(host, iface=["eth1"])["ipv4"] == "203.0.113.3"


def test_the_addresses_and_networks_of_our_own_devices_are_not_the_hosts(host: Namespace) -> None:
    host.run("ip link add flannel.1 type vxlan id 1 dev eth0 local 192.0.2.11 dstport 8472")
    host.run("ip addr add 10.5.3.0/16 dev flannel.1")
    host.run("ip link set flannel.1 up")
    found = discover(host, own=("flannel.1",))
    assert "flannel.1" in found["links"]
    assert "10.5.3.0" not in found["addresses"]
    assert "flannel.1" not in {device for _, device in found["connected"]}
    assert not any("flannel.1" in other for other in found["others"])


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (
            {"iface": ["eth9"]},
            1,
            "--iface eth9: no such interface or address; this host has eth0 (192.0.2.11, fc00::11)",
        ),
        ({"iface_regex": ["("]}, 2, "--iface-regex (: not a regular expression"),
        ({"iface_can_reach": "10.0.0.1"}, 1, "--iface-can-reach 10.0.0.1: the kernel has no route to it"),
        ({}, 1, "there is no IPv4 default route in the main table; name an interface with --iface"),
    ],
)
def test_what_cannot_be_chosen_is_one_line_and_an_exit_code(
    host: Namespace, options: Facts, code: int, says: str
) -> None:
    host.run("ip route del default")
    command = host.enter(sys.executable, SCRIPT, "discover", "4", json.dumps(options))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1


# --- follow -----------------------------------------------------------------------------------------------------------


def test_an_mtu_is_followed(host: Namespace, follow: Callable[..., Follower]) -> None:
    follower = follow()
    host.run("ip link set eth0 mtu 1400")
    changed = follower.next()
    assert changed["mtu"] == 1400
    assert "MTU 1400), was eth0 (192.0.2.11, MTU 1500)" in follower.log_line()


def test_a_new_address_is_followed_once_it_has_stood(host: Namespace, follow: Callable[..., Follower]) -> None:
    follower = follow()
    began = time.monotonic()
    host.run("ip addr add 192.0.2.12/24 dev eth0")
    host.run("ip addr del 192.0.2.11/24 dev eth0")
    host.run("ip addr add 192.0.2.12/24 dev eth0")
    host.run("ip route add default via 192.0.2.1")
    changed = follower.next()
    while changed["ipv4"] == "192.0.2.11":  # networks come at once, the address once it has stood
        changed = follower.next()
    assert (changed["ipv4"], changed["public_ipv4"]) == ("192.0.2.12", "192.0.2.12")
    assert time.monotonic() - began >= STEADY_SECONDS


def test_an_address_that_comes_back_in_time_was_never_gone(host: Namespace, follow: Callable[..., Follower]) -> None:
    follower = follow(iface=["eth0"])
    host.run("ip addr add 203.0.113.1/24 dev eth0")
    host.run("ip addr del 192.0.2.11/24 dev eth0")
    host.run("ip addr add 192.0.2.11/24 dev eth0")
    host.run("ip addr del 203.0.113.1/24 dev eth0")
    host.run("ip link set eth0 mtu 1400")
    changed = follower.next()
    while changed["mtu"] != 1400:
        assert changed["ipv4"] == "192.0.2.11"
        changed = follower.next()
    assert changed["ipv4"] == "192.0.2.11"


@pytest.mark.parametrize(
    ("loss", "repair", "ipv4", "mtu"),
    [
        pytest.param(
            ["ip addr flush dev eth0"], ["ip addr add 192.0.2.77/24 dev eth0"], "192.0.2.77", 1500, id="address"
        ),
        pytest.param(
            ["ip link del eth0"],
            ["ip link add eth0 mtu 1400 type bridge", "ip addr add 192.0.2.11/24 dev eth0"],
            "192.0.2.11",
            1400,
            id="device",
        ),
        pytest.param(
            ["ip link set eth0 down", "ip link set eth0 name uplink0"],
            ["ip link set uplink0 name eth0", "ip link set eth0 mtu 1400"],
            "192.0.2.11",
            1400,
            id="name",
        ),
    ],
)
def test_a_host_that_lost_its_interface_keeps_the_last_and_says_so_once(
    host: Namespace, follow: Callable[..., Follower], loss: list[str], repair: list[str], ipv4: str, mtu: int
) -> None:
    follower = follow(iface=["eth0"])
    for command in loss:
        host.run(command)
    line = follower.log_line()
    while "keeping eth0 (192.0.2.11, MTU 1500) until something fits again" not in line:
        line = follower.log_line()
    host.run("ip addr add 203.0.113.1/24 dev eth1")  # it looks again, and has nothing new to say
    for command in repair:
        host.run(command)
    assert "There is an external interface again" in follower.log_line()
    changed = follower.next()
    while (changed["ipv4"], changed["mtu"]) != (ipv4, mtu):
        changed = follower.next()
    assert changed["interface"] == "eth0"


def test_the_default_route_moving_to_another_card_moves_the_host(
    host: Namespace, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    host.run("ip route replace default via 198.51.100.1")
    changed = follower.next()
    assert (changed["interface"], changed["ipv4"], changed["reason"]) == (
        "eth1",
        "198.51.100.11",
        "the default route is on it",
    )


def test_both_families_are_followed(host: Namespace, follow: Callable[..., Follower]) -> None:
    follower = follow("46", iface=["eth0"])
    host.run("ip addr add fc00::12/64 dev eth0 nodad")
    host.run("ip addr del fc00::11/64 dev eth0")
    changed = follower.next()
    while changed["ipv6"] == "fc00::11":
        changed = follower.next()
    assert (changed["ipv4"], changed["ipv6"]) == ("192.0.2.11", "fc00::12")


def test_our_own_devices_and_containers_make_no_new_host(host: Namespace, follow: Callable[..., Follower]) -> None:
    follower = follow(own=("flannel.1",))
    host.run("ip link add flannel.1 type vxlan id 1 dev eth0 local 192.0.2.11 dstport 8472")
    host.run("ip addr add 10.5.3.0/32 dev flannel.1")
    host.run("ip link set flannel.1 up")
    host.run("ip route add 10.5.7.0/24 via 10.5.7.0 dev flannel.1 onlink")
    host.run("ip link add veth1 type veth peer name veth2")
    host.run("ip link set veth1 up")
    host.run("ip link set eth0 mtu 1400")
    assert follower.next()["mtu"] == 1400
