"""What udp wants, from values to values."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_backend_udp.forwarder_target import ForwarderPeer, ForwarderSettings
from flannel_backend_udp.fou import FouPort
from flannel_backend_udp.udp import UdpBackend, UdpOptions
from flannel_core.backend import Announcement, Node
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.objects import Address, Ipip, Link, Offload, Route, Tun

CONFIG = parse_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}', "net-conf.json")
HOST = Host(
    interface="eth0",
    index=2,
    mtu=1500,
    mac="02:ff:ff:ff:ff:01",
    ipv4=ip_address("192.0.2.1"),
    public_ipv4=ip_address("203.0.113.1"),
)
DEFAULTS = UdpOptions()
REST = Route("10.5.0.0/16", None, type="throw")


def lease(number: int = 2, public: str = "192.0.2.2") -> Lease:
    return Lease(f"10.5.{number}.0-24", "", Endpoint(ip_network(f"10.5.{number}.0/24"), ip_address(public)))


def node(mode: str, own: Lease | None = None) -> Node:
    return Node(CONFIG, HOST, Announcement(1472, private=mode), own)


def prepared(options: UdpOptions = DEFAULTS, **changes: Any) -> Announcement:
    host = msgspec.structs.replace(HOST, **changes)
    return asyncio.run(UdpBackend(options).prepare(host, None, dry_run=False))


@pytest.fixture
def modprobe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of this name, first on PATH, which loads nothing and says so: what it is called with goes to ``calls``
    beside it."""
    program = tmp_path / "modprobe"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "Module fou not found" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_by_the_kernel_a_host_has_a_port_and_a_tunnel_from_its_own_address() -> None:
    early = [
        FouPort(8285, "192.0.2.1"),
        Link("flannel.udp", Ipip("192.0.2.1", ttl=64, pmtudisc=True, fou_port=8285), 1472),
        Offload("flannel.udp", "tx-checksum-ip-generic", on=False),
    ]
    backend = UdpBackend(UdpOptions())
    assert list(backend.local(node("kernel"))) == early
    assert list(backend.local(node("kernel", lease(1)))) == [*early, Address("flannel.udp", "10.5.1.0/32"), REST]


def test_in_userspace_a_host_has_a_tun_device_and_the_forwarder_works_with_it() -> None:
    early = [
        Link("flannel0", Tun(), 1472, txqueuelen=5000),
        ForwarderSettings("flannel0", 1472, "192.0.2.1", 8285),
    ]
    backend = UdpBackend(UdpOptions())
    assert list(backend.local(node("userspace"))) == early
    assert list(backend.local(node("userspace", lease(1)))) == [*early, Address("flannel0", "10.5.1.0/32"), REST]


def test_a_peer_is_an_onlink_route_through_its_address_or_a_line_in_the_forwarders_table() -> None:
    backend = UdpBackend(UdpOptions())
    assert list(backend.peer(node("kernel"), lease())) == [
        Route("10.5.2.0/24", "flannel.udp", gateway="192.0.2.2", onlink=True),
    ]
    assert list(backend.peer(node("userspace"), lease())) == [
        ForwarderPeer("10.5.2.0/24", "192.0.2.2"),
        Route("10.5.2.0/24", "flannel0"),
    ]


def test_what_has_no_owner_in_its_place_is_put_on_record() -> None:
    backend = UdpBackend(UdpOptions())
    for mode, record in (("kernel", "8285/192.0.2.1"), ("userspace", "flannel0")):
        assert [item.record for item in backend.local(node(mode, lease(1))) if item.record] == [record]


def test_a_port_of_ones_own_is_everybodys() -> None:
    backend = UdpBackend(UdpOptions(port=9000))
    (port, link) = list(backend.local(node("kernel")))[:2]
    assert isinstance(link, Link)
    assert (port, link.info) == (
        FouPort(9000, "192.0.2.1"),
        Ipip("192.0.2.1", ttl=64, pmtudisc=True, fou_port=9000),
    )
    settings = list(backend.local(node("userspace")))[1]
    assert settings == ForwarderSettings("flannel0", 1472, "192.0.2.1", 9000)


def test_pods_get_what_is_left_beside_the_outer_headers() -> None:
    assert prepared(UdpOptions(mode="userspace")).mtu == 1472
    assert prepared(UdpOptions(mode="userspace", mtu=1400)).mtu == 1372


def test_too_small_an_mtu_is_named() -> None:
    assert prepared(UdpOptions(mode="userspace"), mtu=96).mtu == 68
    with pytest.raises(FlannelError, match=r"an outer MTU of 95 \(eth0\) leaves 67 bytes"):
        prepared(UdpOptions(mode="userspace"), mtu=95)
    with pytest.raises(FlannelError, match=r"an outer MTU of 90 \(MTU under Backend\)"):
        prepared(UdpOptions(mode="userspace", mtu=90))


def test_ipv6_is_refused_with_the_cure() -> None:
    with pytest.raises(FlannelError, match="udp carries IPv4 only: vxlan carries both"):
        prepared(ipv6=ip_address("2001:db8::1"), public_ipv6=ip_address("2001:db8::1"))


class TestWithoutFou:
    """This kernel has none, and ``modprobe`` is one that finds none either."""

    def test_a_process_forwards_and_the_status_says_why(self, modprobe: Path) -> None:
        announcement = prepared()
        assert announcement.private == "userspace"
        (note,) = announcement.notes
        assert note.startswith("udp in userspace (the forwarder), for want of FOU")
        assert "`modprobe --all fou ipip` says: Module fou not found" in note

    def test_nothing_is_loaded_for_who_asked_for_userspace(self, modprobe: Path) -> None:
        assert prepared(UdpOptions(mode="userspace")).notes == ("udp in userspace (the forwarder), as Mode says",)
        assert not (modprobe.parent / "calls").exists()

    def test_mode_kernel_is_an_error_that_names_module_and_command(self, modprobe: Path) -> None:
        with pytest.raises(FlannelError, match="Mode is kernel, and the kernel's module fou is not loaded"):
            prepared(UdpOptions(mode="kernel"))

    def test_without_a_modprobe_the_reason_is_told_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        (note,) = prepared().notes
        assert "says: [Errno 2] No such file or directory: 'modprobe'" in note

    def test_a_dry_run_loads_no_module(self, modprobe: Path) -> None:
        asyncio.run(UdpBackend(UdpOptions()).prepare(HOST, None, dry_run=True))
        assert (modprobe.parent / "calls").read_text() == "--all --dry-run fou ipip\n"

    def test_the_choice_holds_while_the_agent_runs(self, modprobe: Path) -> None:
        backend = UdpBackend(UdpOptions())
        for _ in range(3):
            assert asyncio.run(backend.prepare(HOST, None, dry_run=False)).private == "userspace"
        assert (modprobe.parent / "calls").read_text() == "--all fou ipip\n"
