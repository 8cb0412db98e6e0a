"""The store: a host's own lease, all leases, and net-conf.json, in etcd as Go flannel has them."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, ClassVar

import msgspec

from flannel_core.claim import (
    addresses,
    claim,
    described,
    key_of,
    named_subnets,
    overlapping,
    own_leases,
    says_the_same,
)
from flannel_core.errors import FlannelError
from flannel_core.lease import IPNetwork, Lease, Malformed
from flannel_core.store import (
    Alive,
    Capability,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    NoSuchLease,
    Request,
    Snapshot,
    StoreContext,
    StoreError,
    StoreUnavailable,
    SubnetStore,
    Wish,
)

from . import rpc_pb2 as pb
from .client import Client, Closed
from .connection import Credentials
from .endpoints import Tls, parse_endpoints
from .keys import Keys, shown
from .own_records import OwnRecords
from .records import FOREVER, Records
from .renewal_timer import RenewalTimer
from .watch import QUIET_SECONDS, Event, Listing

DEFAULT_TTL = 86_400
"""Seconds: the 24 hours of Go flannel (subnetTTL in pkg/subnet/etcd)."""
TRIES = 100
"""How often another host may be faster before that counts as the store being unavailable."""
AT_ONCE = 32
"""How many times to live are asked for at the same time."""
_UNASKED = math.inf
"""When a lease expires that does expire, as long as it is known of no more. Never leaves this module."""


class EtcdOptions(msgspec.Struct, frozen=True):
    """``--etcd-endpoints`` and so on, with Go flannel's names and defaults."""

    endpoints: Annotated[str, msgspec.Meta(description="the etcd servers' URLs, separated by commas")] = (
        "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )
    prefix: Annotated[
        str, msgspec.Meta(description="the key under which etcd holds the configuration and the leases")
    ] = "/coreos.com/network"
    keyfile: Annotated[str, msgspec.Meta(description="the client's private key for etcd, PEM")] = ""
    certfile: Annotated[str, msgspec.Meta(description="the client's certificate for etcd, PEM")] = ""
    cafile: Annotated[
        str, msgspec.Meta(description="the certificate authority that signed etcd's certificate, PEM")
    ] = ""
    username: Annotated[str, msgspec.Meta(description="the user to authenticate to etcd as")] = ""
    password: Annotated[
        str, msgspec.Meta(description="that user's password. The variable keeps it out of the process list")
    ] = ""
    lease_ttl: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=31_536_000, description="seconds until a lease expires that is not renewed; for labs and tests"
        ),
    ] = DEFAULT_TTL


