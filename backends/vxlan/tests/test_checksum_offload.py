"""ChecksumOffload on hosts with running agents: kept as the configuration says, whoever else has a say in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from flannel_core.lab import Lab
from flannel_core.lab.hosts import Host

WITHIN = 5.0
CHECKSUM = "tx-checksum-ip-generic"
ETHTOOL = """
import sys
from pyroute2.ethtool import Ethtool
with Ethtool() as ethtool:
    found = ethtool.get_features(sys.argv[1])
    feature = found.features[sys.argv[2]]
    if len(sys.argv) > 3:
        feature.enable = sys.argv[3] == "on"
        ethtool.set_features(sys.argv[1], found)
    print("on" if feature.enable else "off")
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


def ethtool(host: Host, device: str, *setting: str) -> str:
    """What ``ethtool -k`` shows, after ``ethtool -K`` if there is a ``setting``."""
    command = ["ip", "netns", "exec", host.namespace, sys.executable, "-c", ETHTOOL, device, CHECKSUM, *setting]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_switched_off_it_is_off_before_the_first_packet_and_pods_reach_each_other(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="vxlan", ipv6=True, options={"ChecksumOffload": "off"})
    assert [ethtool(a, device) for device in ("flannel.1", "flannel-v6.1")] == ["off", "off"]
    assert a.pings(b)
    assert a.plan() == []


def test_an_operator_who_switches_it_on_sees_it_off_again(lab: Lab) -> None:
    (a,) = lab.hosts(1, backend="vxlan", options={"ChecksumOffload": "off"})
    ethtool(a, "flannel.1", "on")
    lab.eventually(lambda: ethtool(a, "flannel.1") == "off", WITHIN)


def test_a_device_that_is_made_again_has_it_off_again(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="vxlan", options={"ChecksumOffload": "off"})
    a.run("ip link del flannel.1")
    lab.eventually(lambda: ethtool(a, "flannel.1") == "off", WITHIN)
    lab.eventually(lambda: a.pings(b), WITHIN)


def test_by_default_a_host_with_its_own_public_address_on_this_kernel_is_left_to_its_operator(lab: Lab) -> None:
    a, b = lab.hosts(2, backend="vxlan")
    assert ethtool(a, "flannel.1") == "on"
    ethtool(a, "flannel.1", "off")
    a.run("ip link set flannel.1 mtu 1300")
    lab.eventually(lambda: "mtu 1450" in a.run("ip link show flannel.1"), WITHIN)
    assert ethtool(a, "flannel.1") == "off"
    lab.eventually(lambda: a.pings(b))


def test_behind_nat_it_is_switched_off_by_itself(lab: Lab) -> None:
    (a,) = lab.hosts(1, backend="vxlan", started=False)
    a.start(public_ip="203.0.113.7")
    lab.wait_until_ready()
    assert ethtool(a, "flannel.1") == "off"


def test_a_changed_configuration_is_applied_to_the_device_as_it_stands(lab: Lab) -> None:
    (a,) = lab.hosts(1, backend="vxlan", options={"ChecksumOffload": "off"})
    index = a.run("cat /sys/class/net/flannel.1/ifindex")
    lab.set_config({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "ChecksumOffload": "on"}})
    lab.eventually(lambda: ethtool(a, "flannel.1") == "on", WITHIN)
    lab.set_config({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "ChecksumOffload": "off"}})
    lab.eventually(lambda: ethtool(a, "flannel.1") == "off", WITHIN)
    assert a.run("cat /sys/class/net/flannel.1/ifindex") == index


def test_what_somebody_switched_while_no_agent_ran_is_shown_by_the_plan(lab: Lab) -> None:
    (a,) = lab.hosts(1, backend="vxlan", options={"ChecksumOffload": "off"})
    a.stop()
    ethtool(a, "flannel.1", "on")
    planned = a.attempt(dry_run=True)
    assert f"offload flannel.1 {CHECKSUM} off" in planned.output
    assert ethtool(a, "flannel.1") == "on"
