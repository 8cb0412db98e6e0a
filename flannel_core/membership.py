"""This host's membership of the fabric: its devices, its lease, its own objects, subnet.env, and the peers beside them.

Joining and every later change go through the same steps; which task makes them, and when, is the agent's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import msgspec

from .backend import Backend, Node
from .claim import named_subnets
from .config_watch import Chosen
from .errors import FlannelError
from .firewall.traffic import TrafficRules
from .flanneld_options import FlanneldOptions
from .host import Host
from .host_choice import HostOptions, sentence
from .host_discovery import discover, with_devices_as_they_are
from .journal import Journal
from .kernel_settings import KernelSettings
from .klog import StateLog
from .lease import Lease
from .left_behind import recorded, targets_left_behind
from .lock import AgentLock
from .netlink.kernel import KernelTarget
from .netlink.offloads import OffloadTarget
from .node_families import CannotStart, announced, lacking, node_of
from .objects import Link, Object, Route
from .own_lease import OwnLease
from .ownership import OwnedFile
from .peers import Peers
from .reconciler.lanes import Lanes
from .snapshot_file import Contents, Remembered
from .store import PublicAddresses, StoreUnavailable, SubnetStore, Wish
from .subnet_file import SubnetFile
from .sysctl import SysctlTarget

log = logging.getLogger(__name__)

BLACKHOLE_METRIC = 65535
"""Behind every other route to our subnet: the container bridge has one to the very same destination at metric 0."""
LOCAL = "this host"
"""Who wants the objects that are wanted whoever the peers are. Peers want theirs under the keys of their leases, which
hold no space."""
RULES = "traffic rules"
"""Who wants those."""
SETTINGS = "kernel settings"
"""Who wants those."""


class Membership:
    """One host's part. What is None is not known yet; all of it is once ``join`` has returned."""

    def __init__(self, options: FlanneldOptions, store: SubnetStore[Any], lock: AgentLock, journal: Journal) -> None:
        self.options = options
        self.own = OwnLease(store, options.subnet_file)
        self.node: Node | None = None
        """In the families that work on this host, see ``node_families``."""
        self.chosen: Chosen | None = None
        """The configuration in use, whole."""
        self.reconciler: Lanes | None = None
        self.peers: Peers | None = None
        self.rules = TrafficRules(
            masquerade=options.ip_masq,
            random_fully=not options.ip_masq_fully_random_disable,
            forward=options.iptables_forward_rules,
            excludes=options.excludes,
            seconds=options.iptables_resync,
        )
        self.given = PublicAddresses()
        """What the store says that this host is reached at."""
        self._settings = KernelSettings(set_sysctls=options.set_sysctls)
        self.host_options: HostOptions = options.host
        """--iface and its kin, with the public addresses that the store gives this host."""
        self.owned = OwnedFile(options.subnet_file.parent / "owned.json", dry_run=options.dry_run)
        self._store = store
        self._lock = lock
        self._journal = journal
        self._subnet_file = SubnetFile(options.subnet_file, ip_masq=options.ip_masq)
        self._said = StateLog(log)

    @property
    def backend(self) -> Backend[Any, Any] | None:
        """The one in use."""
        return None if self.chosen is None else self.chosen.backend

    def lacking(self) -> list[str]:
        """A sentence for each family that does not work on this host as it should."""
        return [] if self.chosen is None or self.node is None else lacking(self.chosen, self.node)

    # --- joining -------------------------------------------------------------------------------------------------

    async def join(self, chosen: Chosen, remembered: Remembered | None = None) -> None:
        """Until our lease and this host's own objects stand and subnet.env is written. With what is ``remembered`` the
        store is not asked. Raises StoreUnavailable, OutOfSubnets, SubnetNotAssigned, CannotStart; FlannelError for what
        no configuration cures."""
        peers = await self.register(chosen, remembered)
        self._write_subnet_file()
        self.peers = peers
        if remembered is not None:
            peers.stand_in(remembered.leases, remembered.revision)
        await self.want_rules()

    async def register(self, chosen: Chosen, remembered: Remembered | None = None, *, dry_run: bool = False) -> Peers:
        """Devices, lease, this host's objects. Raises as ``join``."""
        backend = chosen.backend
        self.given = remembered.public if remembered else await self._store.public_addresses()
        self.host_options = self.options.host.reached_at(self.given.ipv4, self.given.ipv6)
        host = self._discover(chosen)
        if remembered is not None:
            self.own.assume(remembered.own)
            previous: Lease | None = self.own.known(backend)
        else:
            previous = await self.own.previous(backend, host)
            if previous is not None and not dry_run and not self.own.remembers(previous):
                await self.own.rivals.refuse_if_kept(previous, backend, host)
        host = host.keeping(previous)
        self._said.say("host", logging.INFO, sentence(host))
        reconciler = await self._open_reconciler(backend)
        node = await self._prepared(chosen, host, previous, dry_run=dry_run)
        wish = self.own.wish(backend, node.host, node.announcement)
        lease = remembered.own if remembered else await self.own.acquire(chosen.config, wish, dry_run=dry_run)
        self.chosen, self.node = chosen, node_of(chosen, node.host, node.announcement, lease)
        objects = self._local_objects(backend, self.node)
        (self._record if dry_run else self._claim)(self.node, backend, objects)
        reconciler.want(LOCAL, objects, LOCAL)
        self._want_settings(self.node)
        if not dry_run:
            await reconciler.settle()
        self._say_what_is_lacking()
        hold_off = self.options.removal_hold_off
        return Peers(self.node, backend, reconciler, known_cluster=self.own.cluster, hold_off=hold_off)

    def _say_what_is_lacking(self) -> None:
        if sentences := self.lacking():
            self._said.say("families", logging.WARNING, "; ".join(sentences))
        else:
            self._said.over("families", "Every family works")

    def _write_subnet_file(self) -> None:
        assert self.node is not None
        try:
            self._subnet_file.write(self.node)
        except OSError as error:
            raise CannotStart(
                f"{self._subnet_file.path}: cannot be written ({error.strerror}); pods get no address before it is"
            ) from error

    async def _prepared(
        self, chosen: Chosen, host: Host, previous: Lease | None, lease: Lease | None = None, *, dry_run: bool = False
    ) -> Node:
        """What to announce, with the devices made that it is about. ``lease`` is the one held already, if any. Raises
        CannotStart."""
        backend = chosen.backend
        node = node_of(chosen, *await announced(backend, host, previous, dry_run=dry_run), lease)
        if dry_run:
            self._record(node, backend, list(backend.local(node)))
        elif await self._make_devices(node, backend):
            # What is announced is what the kernel has now: udev or networkd may have given the device another MAC.
            node = node_of(chosen, *await announced(backend, with_devices_as_they_are(host), previous), lease)
        return node

    def _discover(self, chosen: Chosen) -> Host:
        config, devices = chosen.config, self.owned.owned.devices
        return discover(
            self.host_options, ipv4=config.ipv4 is not None, ipv6=config.ipv6 is not None, own_devices=devices
        )

    async def _open_reconciler(self, backend: Backend[Any, Any]) -> Lanes:
        if self.reconciler is not None:  # an earlier try, perhaps with another backend
            await self.reconciler.close()
        targets = [KernelTarget(), SysctlTarget(), OffloadTarget(), *self.rules.targets, *backend.targets()]
        directory = self.options.subnet_file.parent
        left_behind, lost = targets_left_behind(self.owned.owned, {target.name for target in targets}, directory)
        targets += left_behind
        if lost:
            self._said.say("left", logging.WARNING, "; ".join(lost))
        for target in targets:
            target.lease_is_ours, target.is_leased = self._lease_is_ours, self._is_leased
        self.reconciler = Lanes(targets, self.owned, self._journal)
        await self.reconciler.open()
        return self.reconciler

    async def _lease_is_ours(self) -> bool:
        """Asks the store, not what is remembered."""
        if self.backend is None or self.node is None or self.own.lease is None:
            return False
        try:
            lease = await self.own.previous(self.backend, self.node.host)
        except StoreUnavailable:
            return False
        return lease is not None and (lease.key, lease.created) == (self.own.lease.key, self.own.lease.created)

    def _is_leased(self, subnet: str) -> bool:
        """True also while that is not known."""
        if self.peers is None or not self.peers.listed:
            return True
        for entry in self.peers.admission.entries:
            subnets = entry.subnets if isinstance(entry, Lease) else named_subnets(entry.key)
            if subnet in map(str, subnets):
                return True
        return False

    async def _make_devices(self, node: Node, backend: Backend[Any, Any]) -> bool:
        """The devices, which need no subnet yet. True if there are any. Raises CannotStart."""
        assert self.reconciler is not None
        objects = self._local_objects(backend, node)
        self._claim(node, backend, objects)
        self.reconciler.want(LOCAL, objects, LOCAL)
        self._want_settings(node)  # now already: what is wanted before the first pass is read before it is written
        await self.reconciler.settle()
        links = {item.name for item in objects if isinstance(item, Link)}
        failed = {f.object.name: f.reason for f in self.reconciler.state(LOCAL).failures if isinstance(f.object, Link)}
        if links and links == failed.keys():
            raise CannotStart("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
        return bool(links)  # one of several that cannot be made is tried again, and the status names it

    def _claim(self, node: Node, backend: Backend[Any, Any], objects: list[Object]) -> None:
        """Put on record what will be ours before the first object of it is made. Raises FlannelError if another agent
        has it."""
        for item in objects:
            if isinstance(item, Link):
                exists, ours = item.name in node.host.links, item.name in self.owned.owned.devices
                self._lock.claim_device(item.name, exists=exists, ours=ours)
        self._record(node, backend, objects)

    def _record(self, node: Node, backend: Backend[Any, Any], objects: list[Object]) -> None:
        assert self.reconciler is not None
        devices = [item.name for item in objects if isinstance(item, Link)]
        networks = {*node.config.networks, *self.own.previous_networks}
        records = self.reconciler.records_of(objects)
        backends = {node.config.backend_type: recorded(backend.options)} if records else {}
        self.owned.record(devices, map(str, networks), [node.host.interface], records, backends)

    def _local_objects(self, backend: Backend[Any, Any], node: Node) -> list[Object]:
        objects = list(backend.local(node))
        if self.options.ip_blackhole_route and node.lease:
            objects += [
                Route(str(subnet), None, type="blackhole", metric=BLACKHOLE_METRIC) for subnet in node.lease.subnets
            ]
        return objects

    async def want_rules(self) -> None:
        """For the configuration and lease in use."""
        assert self.reconciler is not None
        assert self.node is not None
        assert self.node.lease is not None
        self.reconciler.want(RULES, await self.rules.wanted(self.node.config, self.node.lease), RULES)

    def _want_settings(self, node: Node) -> None:
        """For this host and its peers as they are now."""
        assert self.reconciler is not None
        wanted = self._settings.wanted(node.config, node.host, self._sent_to(), self.rules.services)
        self.reconciler.want(SETTINGS, wanted, SETTINGS)

    def settings_problems(self) -> list[str]:
        """A sentence for each setting of the kernel that is not as it has to be."""
        if self.node is None:
            return []
        return self._settings.problems(self.node.config, self.node.host, self._sent_to(), self.rules.services)

    def _sent_to(self) -> Collection[Lease]:
        """The leases of the peers, if it is this host's kernel that sends packets to them."""
        if self.peers is None or self.node is None or self.backend is None:
            return ()
        leases = self.peers.admission.admitted.values()
        for lease in leases:  # one tells for all
            return leases if any(True for _ in self.backend.peer(self.node, lease)) else ()
        return ()

    def contents(self) -> Contents:
        """What a later run is to know if it finds the store away."""
        assert self.chosen is not None
        assert self.peers is not None
        return Contents(
            self._store.location,
            self.own.cluster,
            self.peers.revision,
            self.chosen.text,
            self.given,
            self.own.held,
            self.peers.leases,
        )

    # --- changing ------------------------------------------------------------------------------------------------

    def wish(self) -> Wish:
        """What the store is to know of this host now."""
        assert self.node is not None
        assert self.chosen is not None
        return self.own.wish(self.chosen.backend, self.node.host, self.node.announcement)

    @property
    def has_news(self) -> bool:
        """True if the store knows this host otherwise, or may have a subnet for a family that has none."""
        assert self.chosen is not None
        return self.own.has_news(self.chosen.config, self.wish())

    async def moved(self, host: Host) -> None:
        """The host is another now (address, MTU, interface). The store is not told yet. Raises CannotStart."""
        assert self.chosen is not None
        known = self.own.known(self.chosen.backend)
        host, announcement = await announced(self.chosen.backend, self._with_devices_as_announced(host), known)
        await self._plan(node_of(self.chosen, host, announcement, self.own.held))

    async def reconfigure(self, chosen: Chosen) -> None:
        """Another configuration: the same subnet, other keys. The store is not told yet. Raises CannotStart, and
        FlannelError where another agent has the device; what stood before stands again then."""
        assert self.node is not None
        host = self._with_devices_as_announced(with_devices_as_they_are(self.node.host))
        try:
            node = await self._prepared(chosen, host, self.own.known(chosen.backend), self.own.held)
        except (CannotStart, FlannelError):
            await self._plan(self.node)
            raise
        self.chosen = chosen
        await self._plan(node)

    def _with_devices_as_announced(self, host: Host) -> Host:
        """``host`` with our devices as peers know them: what somebody has just done to one is undone, and not told."""
        assert self.node is not None
        ours = {name: link for name, link in self.node.host.links.items() if name in self.owned.owned.devices}
        return msgspec.structs.replace(host, links={**host.links, **ours})

    async def lease_changed(self) -> None:
        """Plan for the lease that we hold now. Raises CannotStart."""
        assert self.node is not None
        assert self.chosen is not None
        node = node_of(self.chosen, self.node.host, self.node.announcement, self.own.held)
        if node != self.node:
            await self._plan(node)

    async def _plan(self, node: Node) -> None:
        """Plan everything for ``node``."""
        assert self.reconciler is not None
        assert self.peers is not None
        assert self.chosen is not None
        backend, self.node = self.chosen.backend, node
        objects = self._local_objects(backend, node)
        self._claim(node, backend, objects)
        self.reconciler.want(LOCAL, objects, LOCAL)
        self.peers.plan(node, backend)
        self._subnet_file.put_back(node)
        self._want_settings(node)
        await self.want_rules()
        self._say_what_is_lacking()

    def look_after(self) -> None:
        """What nothing notifies: subnet.env gone, a hold-off of removals over, settings that more peers need."""
        if self.peers is not None and self.node is not None:
            self._subnet_file.put_back(self.node)
            self.peers.release_hold()
            if self._settings.are_due:
                self._want_settings(self.node)
