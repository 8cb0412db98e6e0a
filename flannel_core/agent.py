"""The agent: the tasks that carry a host's part of the fabric, and the one place where they all meet.

Start: lock -> config -> host -> previous lease -> prepare -> devices -> lease -> this host's objects -> subnet.env ->
peers. From then on one loop per source of change (config, host, store, kernel), each ending in the reconciler.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import msgspec

from . import systemd
from .backend import Announcement, Backend, Node
from .config_watch import Chosen, ConfigWatch
from .errors import EXIT_OK, FlannelError
from .firewall.traffic import TrafficRules
from .flanneld_options import FlanneldOptions
from .host import Host
from .host_choice import sentence
from .host_discovery import discover, follow
from .journal import Journal
from .klog import StateLog
from .lease import Lease
from .lock import AgentLock
from .memory import give_back
from .netlink.kernel import KernelTarget
from .objects import Link, Object, Route, Sysctl
from .own_lease import RETRY_SECONDS, OwnLease
from .ownership import OwnedFile
from .peers import Peers
from .reconciler.diff import PlannedChange
from .reconciler.engine import Reconciler
from .store import Alive, Change, LeaseLost, OutOfSubnets, Snapshot, StoreUnavailable, SubnetStore
from .subnet_file import SubnetFile
from .sysctl import SysctlTarget
from .task_groups import first_of, unless

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often what nothing notifies is looked at: subnet.env, the store's silence, the hold-off of removals."""
STORE_SILENCE_SECONDS = 300.0
"""A store that has not answered for this long makes /readyz false. Forwarding goes on."""
BLACKHOLE_METRIC = 65535
"""Behind every other route to our subnet: the container bridge has one to the very same destination at metric 0."""
LOCAL = "this host"
"""Who wants the objects that are wanted whoever the peers are. Peers want theirs under the keys of their leases, which
hold no space."""
MANY_PEERS = 1000
"""From so many on, what their first list took and left is worth giving back to the system."""
RULES = "traffic rules"
"""Who wants those."""


