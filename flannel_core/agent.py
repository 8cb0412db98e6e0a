"""The agent: the tasks that carry a host's part of the fabric, and the one place where they all meet.

Start: lock -> config -> host -> previous lease -> prepare -> devices -> lease -> this host's objects -> subnet.env ->
peers. From then on one loop per source of change (config, host, store, kernel), each ending in the reconciler.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import signal
import time
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NoReturn

import msgspec

from . import systemd
from .config_watch import Chosen, ConfigWatch
from .errors import EXIT_OK, CannotGoOn, FlannelError
from .flanneld_options import FlanneldOptions
from .host import Host
from .host_discovery import follow
from .journal import Journal
from .klog import StateLog
from .lease import Lease
from .lock import AgentLock
from .membership import Membership
from .memory import give_back
from .netconf import NetworkConfig
from .node_families import CannotStart
from .own_lease import RETRY_SECONDS
from .reconciler.diff import PlannedChange
from .snapshot_file import SnapshotFile
from .store import (
    Alive,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    OutOfSubnets,
    Snapshot,
    StoreUnavailable,
    SubnetNotAssigned,
    SubnetStore,
)
from .task_groups import first_of, unless

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often what nothing notifies is looked at: subnet.env, the store's silence, the hold-off of removals."""
RELEASE_SECONDS = 2.0
"""How long a store may take to take our lease back (--release-lease-on-exit)."""
FIRST_PAUSE_SECONDS = 1.0
"""How long a start waits for the store before it looks for another way, or tries again, for the first time."""
FAMILY_SECONDS = 60.0
"""How often, on average, a family that does not work is tried again."""
MANY_PEERS = 1000
"""From so many on, what their first list took and left is worth giving back to the system."""
WAITED_FOR = (StoreUnavailable, OutOfSubnets, SubnetNotAssigned, CannotStart)
"""What keeps a start waiting."""