class EtcdStore(SubnetStore[EtcdOptions]):
    """``created`` and ``revision`` of a lease are etcd's. ``expires`` is known of one's own leases; of others' it is
    None (not asked: that would be a request per lease) except in ``list``."""

    Options = EtcdOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "release", "reserve", "set_config", "expiry"})

    def __init__(self, options: EtcdOptions, context: StoreContext) -> None:
        """Raises StoreError for endpoints that are none, and for a key without a certificate or the reverse."""
        super().__init__(options, context)
        self._keys = Keys(options.prefix)
        self._tls = Tls(options.cafile, options.certfile, options.keyfile)
        self._endpoints = parse_endpoints(options.endpoints, secure=self._tls.given)
        self.location = f"{','.join(sorted(map(str, self._endpoints)))} {self._keys.prefix}"
        self._client = Client(
            self._endpoints, self._keys, Credentials(options.username, options.password), self._tls, self._say
        )
        self._records = Records(self._client, self._keys, options.lease_ttl)
        self._rng = random.Random()
        self._own = OwnRecords(self._records, self._keys)
        self._own_turn = asyncio.Lock()
        """``announce`` and ``keep`` run side by side: what one has written, the other must not take for another's."""

    def _say(self, trouble: str | None) -> None:
        self.unavailable = trouble

    async def open(self) -> None:
        """Raises StoreError for a certificate or key that cannot be read. etcd itself is waited for."""
        if any(endpoint.secure for endpoint in self._endpoints):
            self._tls.check()

    async def close(self) -> None:
        """The iterators end; calls that wait, and later ones, raise StoreUnavailable."""
        await self._client.close()

    # --- net-conf.json ---------------------------------------------------------------------------------------------

    async def config(self) -> AsyncIterator[ConfigText]:
        last = None
        async with aclosing(self._records.follow(self._keys.config)) as records:
            async for record in records:
                text = ConfigText(None if record is None else record.value, shown(self._keys.config))
                if text != last:
                    yield text
                last = text

    async def set_config(self, text: bytes) -> None:
        self._may_write()
        await self._records.put_config(text)

    # --- our own lease ---------------------------------------------------------------------------------------------

    async def previous(self, wish: Wish) -> Lease | None:
        """``expires`` is not asked for."""
        leases, _ = self._entries(await self._records.all())
        own = next(iter(own_leases(leases, wish)), None)
        return own and msgspec.structs.replace(own, expires=None)

    async def acquire(self, request: Request) -> Lease:
        for _ in range(TRIES):
            found = await self._records.all()
            records = self._by_name(found)
            leases, malformed = self._entries(found)
            chosen = claim(request.config, request.wish, leases, malformed, self._rng)
            held = None if chosen.held is None else records[chosen.held.key]
            if request.dry_run or self.context.dry_run:
                return msgspec.structs.replace(chosen.lease, expires=await self._own.expiry(held))
            if (written := await self._own.take(chosen, held, found.position.revision)) is not None:
                return written.lease
        raise StoreUnavailable(f"{self.location}: other hosts were faster, {TRIES} times")

    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        self._may_write()
        known = {endpoint.public_ip for endpoint in lease.endpoints}
        if {wish.public_ipv4, wish.public_ipv6} - {None} - known:
            self._client.start_over()  # this host's address changed: nothing comes back to the old one
        for _ in range(TRIES):
            async with self._own_turn:
                record = await self._records.find(lease.key)
                if (lost := await self._lost(record, lease)) is not None:
                    raise LeaseLost(lost)
                assert record is not None
                told = described(lease.subnets, wish, self._own.last(lease).written.lease)
                stands = self._records.entry(record, await self._own.expiry(record))
                if isinstance(stands, Lease) and says_the_same(stands, told):
                    return stands
                if (written := await self._own.rewrite(record, told)) is not None:
                    return written.lease
        raise StoreUnavailable(f"{self.location}: {lease.key} was changed by others, {TRIES} times")

    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        """``margin_seconds`` counts as at least a tenth and at most half of the time that a lease lasts, and as up to a
        tenth more, so that hosts that started together do not renew together."""
        ttl = self.options.lease_ttl
        margin = min(max(margin_seconds, ttl / 10), ttl / 2) * self._rng.uniform(1, 1.1)
        timer = RenewalTimer(margin)
        key = self._keys.lease(lease.key)
        async with aclosing(self._records.follow(key, min(QUIET_SECONDS, ttl / 10))) as records:
            async for record in records:
                try:
                    async with self._own_turn:
                        if (lost := await self._lost(record, lease)) is not None:
                            return lost
                        assert record is not None
                        if record.lease != timer.etcd_lease:
                            timer.set(record.lease, await self._own.expiry(record))
                        ours = self._own.last(lease)
                        contested = ours.was_touched(record)
                        if timer.is_due() or contested or not ours.said(self._records.entry(record)):
                            await self._renew(record, lease)
                        else:
                            await self._own.learn(record, lease)
                        if contested:
                            self.on_contest()
                except Closed:
                    raise
                except StoreUnavailable:
                    pass  # tried again at the next occasion; ``unavailable`` says why
        raise Closed(f"{self.location}: the store is closed")

    async def contest(self, lease: Lease, seconds: float) -> bool:
        self._may_write()
        touched = None
        while touched is None:
            record = await self._records.find(lease.key)
            if record is None or record.create_revision != lease.created:
                return False
            touched = await self._records.touch(record)
        try:
            async with (
                asyncio.timeout(seconds),
                aclosing(self._records.follow(self._keys.lease(lease.key))) as records,
            ):
                async for record in records:
                    if record is None or record.mod_revision > touched:
                        return record is not None and record.create_revision == lease.created
        except TimeoutError:
            pass
        return False

    async def _renew(self, record: pb.KeyValue, lease: Lease) -> None:
        """If it was changed meanwhile, the watch tells how."""
        written = await self._own.rewrite(record, self._own.last(lease).written.lease)
        if written is not None:
            self.on_renewal(written.lease)

    async def _lost(self, record: pb.KeyValue | None, lease: Lease) -> Lost | None:
        """None as long as ``record`` is ours: of the same creation, and saying what we wrote, or nothing that can be
        read, or what stood there before we wrote."""
        if record is None:
            return Lost(f"{lease.key} is gone from {self.location}: released, or run out", await self._holder(lease))
        entry = self._records.entry(record)
        if record.create_revision != lease.created:
            if isinstance(entry, Malformed):
                return Lost(f"{lease.key} in {self.location} was made anew, and is malformed: {entry.reason}")
            return Lost(f"{lease.key} in {self.location} was made anew, for {addresses(entry)}", entry)
        ours = self._own.last(lease)
        if isinstance(entry, Malformed) or record.mod_revision <= ours.written.lease.revision or ours.said(entry):
            return None
        return Lost(f"{lease.key} in {self.location} was taken over by {addresses(entry)}", entry)

    async def _holder(self, lease: Lease) -> Lease | None:
        leases, _ = self._entries(await self._records.all())
        holder = overlapping(lease.subnets, leases)
        return holder and msgspec.structs.replace(holder, expires=None)

    # --- all leases ------------------------------------------------------------------------------------------------

    async def leases(self) -> AsyncIterator[Snapshot | Change | Alive]:
        async with aclosing(self._records.follow_all()) as steps:
            async for step in steps:
                if isinstance(step, Listing):
                    snapshot = [self._snapshot(step, [self._records.entry(record) for record in step.entries])]
                    del step
                    self._records.started()
                    yield snapshot.pop()
                elif isinstance(step, Event):
                    record = step.entry
                    entry = None if step.deleted else self._records.entry(record)
                    yield Change(self._keys.name(record.key), entry, record.mod_revision)
                else:
                    yield Alive()

    def _snapshot(self, found: Listing, entries: Sequence[Lease | Malformed]) -> Snapshot:
        return Snapshot(
            tuple(entry for entry in entries if isinstance(entry, Lease)),
            tuple(entry for entry in entries if isinstance(entry, Malformed)),
            found.position.revision,
            f"{found.position.cluster:x}",
        )

    def _entries(self, found: Listing) -> tuple[list[Lease], list[Malformed]]:
        """What stands there; a lease that is no reservation has an ``expires``."""
        entries = [
            self._records.entry(record, None if record.lease == FOREVER.id else _UNASKED) for record in found.entries
        ]
        return [e for e in entries if isinstance(e, Lease)], [e for e in entries if isinstance(e, Malformed)]

    def _by_name(self, found: Listing) -> dict[str, pb.KeyValue]:
        return {self._keys.name(record.key): record for record in found.entries}

    # --- for flannelctl and the kit --------------------------------------------------------------------------------

    async def list(self) -> Snapshot:
        """With the time to live of each lease, which is a request for each."""
        found = await self._records.all()
        at_once = asyncio.Semaphore(AT_ONCE)

        async def asked(record: pb.KeyValue) -> Lease | Malformed:
            async with at_once:
                return self._records.entry(record, await self._own.expiry(record))

        return self._snapshot(found, await asyncio.gather(*map(asked, found.entries)))

    async def release(self, subnet: IPNetwork) -> None:
        self._may_write()
        for _ in range(TRIES):
            found = self._by_name(await self._records.all())
            named = [record for name, record in found.items() if subnet in named_subnets(name)]
            if not named:
                raise NoSuchLease(f"{subnet} is leased to nobody in {self.location}")
            if all([await self._records.delete(record) for record in named]):
                return
        raise StoreUnavailable(f"{self.location}: {subnet} was changed by others, {TRIES} times")

    async def give_up(self, lease: Lease) -> bool:
        self._may_write()
        for _ in range(TRIES):
            record = await self._records.find(lease.key)
            if record is None:
                return False
            entry = self._records.entry(record, None if record.lease == FOREVER.id else _UNASKED)
            if not isinstance(entry, Lease) or not entry.continues(lease):
                return False
            if await self._records.delete(record):
                return True
        raise StoreUnavailable(f"{self.location}: {lease.key} was changed by others, {TRIES} times")

    async def reserve(self, lease: Lease) -> Lease:
        """A lease of the same subnet and address becomes a reservation and keeps its data. Raises FlannelError if the
        subnet, or a part of it, is another's."""
        self._may_write()
        key = key_of(lease.subnets)
        for _ in range(TRIES):
            found = await self._records.all()
            leases, malformed = self._entries(found)
            if any(entry.key == key for entry in malformed):
                raise FlannelError(
                    f"{key} cannot be reserved: what {self.location} holds there is malformed; release it first"
                )
            other = overlapping(lease.subnets, leases)
            if other is None:
                wanted = msgspec.structs.replace(lease, key=key)
                written = await self._records.create(wanted, found.position.revision, forever=True)
            elif other.key != key or addresses(other) != addresses(lease):
                raise FlannelError(
                    f"{key} cannot be reserved for {addresses(lease)}: {other.key} is held by {addresses(other)} in "
                    f"{self.location}; release it first"
                )
            elif other.expires is None:
                return other
            else:
                written = await self._records.replace(self._by_name(found)[key], other, forever=True)
            if written is not None:
                return written.lease
        raise StoreUnavailable(f"{self.location}: {key} was changed by others, {TRIES} times")

    def _may_write(self) -> None:
        if self.context.dry_run:
            raise StoreError(f"{self.location}: nothing is written in a dry run")
