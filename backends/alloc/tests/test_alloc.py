"""alloc leases and forwards nothing."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

from flannel_backend_alloc.alloc import AllocBackend
from flannel_core.backend import Announcement, Node, NoOptions
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config


def test_a_host_and_its_peers_need_nothing_in_the_kernel() -> None:
    host = Host(interface="eth0", index=2, mtu=1500, mac="02:ff:ff:ff:ff:01")
    config = parse_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "alloc"}}', "net-conf.json")
    backend = AllocBackend(NoOptions())
    node = Node(config, host, asyncio.run(backend.prepare(host, None, dry_run=False)))
    peer = Lease("10.5.2.0-24", ipv4=Endpoint(ip_network("10.5.2.0/24"), ip_address("192.0.2.2")))
    assert node.announcement == Announcement(1500)
    assert [*backend.local(node), *backend.peer(node, peer)] == []


def test_peers_of_every_type_are_peers() -> None:
    assert "" in AllocBackend.accepts
    assert "vxlan" in AllocBackend.accepts