class Stop(Exception):
    """Ends the agent in order."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class CannotStart(Exception):
    """This host cannot join the fabric yet; waited for, and ``str(error)`` is shown in the status."""


class Agent:
    """One host's agent. What is None is not known yet."""

    def __init__(self, options: FlanneldOptions, store_name: str, store: SubnetStore[Any]) -> None:
        self.options = options
        self.store_name = store_name
        self.store = store
        self.directory = options.subnet_file.parent
        self.started = time.time()
        self.journal = Journal()
        self.config = ConfigWatch(self.directory, ranges=store_name != "kubernetes")
        self.own = OwnLease(store, options.subnet_file)
        self.waiting_for: str | None = "the network configuration"
        self.ready = False
        self.node: Node | None = None
        self.backend: Backend[Any, Any] | None = None
        self.reconciler: Reconciler | None = None
        self.rules = TrafficRules(
            masquerade=options.ip_masq,
            random_fully=not options.ip_masq_fully_random_disable,
            forward=options.iptables_forward_rules,
            excludes=options.excludes,
            seconds=options.iptables_resync,
        )
        self.peers: Peers | None = None
        self._owned = OwnedFile(self.directory / "owned.json", dry_run=options.dry_run)
        self._lock = AgentLock(self.directory)
        self._subnet_file = SubnetFile(options.subnet_file, ip_masq=options.ip_masq)
        self._said = StateLog(log)
        self._config_taken = asyncio.Event()
        self._announced = asyncio.Event()
        self._changing = asyncio.Lock()
        self._store_answered: float | None = None

    @property
    def store_silence(self) -> float | None:
        """Seconds since the store's last answer; None if it never answered."""
        return None if self._store_answered is None else time.monotonic() - self._store_answered

    @property
    def ready_now(self) -> bool:
        """What /readyz says: our part stands, and the store has been heard of lately."""
        return self.ready and (self.store_silence or 0.0) <= STORE_SILENCE_SECONDS

    async def run(self, serving: AbstractAsyncContextManager[None]) -> int:
        """Until SIGTERM or SIGINT, or our subnet is another's: the exit code. ``serving`` answers questions about this
        agent as long as it is entered. Raises FlannelError for what ends it."""
        task = asyncio.current_task()
        assert task is not None
        for stop in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(stop, task.cancel)
        with self._lock:
            self._lock.refuse_go_flanneld(self.options.subnet_file)
            try:
                async with serving, asyncio.TaskGroup() as tasks:
                    await self.store.open()
                    tasks.create_task(self._follow_config(), name="config")
                    tasks.create_task(self._tick(), name="tick")
                    tasks.create_task(self._join(), name="join")
            except asyncio.CancelledError:
                log.info("Exiting cleanly...")
            except BaseExceptionGroup as group:
                ending = first_of(group, Stop, FlannelError)
                if not isinstance(ending, Stop):
                    raise ending from None
                return ending.exit_code
            finally:
                await self._close()
        return EXIT_OK

    async def dry_run(self) -> list[PlannedChange]:
        """What a start would do; nothing is written anywhere. Raises FlannelError where a start would wait or end."""
        await self.store.open()
        try:
            async for text in self.store.config():
                self.config.take(text)
                break
            if self.config.chosen is None:
                raise FlannelError(self.config.error or "there is no network configuration")
            try:
                peers = await self._register(self.config.chosen, dry_run=True)
            except (StoreUnavailable, OutOfSubnets, CannotStart) as error:
                raise FlannelError(str(error)) from error
            async for event in self.store.leases():
                if isinstance(event, Snapshot):
                    peers.snapshot(event)
                    break
            assert self.reconciler is not None
            await self._want_rules()
            return await self.reconciler.plan()
        finally:
            await self._close()

    async def _close(self) -> None:
        if self.reconciler is not None:
            await self.reconciler.close()
        await self.store.close()

    # --- joining -------------------------------------------------------------------------------------------------

    async def _follow_config(self) -> None:
        async for text in self.store.config():
            self.config.take(text)
            self._config_taken.set()

    async def _join(self) -> None:
        """Join the fabric, however long that takes, and stay in it."""
        while True:
            self._config_taken.clear()
            if await self._joined():
                break
            try:
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._config_taken.wait()
            except TimeoutError:
                pass
        assert self.reconciler is not None
        self.waiting_for = "the store's list of leases"
        log.info("Running backend.")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reconciler.run(), name="reconciler")
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._keep_lease(), name="lease")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._follow_chosen(), name="chosen")

    async def _joined(self) -> bool:
        """True once our lease and this host's own objects stand and subnet.env is written."""
        chosen = self.config.chosen
        if chosen is None:
            self.waiting_for = self.config.error
            return False
        try:
            peers = await self._register(chosen, dry_run=False)
            self._write_subnet_file()
        except (StoreUnavailable, OutOfSubnets, CannotStart) as error:
            self.waiting_for = str(error)
            self._said.say("start", logging.ERROR, f"Waiting: {error}")
            return False
        self.peers = peers
        self.config.use(chosen)
        await self._want_rules()
        return True

    def _write_subnet_file(self) -> None:
        assert self.node is not None
        try:
            self._subnet_file.write(self.node)
        except OSError as error:
            raise CannotStart(
                f"{self._subnet_file.path}: cannot be written ({error.strerror}); pods get no address before it is"
            ) from error

    async def _register(self, chosen: Chosen, *, dry_run: bool) -> Peers:
        """Devices, lease, this host's objects. Raises StoreUnavailable, OutOfSubnets, CannotStart; FlannelError for
        what no configuration cures."""
        backend = chosen.backend
        host = self._discover(chosen)
        self._said.say("host", logging.INFO, sentence(host))
        previous = await self.own.previous(backend, host)
        reconciler = await self._open_reconciler(backend)
        node = await self._prepared(chosen, host, previous, None, dry_run=dry_run)
        wish = self.own.wish(backend, node.host, node.announcement)
        lease = await self.own.acquire(node.config, wish, dry_run=dry_run)
        self.backend, self.node = backend, _with_lease(node, lease)
        reconciler.want(LOCAL, self._local_objects(backend, self.node), LOCAL)
        if not dry_run:
            await reconciler.settle()
        return Peers(self.node, backend, reconciler, known_cluster=self.own.cluster)

    async def _prepared(
        self, chosen: Chosen, host: Host, previous: Lease | None, lease: Lease | None, *, dry_run: bool
    ) -> Node:
        """What to announce, with the devices made that it is about. ``lease`` is the one held already, if any. Raises
        CannotStart."""
        backend = chosen.backend
        node = Node(chosen.config, host, await _prepare(backend, host, previous, dry_run), lease)
        if dry_run:
            self._record(node, list(backend.local(node)))
        elif await self._make_devices(node, backend):
            # What is announced is what the kernel has now: udev or networkd may have given the device another MAC.
            host = self._discover(chosen)
            node = Node(chosen.config, host, await _prepare(backend, host, previous, dry_run), lease)
        return node

    def _discover(self, chosen: Chosen) -> Host:
        config = chosen.config
        return discover(
            self.options.host,
            ipv4=config.ipv4 is not None,
            ipv6=config.ipv6 is not None,
            own_devices=self._owned.owned.devices,
        )

    async def _open_reconciler(self, backend: Backend[Any, Any]) -> Reconciler:
        if self.reconciler is not None:  # an earlier try, perhaps with another backend
            await self.reconciler.close()
        targets = [KernelTarget(), SysctlTarget(), *self.rules.targets, *backend.targets()]
        self.reconciler = Reconciler(targets, self._owned, self.journal)
        await self.reconciler.open()
        return self.reconciler

    async def _make_devices(self, node: Node, backend: Backend[Any, Any]) -> bool:
        """The devices, which need no subnet yet. True if there are any. Raises CannotStart."""
        assert self.reconciler is not None
        objects = self._local_objects(backend, node)
        self._claim(node, objects)
        self.reconciler.want(LOCAL, objects, LOCAL)
        await self.reconciler.settle()
        for failure in self.reconciler.state(LOCAL).failures:
            if isinstance(failure.object, Link):
                raise CannotStart(f"{failure.object.name}: {failure.reason}")
        return any(isinstance(item, Link) for item in objects)

    def _claim(self, node: Node, objects: list[Object]) -> None:
        """Put on record what will be ours before the first object of it is made. Raises FlannelError if another agent
        has it."""
        for item in objects:
            if isinstance(item, Link):
                exists, ours = item.name in node.host.links, item.name in self._owned.owned.devices
                self._lock.claim_device(item.name, exists=exists, ours=ours)
        self._record(node, objects)

    def _record(self, node: Node, objects: list[Object]) -> None:
        devices = [item.name for item in objects if isinstance(item, Link)]
        networks = {*node.config.networks, *self.own.previous_networks}
        self._owned.record(devices, map(str, networks), [node.host.interface])

    def _local_objects(self, backend: Backend[Any, Any], node: Node) -> list[Object]:
        objects = list(backend.local(node))
        if self.options.set_sysctls:
            if node.config.ipv4:
                objects.append(Sysctl("net/ipv4/ip_forward", "1"))
            if node.config.ipv6:
                objects.append(Sysctl("net/ipv6/conf/all/forwarding", "1"))
        if self.options.ip_blackhole_route and node.lease:
            objects += [
                Route(str(subnet), None, type="blackhole", metric=BLACKHOLE_METRIC) for subnet in node.lease.subnets
            ]
        return objects

    async def _want_rules(self) -> None:
        """For the configuration and lease in use."""
        assert self.reconciler is not None
        assert self.node is not None
        assert self.node.lease is not None
        self.reconciler.want(RULES, await self.rules.wanted(self.node.config, self.node.lease), RULES)

    # --- what keeps changing -------------------------------------------------------------------------------------

    async def _follow_leases(self) -> None:
        assert self.peers is not None
        async for event in self.store.leases():
            self._store_answered = time.monotonic()
            match event:
                case Snapshot():
                    self.peers.snapshot(event)
                    self.own.belongs_to(event.cluster)
                    await self._become_ready()
                case Change():
                    self.peers.change(event)
                case Alive():
                    pass
            del event  # a list of all leases must not live until the next one comes

    async def _become_ready(self) -> None:
        """After the first full list: ready once each object was tried; a failing one holds nothing up."""
        if self.ready:
            return
        assert self.reconciler is not None
        await self.reconciler.settle()
        self.ready = True
        self.waiting_for = None
        log.info("flannel is ready")
        await self.store.ready()
        systemd.notify("READY=1")
        if self.peers is not None and len(self.peers.admission.admitted) >= MANY_PEERS:
            give_back()

    async def _keep_lease(self) -> NoReturn:
        """Renew the lease; when it is gone, take the same subnet again if it is free, else end as Go does."""
        assert self.node is not None
        assert self.backend is not None
        margin = self.options.subnet_lease_renew_margin * 60.0
        while True:
            self._announced.clear()
            lost = await unless(self._announced.wait(), self.own.keep(margin))
            if lost is None:  # announced anew: keep it as it is now
                continue
            log.warning("Our lease is gone: %s", lost.reason)
            wish = self.own.wish(self.backend, self.node.host, self.node.announcement)
            if lost.holder is not None or not await self.own.take_again(self.node.config, wish):
                log.error("Lease has been revoked. Shutting down daemon.")
                raise Stop(EXIT_OK)
            await self._replan(self.node)

    async def _follow_host(self) -> None:
        """A changed address, MTU or interface: tell the peers, plan again, keep the subnet."""
        assert self.node is not None
        assert self.backend is not None
        config = self.node.config
        async for host in follow(
            self.options.host,
            self.node.host,
            ipv4=config.ipv4 is not None,
            ipv6=config.ipv6 is not None,
            own_devices=self._owned.owned.devices,
        ):
            async with self._changing:
                try:
                    announcement = await _prepare(self.backend, host, self.node.lease, dry_run=False)
                except CannotStart as error:
                    self._said.say("host", logging.ERROR, str(error))
                    continue
                node = msgspec.structs.replace(self.node, host=host, announcement=announcement)
                await self._change(node, self.backend)

    async def _follow_chosen(self) -> NoReturn:
        """Another configuration for what runs: the same subnet, other keys."""
        while True:
            self._config_taken.clear()
            chosen = self.config.chosen
            if chosen is not None and chosen.backend is not self.backend:
                async with self._changing:
                    await self._reconfigure(chosen)
            await self._config_taken.wait()

    async def _reconfigure(self, chosen: Chosen) -> None:
        assert self.node is not None
        assert self.peers is not None
        lease = self.node.lease
        try:
            node = await self._prepared(chosen, self._discover(chosen), lease, lease, dry_run=False)
        except CannotStart as error:
            self.config.pending = f"{self.config.source} cannot be applied: {error}"
            self._said.say("config", logging.ERROR, self.config.pending)
            await self._replan(self.node)
            return
        self.peers.reconfigure(node, chosen.backend)
        await self._change(node, chosen.backend)

    async def _change(self, node: Node, backend: Backend[Any, Any]) -> None:
        """Tell the peers if they know us otherwise, and plan again."""
        assert self.node is not None
        assert self.backend is not None
        before = self.own.wish(self.backend, self.node.host, self.node.announcement)
        after = self.own.wish(backend, node.host, node.announcement)
        self.backend = backend
        if after != before:
            try:
                await self.own.announce(after)
            except LeaseLost as lost:
                log.warning("%s", lost)  # the task that keeps the lease hears of it too, and decides
            self._announced.set()
        await self._replan(node)

    async def _replan(self, node: Node) -> None:
        """Plan everything again for ``node`` and the lease that we hold now."""
        assert self.reconciler is not None
        assert self.peers is not None
        assert self.backend is not None
        self.node = _with_lease(node, self.own.held)
        objects = self._local_objects(self.backend, self.node)
        self._claim(self.node, objects)
        self.reconciler.want(LOCAL, objects, LOCAL)
        self.peers.replan(self.node)
        self._subnet_file.put_back(self.node)
        await self._want_rules()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.store.unavailable:
                self._said.say("store", logging.WARNING, f"The store does not answer: {self.store.unavailable}")
            else:
                self._said.over("store", "The store answers again")
            if self.peers is not None and self.node is not None:
                self._subnet_file.put_back(self.node)
                self.peers.release_hold()


async def _prepare(backend: Backend[Any, Any], host: Host, previous: Lease | None, dry_run: bool) -> Announcement:
    """The backend's ``prepare``; what it refuses may be cured by another configuration, so it is waited for."""
    try:
        return await backend.prepare(host, previous, dry_run=dry_run)
    except FlannelError as error:
        raise CannotStart(str(error)) from error


def _with_lease(node: Node, lease: Lease) -> Node:
    """``node`` with our lease, whose data is what we announce."""
    announced = node.announcement
    own = msgspec.structs.replace(
        lease,
        ipv4=lease.ipv4 and msgspec.structs.replace(lease.ipv4, data=announced.ipv4_data),
        ipv6=lease.ipv6 and msgspec.structs.replace(lease.ipv6, data=announced.ipv6_data),
    )
    return msgspec.structs.replace(node, lease=own)
