"""The settings of the kernel as they are found: in folders that stand for /proc/sys, and in the machine's own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_core.host import Host
from flannel_core.host_requirements import Facts
from flannel_core.kernel_settings import KernelSettings, read_facts
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config

HOST = Host("eth0", 2, 1500, "02:00:00:00:00:01", connected=((ip_network("192.0.2.0/23"), "eth0"),))
NOBODY: frozenset[Any] = frozenset()
CONFIG = parse_config(b'{"Network": "10.5.0.0/16"}', "net-conf.json")


def peers(count: int, network: str = "192.0.2.0") -> list[Lease]:
    first = ip_address(network) + 1
    subnet = ip_network("10.5.1.0/24")
    return [Lease(f"peer {n}", ipv4=Endpoint(subnet, first + n)) for n in range(count)]


@pytest.fixture
def proc_sys(tmp_path: Path) -> Path:
    for name, value in {
        "net/ipv4/ip_forward": "1\n",
        "net/ipv4/neigh/default/gc_thresh3": "512\n",
        "net/ipv6/conf/wlan0/accept_ra": "1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return tmp_path


def test_what_there_is_is_read_and_the_rest_left_out(proc_sys: Path) -> None:
    host = msgspec.structs.replace(HOST, advertised=("wlan0",))
    assert read_facts(host, (), NOBODY, proc_sys) == Facts(
        {
            "net/ipv4/ip_forward": "1",
            "net/ipv4/neigh/default/gc_thresh3": "512",
            "net/ipv6/conf/wlan0/accept_ra": "1",
        },
        neighbours={4: 0, 6: 0},
    )


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert read_facts(HOST, peers(5000), NOBODY, tmp_path / "nothing").sysctls == {}


@pytest.mark.parametrize(
    ("them", "counted"),
    [(peers(256), 0), (peers(257), 257), (peers(300, "198.51.100.0"), 0), (peers(200, "198.51.100.0") + peers(60), 60)],
    ids=["few enough for the table", "one more", "all behind a router", "some behind a router"],
)
def test_peers_are_counted_where_each_needs_a_neighbour_and_they_may_be_too_many(
    proc_sys: Path, them: list[Lease], counted: int
) -> None:
    assert read_facts(HOST, them, NOBODY, proc_sys).neighbours[4] == counted


def test_an_agent_that_was_not_asked_to_wants_nothing_set() -> None:
    asked, not_asked = KernelSettings(set_sysctls=True), KernelSettings(set_sysctls=False)
    assert not_asked.wanted(CONFIG, HOST, (), NOBODY) == []
    assert not not_asked.are_due
    assert asked.are_due
    assert [sysctl.name for sysctl in asked.wanted(CONFIG, HOST, (), NOBODY)] == ["net/ipv4/ip_forward"]
    assert not asked.are_due
