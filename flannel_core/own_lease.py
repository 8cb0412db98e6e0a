"""The lease that this host holds: found again, acquired, announced, kept, remembered."""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from . import remembered_lease, subnet_env
from .backend import Announcement, Backend
from .claim import addresses
from .errors import FlannelError
from .host import Host
from .klog import StateLog
from .lease import FAMILIES, Endpoint, Lease
from .netconf import NetworkConfig
from .remembered_lease import RememberedLease
from .rivals import Rivals
from .store import LeaseLost, Lost, OutOfSubnets, Request, StoreUnavailable, SubnetStore, Wish

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""How long to wait, on average, before a store that does not answer is asked again."""

T = TypeVar("T")


class OwnLease:
    """Our lease in ``store``. ``lease`` is None until it is acquired; its data is raw, as the store has it."""

    def __init__(self, store: SubnetStore[Any], subnet_file: Path) -> None:
        self.lease: Lease | None = None
        self.renewed: float | None = None
        """Unix time at which it was acquired or announced last by this agent."""
        self.rivals = Rivals(store)
        self.cluster = ""
        """Which store it is, by the id in the store's own lists; survives a restart."""
        self._store = store
        self._subnet_file = subnet_file
        self._said = StateLog(log)
        self._published: tuple[object, ...] = ()
        self._confirmed = False
        self._remembered = remembered_lease.load(subnet_file.parent)
        if self._remembered is not None and self._remembered.location == store.location:
            self.cluster = self._remembered.cluster
        else:
            self._remembered = None
        previous, unreadable = subnet_env.read(subnet_file)
        self._previous_subnets = previous.subnets if previous is not None else ()
        self.previous_networks = previous.networks if previous is not None else ()
        """What an earlier flannel of this subnet.env, Go's as well, had for networks: rules of it may be left."""
        if unreadable:
            log.warning("%s; a subnet that it named is not asked for", unreadable)

    @property
    def held(self) -> Lease:
        """The lease, once it is acquired."""
        assert self.lease is not None
        return self.lease

    def wish(self, backend: Backend[Any, Any], host: Host, announcement: Announcement | None = None) -> Wish:
        """What to ask the store for; without ``announcement`` only who asks."""
        return Wish(
            public_ipv4=host.public_ipv4,
            public_ipv6=host.public_ipv6,
            backend_type=backend.published_type,
            ipv4_data=_encoded(announcement.ipv4_data) if announcement else None,
            ipv6_data=_encoded(announcement.ipv6_data) if announcement else None,
            remembered_key=self._remembered.key if self._remembered else None,
            remembered_created=self._remembered.created if self._remembered else 0,
            previous_subnets=self._previous_subnets,
        )

    async def previous(self, backend: Backend[Any, Any], host: Host) -> Lease | None:
        """What this host held before, with the data that fits ``backend``. Raises StoreUnavailable."""
        lease = await self._store.previous(self.wish(backend, host))
        return None if lease is None else _decoded(lease, backend)

    def remembers(self, lease: Lease) -> bool:
        """Whether what lies in the state directory says that it is ours: lease.json, or subnet.env, perhaps Go's."""
        remembered = self._remembered
        if remembered is not None and (lease.key, lease.created) == (remembered.key, remembered.created):
            return True
        return not set(lease.subnets).isdisjoint(self._previous_subnets)

    def known(self, backend: Backend[Any, Any]) -> Lease:
        """The lease as it was published last, with the data that fits ``backend``."""
        return _decoded(self.held, backend)

    async def acquire(self, config: NetworkConfig, wish: Wish, *, dry_run: bool = False) -> Lease:
        """Raises StoreUnavailable, OutOfSubnets, SubnetNotAssigned, StoreError."""
        lease = await self._store.acquire(Request(config, wish, dry_run))
        log.info("Subnet lease: %s, expires %s", ", ".join(map(str, lease.subnets)), _when(lease.expires))
        self._hold(lease, wish, remember=not dry_run)
        return lease

    def assume(self, lease: Lease) -> None:
        """The store does not answer: what it said to an earlier run is taken for true until it does."""
        self.lease = lease
        self._previous_subnets = lease.subnets

    async def publish(self, config: NetworkConfig, wish: Wish) -> None:
        """Tell the store what this host is now, if it knows us otherwise. A family that the lease lacks is added once
        there are an address and a subnet for it. Waits for the store. Raises LeaseLost."""
        if not self._confirmed:
            if not await self.take_again(config, wish):
                raise LeaseLost(Lost("the store gave its subnet to another host while it was away"))
        elif self._could_be_larger(config, wish) and await self._patiently(lambda: self._would_be_larger(config, wish)):
            await self._patiently(lambda: self.acquire(config, wish))
        elif _published(wish) != self._published:
            self._published = ()  # until the store has answered, it may say either
            self._hold(await self._patiently(lambda: self._store.announce(self.held, wish)), wish)
            log.info("Announced anew: %s", ", ".join(str(endpoint.public_ip) for endpoint in self.held.endpoints))

    def has_news(self, config: NetworkConfig, wish: Wish) -> bool:
        """True if ``publish`` may have something to do."""
        return not self._confirmed or _published(wish) != self._published or self._could_be_larger(config, wish)

    def _could_be_larger(self, config: NetworkConfig, wish: Wish) -> bool:
        lacks_one = any(self.held.endpoint(family) is None for family in config.families)
        return lacks_one and wish.public_ipv4 is not None and wish.public_ipv6 is not None

    async def _would_be_larger(self, config: NetworkConfig, wish: Wish) -> bool:
        return len((await self._store.acquire(Request(config, wish, dry_run=True))).subnets) > len(self.held.subnets)

    async def keep(self, margin_seconds: float) -> Lost:
        """Renewed as long as it is ours."""
        self._say_when(margin_seconds)

        def renewed(lease: Lease) -> None:
            self._hold(lease)
            log.info("Lease renewed, new expiration: %s", _when(lease.expires))
            self._say_when(margin_seconds)

        def contested() -> None:
            self.rivals.note()
            log.warning("Another host asked for our lease: it is reached at %s, too", addresses(self.held))

        self._store.on_renewal, self._store.on_contest = renewed, contested
        return await self._store.keep(self.held, margin_seconds)

    def _say_when(self, margin_seconds: float) -> None:
        if self.held.expires is not None:
            wait = max(0.0, self.held.expires - margin_seconds - time.time())
            log.info("Waiting for %s to renew lease", datetime.timedelta(seconds=round(wait)))

    async def take_again(self, config: NetworkConfig, wish: Wish) -> bool:
        """After it was lost: True if the very same subnets are ours again. Waits for the store."""
        before = self.held.subnets
        lease = await self._patiently(lambda: self._store.acquire(Request(config, wish)))
        if not set(before) <= set(lease.subnets):
            return False
        self._hold(lease, wish)
        log.info("Took our subnet again: %s", ", ".join(map(str, before)))
        return True

    async def give_up(self, seconds: float) -> bool:
        """Give the lease back to the store, within ``seconds``; True: it is nobody's now. A reservation stays, and so
        does what is another's by now. What became of it is logged."""
        if self.lease is None:
            return False
        subnets = ", ".join(map(str, self.lease.subnets))
        if self.lease.expires is None:
            log.info("Our lease of %s is a reservation and stays", subnets)
            return False
        try:
            async with asyncio.timeout(seconds):
                ours = await self._store.give_up(self.lease)
        except (StoreUnavailable, FlannelError, TimeoutError) as error:
            reason = str(error) or self._store.unavailable or f"no answer within {seconds:.0f} s"
            until = _when(self.lease.expires)
            log.warning("Our lease of %s was not released, it expires %s: %s", subnets, until, reason)
            return False
        log.info(
            "Released our lease of %s" if ours else "Our lease of %s is gone, or another's, or reserved by now", subnets
        )
        return ours

    def belongs_to(self, cluster: str) -> None:
        """The store's list came from ``cluster``."""
        if cluster != self.cluster:
            self.cluster = cluster
            self._remember()

    def _hold(self, lease: Lease, wish: Wish | None = None, *, remember: bool = True) -> None:
        """``wish`` is what it says; None: what it said before."""
        self.lease = lease
        if wish is not None:
            self._published, self._confirmed = _published(wish), True
        self.renewed = time.time()
        self._previous_subnets = lease.subnets
        if remember:
            self._remember()

    def _remember(self) -> None:
        remembered = RememberedLease(self._store.location, self.cluster, self.held.key, self.held.created)
        if remembered == self._remembered:
            return
        self._remembered = remembered
        directory = self._subnet_file.parent
        try:
            remembered_lease.save(directory, remembered)
        except OSError as error:
            log.warning("%s: our lease cannot be remembered: %s", directory, error.strerror)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """``call`` until the store answers."""
        while True:
            try:
                answer = await call()
            except (StoreUnavailable, OutOfSubnets) as error:
                self._said.say("store", logging.WARNING, f"Waiting: {error}")
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))
            else:
                self._said.over("store", "The store answers again")
                return answer


def _published(wish: Wish) -> tuple[object, ...]:
    """What peers are told."""
    return wish.public_ipv4, wish.public_ipv6, wish.backend_type, wish.ipv4_data, wish.ipv6_data


def _decoded(lease: Lease, backend: Backend[Any, Any]) -> Lease:
    """``lease`` with its data decoded, or without data where it is another backend's."""
    ipv4, ipv6 = (_decoded_endpoint(lease.endpoint(family), backend) for family in FAMILIES)
    return msgspec.structs.replace(lease, ipv4=ipv4, ipv6=ipv6)


def _decoded_endpoint(endpoint: Endpoint | None, backend: Backend[Any, Any]) -> Endpoint | None:
    if endpoint is None or endpoint.data is None or backend.Data is None:
        return endpoint
    try:
        data = msgspec.json.decode(endpoint.data, type=backend.Data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        data = None
    return msgspec.structs.replace(endpoint, data=data)


def _encoded(data: Any) -> bytes | None:
    return None if data is None else msgspec.json.encode(data)


def _when(expires: float | None) -> str:
    if expires is None:
        return "never"
    return datetime.datetime.fromtimestamp(expires).astimezone().isoformat(timespec="seconds")
