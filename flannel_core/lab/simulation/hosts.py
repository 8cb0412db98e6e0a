"""A simulated host, and the agent on it: what the real one's tasks do, between a simulated kernel and store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any

import msgspec

from flannel_core.backend import Backend, Node
from flannel_core.firewall.rules import RuleOptions, traffic_rules
from flannel_core.host import Host
from flannel_core.journal import Journal
from flannel_core.lease import FAMILIES, Endpoint, Family, IPNetwork, Lease
from flannel_core.netconf import NetworkConfig
from flannel_core.objects import Address, Link, Object, OtherLink, Route
from flannel_core.ownership import OwnedFile
from flannel_core.peers import Peers
from flannel_core.reconciler.lanes import Lanes
from flannel_core.store import Change, OutOfSubnets, Snapshot, StoreUnavailable, Wish

from .kernel import EXTERNAL, RTPROT_KERNEL, Kernel
from .store import SimulatedStore
from .targets import SimulatedFirewall, SimulatedKernelTarget, SimulatedSettings

LOCAL, RULES = "this host", "traffic rules"
TICK_SECONDS = 1.0
STORE_RETRY_SECONDS = 5.0
UNDERLAY: dict[Family, IPNetwork] = {4: IPv4Network("192.0.2.0/24"), 6: IPv6Network("2001:db8::/64")}
"""TEST-NET-1 of RFC 5737, the documentation prefix of RFC 3849."""


def underlay_address(family: Family, number: int) -> str:
    network = UNDERLAY[family]
    return f"{network[number]}/{network.prefixlen}"


def foreign_objects() -> list[Object]:
    """What others keep on every host, some of it near to what is ours."""
    static = 4  # RTPROT_STATIC
    return [
        Link("docker0", OtherLink("bridge"), 1500, "02:42:00:00:00:01"),
        Address("docker0", "172.17.0.1/16"),
        Route("0.0.0.0/0", EXTERNAL, gateway=str(UNDERLAY[4][254]), protocol=static),
        Route("203.0.113.0/24", EXTERNAL, gateway=str(UNDERLAY[4][253]), protocol=static),
        Route("10.5.240.0/24", "docker0", protocol=static),  # inside Network, by another's protocol number
        Route("10.99.0.0/16", "docker0", protocol=76),  # our number, outside Network
    ]


class SimulatedHost:
    """``agent`` is the task of the running one, None while it is dead. What a reboot would keep stays here."""

    def __init__(
        self,
        name: str,
        number: int,
        config: NetworkConfig,
        backend: type[Backend[Any, Any]],
        store: SimulatedStore,
        directory: Path,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.number = number
        self.config = config
        self.backend_class = backend
        self.store = store
        self.directory = directory
        self.rng = rng
        self.kernel = Kernel(rng)
        self.agent: asyncio.Task[None] | None = None
        self.lease: Lease | None = None
        self.reconciler: Lanes | None = None
        self.peers: Peers | None = None
        self.node: Node | None = None
        self._backend: Backend[Any, Any] | None = None
        self._discovered: tuple[int, Host | None] = (-1, None)
        self._moved = asyncio.Event()
        self._lost = asyncio.Event()
        directory.mkdir()
        for item in [Link(EXTERNAL, OtherLink(), 1500, f"02:00:00:00:01:{number:02x}"), *self.own_addresses()]:
            self.kernel.put(item)
        for item in foreign_objects():
            self.kernel.put(item)

    def own_addresses(self) -> list[Address]:
        """Those that it has when nobody meddles."""
        return [Address(EXTERNAL, underlay_address(family, self.number)) for family in FAMILIES]

    # --- the agent -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.agent is None:
            self.agent = asyncio.create_task(self._run(), name=f"agent of {self.name}")

    async def kill(self) -> None:
        if self.agent is not None:
            self.agent.cancel()
            await asyncio.gather(self.agent, return_exceptions=True)
            self.agent = None

    async def _run(self) -> None:
        self.peers = None
        backend = self._backend = self.backend_class(_options(self.config, self.backend_class), self.directory)
        owned = OwnedFile(self.directory / "owned.json")
        targets = [SimulatedKernelTarget(self.kernel), SimulatedSettings(self.kernel), SimulatedFirewall(self.kernel)]
        reconciler = self.reconciler = Lanes(targets, owned, Journal(), rng=self.rng)
        try:
            await reconciler.open()
            while not await self._joined(backend, reconciler, owned):  # noqa: ASYNC110 - a store tells nothing
                await asyncio.sleep(STORE_RETRY_SECONDS * self.rng.uniform(0.5, 1.5))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(reconciler.run())
                tasks.create_task(self._follow_leases())
                tasks.create_task(self._follow_host())
                tasks.create_task(self._announce())
                tasks.create_task(self._keep())
        finally:
            await reconciler.close()

    async def _joined(self, backend: Backend[Any, Any], reconciler: Lanes, owned: OwnedFile) -> bool:
        host = self.discovered()
        if host is None:
            return False
        try:
            previous = self.store.previous(self.name, self._wish(host))
            node = await self._node(host, previous)
            devices = list(backend.local(node))
            links = [item.name for item in devices if isinstance(item, Link)]
            owned.record(links, map(str, self.config.networks), [EXTERNAL])
            reconciler.want(LOCAL, devices, LOCAL)
            await reconciler.settle()
            if links:  # announced is what the kernel made of it
                node = await self._node(self.discovered() or host, previous)
            self.lease = self.store.acquire(self.name, self._wish(node.host, node))
        except (StoreUnavailable, OutOfSubnets):
            return False
        self.node = _with(node, self.lease)
        reconciler.want(LOCAL, backend.local(self.node), LOCAL)
        await reconciler.settle()
        self.peers = Peers(self.node, backend, reconciler, known_cluster="simulated", clock=_now)
        self._want_rules()
        return True

    async def _node(self, host: Host, previous: Lease | None) -> Node:
        assert self._backend is not None
        if previous is not None:
            previous = _decoded(previous, self._backend)
        return Node(self.config, host, await self._backend.prepare(host, previous, dry_run=False))

    def _want_rules(self) -> None:
        assert self.node is not None
        assert self.node.lease is not None
        assert self.reconciler is not None
        wanted = traffic_rules(self.config, self.node.lease, RuleOptions(masquerade=True))
        self.reconciler.want(RULES, wanted, RULES)

    def _wish(self, host: Host, node: Node | None = None) -> Wish:
        announced = node.announcement if node else None
        return Wish(
            host.public_ipv4,
            host.public_ipv6,
            self.backend_class.published_type,
            _encoded(announced.ipv4_data) if announced else None,
            _encoded(announced.ipv6_data) if announced else None,
            self.lease.key if self.lease else None,
            self.lease.created if self.lease else 0,
            self.lease.subnets if self.lease else (),
        )

    async def _follow_leases(self) -> None:
        assert self.peers is not None
        events = self.store.watch(self.name)
        while True:
            event = await events.get()
            await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0, 0.5))))
            match event:
                case Snapshot():
                    self.peers.snapshot(event)
                    own = next((lease for lease in event.leases if self.lease and lease.key == self.lease.key), None)
                    self._own_is(own)
                case Change():
                    self.peers.change(event)
                    if self.lease is not None and event.key == self.lease.key:
                        self._own_is(event.entry)

    def _own_is(self, entry: object) -> None:
        assert self.lease is not None
        if not isinstance(entry, Lease) or entry.created != self.lease.created:
            self._lost.set()

    async def _keep(self) -> None:
        """A lost lease is taken again, with the same subnets."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            assert self.lease is not None
            assert self.node is not None
            held = self.store.entries.get(self.lease.key)
            if isinstance(held, Lease) and held.created == self.lease.created:
                continue
            try:
                self.lease = self.store.acquire(self.name, self._wish(self.node.host, self.node))
            except (StoreUnavailable, OutOfSubnets):
                self._lost.set()
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            self._plan(self.node)

    async def _follow_host(self) -> None:
        """What changed counts once it has stood for a second."""
        assert self.node is not None
        assert self.peers is not None
        seen = self.node.host
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.peers.release_hold()
            found = self.discovered()
            if found is None:
                continue
            if _facts(found) == _facts(seen) != _facts(self.node.host):
                lease = self.node.lease
                node = await self._node(found, _encoded_lease(lease) if lease else None)
                self._plan(node)
                self._moved.set()
            seen = found

    async def _announce(self) -> None:
        """Peers are told what is other than they know."""
        while True:
            await self._moved.wait()
            assert self.node is not None
            assert self.lease is not None
            told = msgspec.structs.replace(
                self.lease,
                ipv4=_endpoint(self.lease.ipv4, self.node, 4),
                ipv6=_endpoint(self.lease.ipv6, self.node, 6),
            )
            self._moved.clear()
            if (told.ipv4, told.ipv6) == (self.lease.ipv4, self.lease.ipv6):
                continue
            try:
                lease = self.store.announce(self.name, told)
            except StoreUnavailable:
                self._moved.set()
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            if lease is None:
                self._lost.set()
                self._moved.set()
                await asyncio.sleep(TICK_SECONDS)
                continue
            self.lease = lease
            self._plan(self.node)

    def _plan(self, node: Node) -> None:
        assert self.reconciler is not None
        assert self.peers is not None
        assert self.lease is not None
        assert self._backend is not None
        self.node = _with(node, self.lease)
        self.reconciler.want(LOCAL, self._backend.local(self.node), LOCAL)
        self.peers.plan(self.node, self._backend)
        self._want_rules()

    # --- what the agent sees of its host -------------------------------------------------------------------------

    def discovered(self) -> Host | None:
        """None while an address is missing: the last one stands."""
        if self._discovered[0] != self.kernel.changes:
            self._discovered = self.kernel.changes, self._discover()
        return self._discovered[1]

    def _discover(self) -> Host | None:
        link = self.kernel.link(EXTERNAL)
        assert link is not None
        found = {version: self.kernel.addresses(EXTERNAL, version) for version in (4, 6)}
        if not link.up or not found[4] or not found[6]:
            return None
        ipv4, ipv6 = (ip_interface(found[version][0].address).ip for version in (4, 6))
        return Host(
            EXTERNAL,
            2,
            link.mtu,
            link.mac or "",
            ipv4,
            ipv6,
            ipv4,
            ipv6,
            connected=tuple(sorted(self._connected(), key=str)),
            links={item.name: item for item in self.kernel.objects.values() if isinstance(item, Link)},
        )

    def _connected(self) -> Iterable[tuple[IPNetwork, str]]:
        for item in self.kernel.objects.values():
            if isinstance(item, Route) and item.protocol == RTPROT_KERNEL and item.device in (EXTERNAL, "docker0"):
                yield ip_network(item.destination), item.device