class Stop(Exception):
    """Ends the agent in order."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Agent:
    """One host's agent. What is None is not known yet."""

    def __init__(self, options: FlanneldOptions, store_name: str, store: SubnetStore[Any]) -> None:
        self.options = options
        self.store_name = store_name
        self.store = store
        self.directory = options.subnet_file.parent
        self.started = time.time()
        self.journal = Journal(None if options.dry_run else self.directory)
        self.config = ConfigWatch(self.directory, ranges=store_name != "kubernetes")
        self.waiting_for: str | None = "the network configuration"
        self.ready = False
        self._lock = AgentLock(self.directory)
        self.member = Membership(options, store, self._lock, self.journal)
        self._said = StateLog(log)
        self._config_taken = asyncio.Event()
        self._news = asyncio.Event()
        """Set when this host is another than its lease may say."""
        self._changing = asyncio.Lock()
        self._host: Host | None = None
        """As it was found last, whole."""
        self._store_answered: float | None = None
        self.snapshot = SnapshotFile(self.directory)
        self.stale = False
        """The peers are those that an earlier run has heard of."""
        self._told_ready = False

    @property
    def store_silence(self) -> float | None:
        """Seconds since the store's last answer; None if it never answered."""
        return None if self._store_answered is None else time.monotonic() - self._store_answered

    @property
    def ready_now(self) -> bool:
        """What /readyz says: our part stands, and the store has been heard of lately."""
        return self.ready and (self.store_silence or 0.0) <= self.options.store_silence

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
                if self.options.release_lease_on_exit:
                    with suppress(asyncio.CancelledError):  # asked a second time: at once
                        if await self.member.own.give_up(RELEASE_SECONDS):
                            self.snapshot.forget()
            except BaseExceptionGroup as group:
                ending = first_of(group, Stop, FlannelError)
                if not isinstance(ending, Stop):
                    raise ending from None
                return ending.exit_code
            finally:
                await self._close()
        return EXIT_OK

    async def dry_run(self, text: ConfigText | None = None) -> list[PlannedChange]:
        """What a start would do, with the configuration ``text`` in place of the store's; nothing is written anywhere.
        Raises FlannelError where a start would wait or end."""
        await self.store.open()
        try:
            self.config.take(text or await self._configured())
            if self.config.chosen is None:
                raise FlannelError(self.config.error or "there is no network configuration")
            try:
                peers = await self.member.register(self.config.chosen, dry_run=True)
            except WAITED_FOR as error:
                raise FlannelError(str(error)) from error
            async for event in self.store.leases():
                if isinstance(event, Snapshot):
                    peers.snapshot(_with_own(event, self.member.own.held))
                    break
            assert self.member.reconciler is not None
            await self.member.want_rules()
            return await self.member.reconciler.plan()
        finally:
            await self._close()

    async def _configured(self) -> ConfigText:
        async for text in self.store.config():
            return text
        raise StoreUnavailable("the store was closed")

    async def _close(self) -> None:
        if self.member.reconciler is not None:
            await self.member.reconciler.close()
        if self.snapshot.is_behind and not self.options.dry_run:
            self.snapshot.save(self.member.contents())
        self.journal.close()
        await self.store.close()

    # --- joining -------------------------------------------------------------------------------------------------

    async def _follow_config(self) -> None:
        async for text in self.store.config():
            self.config.take(text)
            self._config_taken.set()

    async def _join(self) -> None:
        """Join the fabric, however long that takes, and stay in it."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._config_taken.clear()
            if await self._joined():
                break
            try:
                async with asyncio.timeout(pause):
                    await self._config_taken.wait()
            except TimeoutError:
                pause = RETRY_SECONDS
        assert self.member.reconciler is not None
        log.info("Running backend.")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.member.reconciler.run(), name="reconciler")
            if self.stale:
                tasks.create_task(self._become_ready(), name="ready")
            else:
                self.waiting_for = "the store's list of leases"
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._keep_lease(), name="lease")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._follow_families(), name="families")
            tasks.create_task(self._follow_chosen(), name="chosen")
            tasks.create_task(self.snapshot.follow(self.member.contents), name="snapshot")

    async def _joined(self) -> bool:
        """True once our lease and this host's own objects stand and subnet.env is written."""
        chosen = self.config.chosen
        try:
            if chosen is not None:
                await self.member.join(chosen)
            elif not (self.store.unavailable and await self._joined_as_remembered()):
                self.waiting_for = self.config.error
                return False
        except StoreUnavailable as error:
            if not await self._joined_as_remembered():
                return self._wait_for(str(error))
        except WAITED_FOR as error:
            return self._wait_for(str(error))
        assert self.member.chosen is not None
        self.config.use(self.member.chosen)
        return True

    def _wait_for(self, reason: str) -> bool:
        self.waiting_for = reason
        self._said.say("start", logging.ERROR, f"Waiting: {reason}")
        return False

    async def _joined_as_remembered(self) -> bool:
        """Join as an earlier run did, while the store does not answer. False: nothing that fits is remembered."""
        remembered = self.snapshot.load(self.store.location)
        if remembered is None or remembered.cluster != self.member.own.cluster:
            return False
        if self.config.chosen is None and not self.config.source:
            self.config.take(remembered.config)
        chosen = self.config.chosen
        if chosen is None or not chosen.config.holds(remembered.own.subnets):
            return False
        try:
            await self.member.join(chosen, remembered)
        except CannotStart as error:
            return self._wait_for(str(error))
        self.stale = True
        self._store_answered = time.monotonic() - max(0.0, time.time() - remembered.as_of)
        log.warning(
            "The store does not answer: going on with the lease and the %d peers of %s",
            len(remembered.leases),
            datetime.datetime.fromtimestamp(remembered.as_of).astimezone().isoformat(" ", "minutes"),
        )
        return True

    # --- what keeps changing -------------------------------------------------------------------------------------

    async def _follow_leases(self) -> None:
        assert self.member.peers is not None
        async for event in self.store.leases():
            silence, self._store_answered = self.store_silence, time.monotonic()
            if "expiry" in self.store.capabilities:  # elsewhere no silence, however long, costs anybody a lease
                self.member.peers.heard_again(silence or 0.0)
            match event:
                case Snapshot():
                    self.member.peers.snapshot(event)
                    self.member.own.belongs_to(event.cluster)
                    self.stale = False
                    await self._become_ready()
                    await self._tell_the_store()
                    self.snapshot.note()
                case Change():
                    self.member.peers.change(event)
                    self.snapshot.note()
                case Alive():
                    self.snapshot.still_true()
            del event  # a list of all leases must not live until the next one comes

    async def _become_ready(self) -> None:
        """After the first full list, or with the one remembered: ready once each object was tried; a failing one holds
        nothing up."""
        if self.ready:
            return
        assert self.member.reconciler is not None
        await self.member.reconciler.settle_all()
        self.ready = True
        self.waiting_for = None
        log.info("flannel is ready")
        systemd.notify("READY=1")
        if self.member.peers is not None and len(self.member.peers.admission.admitted) >= MANY_PEERS:
            give_back()

    async def _tell_the_store(self) -> None:
        """Once, that traffic flows."""
        if not self._told_ready:
            await self.store.ready()
            self._told_ready = True

    async def _keep_lease(self) -> NoReturn:
        """The one task that writes our lease. When it is gone, take the same subnet again if it is free, else end as Go
        does."""
        while True:
            self._news.clear()
            lost = await unless(self._news.wait(), self._hold_lease())
            if lost is None:  # this host is another now
                continue
            log.warning("Our lease is gone: %s", lost.reason)
            if lost.holder is not None or not await self.member.own.take_again(self._whole_config, self.member.wish()):
                log.error("Lease has been revoked. Shutting down daemon.")
                raise Stop(EXIT_OK)

    async def _hold_lease(self) -> Lost:
        """Our lease says what this host is, and is renewed; returns when it is gone."""
        member = self.member
        try:
            await member.own.publish(self._whole_config, member.wish())
        except LeaseLost as error:
            return error.lost
        async with self._changing:
            try:
                await member.lease_changed()
            except CannotStart as error:
                self._said.say("host", logging.ERROR, str(error))
        return await member.own.keep(self.options.subnet_lease_renew_margin * 60.0)

    @property
    def _whole_config(self) -> NetworkConfig:
        assert self.member.chosen is not None
        return self.member.chosen.config

    async def _follow_host(self) -> None:
        """A changed address, MTU or interface: tell the peers, plan again, keep the subnet."""
        member = self.member
        assert member.node is not None
        config, self._host = self._whole_config, member.node.host
        async for host in follow(
            member.host_options,
            member.node.host,
            ipv4=config.ipv4 is not None,
            ipv6=config.ipv6 is not None,
            own_devices=member.owned.owned.devices,
        ):
            self._host = host
            await self._move(host)

    async def _move(self, host: Host) -> None:
        async with self._changing:
            try:
                await self.member.moved(host)
            except CannotStart as error:
                self._said.say("host", logging.ERROR, str(error))
            else:
                self._said.over("host")
                self._tell_if_new()

    def _tell_if_new(self) -> None:
        if self.member.has_news:
            self._news.set()

    async def _follow_families(self) -> NoReturn:
        """A family that does not work is tried again; what changes on this host is heard of anyway."""
        while True:
            await asyncio.sleep(FAMILY_SECONDS * random.uniform(0.5, 1.5))
            if self._host is not None and self.member.lacking():
                await self._move(self._host)

    async def _follow_chosen(self) -> NoReturn:
        """Another configuration for what runs: the same subnet, other keys."""
        while True:
            self._config_taken.clear()
            chosen = self.config.chosen
            if chosen is not None and chosen.backend is not self.member.backend:
                async with self._changing:
                    await self._reconfigure(chosen)
            await self._config_taken.wait()

    async def _reconfigure(self, chosen: Chosen) -> None:
        try:
            await self.member.reconfigure(chosen)
            self._tell_if_new()
        except CannotGoOn:
            raise
        except (CannotStart, FlannelError) as error:
            self.config.pending = f"{self.config.source} cannot be applied: {error}"
            self._said.say("config", logging.ERROR, self.config.pending)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.store.unavailable:
                self._said.say("store", logging.WARNING, f"The store does not answer: {self.store.unavailable}")
            else:
                self._said.over("store", "The store answers again")
            self.member.look_after()


def _with_own(snapshot: Snapshot, own: Lease) -> Snapshot:
    """As the store lists it once we have ``own``, which in a dry run may not be written yet."""
    if any(lease.key == own.key for lease in snapshot.leases):
        return snapshot
    return msgspec.structs.replace(snapshot, leases=(*snapshot.leases, own))