def restore_interface(host: SimulatedHost) -> None:
    """As whoever manages the network does: up, MTU, addresses, the routes of others."""
    host.kernel.change_link(EXTERNAL, up=True, mtu=1500)
    wanted = host.own_addresses()
    for version in (4, 6):
        for address in host.kernel.addresses(EXTERNAL, version):
            if address not in wanted:
                host.kernel.remove(address)
    for item in (*wanted, *foreign_objects()):
        if host.kernel.objects.get(item.identity) != item:
            host.kernel.put(item)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _options(config: NetworkConfig, backend: type[Backend[Any, Any]]) -> Any:
    return msgspec.convert(dict(config.backend), backend.Options)


def _encoded(data: Any) -> bytes | None:
    return None if data is None else msgspec.json.encode(data)


def _encoded_lease(lease: Lease) -> Lease:
    """As a store has it."""
    ipv4, ipv6 = (e and msgspec.structs.replace(e, data=_encoded(e.data)) for e in (lease.ipv4, lease.ipv6))
    return msgspec.structs.replace(lease, ipv4=ipv4, ipv6=ipv6)


def _decoded(lease: Lease, backend: Backend[Any, Any]) -> Lease:
    def data(endpoint: Endpoint | None) -> Endpoint | None:
        if endpoint is None or backend.Data is None or endpoint.data is None:
            return endpoint
        return msgspec.structs.replace(endpoint, data=msgspec.json.decode(endpoint.data, type=backend.Data))

    return msgspec.structs.replace(lease, ipv4=data(lease.ipv4), ipv6=data(lease.ipv6))


def _endpoint(endpoint: Endpoint | None, node: Node, family: Family) -> Endpoint | None:
    """What is to be told of this family now."""
    address = node.host.public_ip(family)
    if endpoint is None or address is None:
        return endpoint
    return Endpoint(endpoint.subnet, address, _encoded(node.announcement.data(family)))


def _with(node: Node, lease: Lease) -> Node:
    """``node`` with our lease, whose data is what we announce."""
    ipv4, ipv6 = (
        e and msgspec.structs.replace(e, data=data)
        for e, data in ((lease.ipv4, node.announcement.ipv4_data), (lease.ipv6, node.announcement.ipv6_data))
    )
    return msgspec.structs.replace(node, lease=msgspec.structs.replace(lease, ipv4=ipv4, ipv6=ipv6))


def _facts(host: Host) -> Host:
    return msgspec.structs.replace(host, links={})
