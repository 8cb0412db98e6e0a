"""Flannel's keys as leases, and the transactions that write them: compare-and-set, and read back where the answer was
lost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.lease import Lease, Malformed
from flannel_core.lease_json import decode_lease, encode_lease

from . import rpc_pb2 as pb
from .client import Ambiguous, Client
from .connection import Refused
from .keys import Keys
from .rpc import LEASE_GRANT, LEASE_REVOKE, LEASE_TIME_TO_LIVE, PUT, TXN, prefix_end
from .watch import QUIET_SECONDS, Event, Listing, Quiet, listing, watch

MOST_DELETED = 100
"""Operations in one transaction; etcd takes 128 unless told otherwise (--max-txn-ops)."""


class Granted(NamedTuple):
    """An etcd lease, and the Unix time at which it expires."""

    id: int
    expires: float | None


FOREVER = Granted(0, None)
"""What a reservation is attached to."""


class Written(NamedTuple):
    """A lease as it stands in etcd now, and the etcd lease that it is attached to."""

    lease: Lease
    etcd_lease: int


class Records:
    """The records under ``keys``; new leases last ``ttl`` seconds. Every method raises StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys, ttl: int) -> None:
        self._client = client
        self._keys = keys
        self._ttl = ttl
        self._at_start: dict[tuple[bytes, int, int], Lease | Malformed] | None = {}
        """What was decoded already: a start lists everything three times, to find our lease, to take one, to watch."""

    def entry(self, record: pb.KeyValue, expires: float | None = None) -> Lease | Malformed:
        """What ``record`` says."""
        if self._at_start is None:
            return self._decoded(record, expires)
        name = (record.key, record.mod_revision, hash(record.value))
        known = self._at_start.get(name)
        if known is None:
            known = self._at_start[name] = self._decoded(record, None)
        if expires is None or isinstance(known, Malformed):
            return known
        return msgspec.structs.replace(known, expires=expires)

    def started(self) -> None:
        """All was listed for the last time; from now on each change is decoded once anyway."""
        self._at_start = None

    def _decoded(self, record: pb.KeyValue, expires: float | None) -> Lease | Malformed:
        return decode_lease(
            self._keys.name(record.key),
            record.value,
            created=record.create_revision,
            revision=record.mod_revision,
            expires=expires,
        )

    async def all(self) -> Listing:
        return await listing(self._client, self._keys.subnets, self._keys.subnets_end)

    async def find(self, name: str) -> pb.KeyValue | None:
        found = await listing(self._client, self._keys.lease(name))
        return found.entries[0] if found.entries else None

    async def follow(self, key: bytes, quiet: float = QUIET_SECONDS) -> AsyncGenerator[pb.KeyValue | None, None]:
        """The record under ``key``, None where there is none: now, at each change, and every ``quiet`` seconds as long
        as etcd answers. Ends when the client is closed."""
        record: pb.KeyValue | None = None
        async with aclosing(watch(self._client, key, quiet=quiet)) as steps:
            async for step in steps:
                if isinstance(step, Listing):
                    record = step.entries[0] if step.entries else None
                elif isinstance(step, Event):
                    record = None if step.deleted else step.entry
                yield record

    def follow_all(self) -> AsyncGenerator[Listing | Event | Quiet, None]:
        """All records, at first and after each gap, and every change of one. Ends when the client is closed."""
        return watch(self._client, self._keys.subnets, self._keys.subnets_end)

    async def expiry(self, etcd_lease: int) -> float | None:
        """When a record that is attached to ``etcd_lease`` expires (Unix time); None: never."""
        if etcd_lease == FOREVER.id:
            return None
        answer = await self._client.call(LEASE_TIME_TO_LIVE, pb.LeaseTimeToLiveRequest(ID=etcd_lease))
        return time.time() + max(answer.TTL, 0)

    async def create(
        self, lease: Lease, seen: int, given_up: Iterable[Lease] = (), *, forever: bool = False
    ) -> Written | None:
        """A record for ``lease``, and none for ``given_up``. None if another host was faster: list again. ``seen`` is
        the revision of the list in which it was free.

        One that was sent and not answered is made impossible before StoreUnavailable is raised, or, where even that
        cannot be, is found by its public address the next time.
        """
        granted = FOREVER if forever else await self._grant()
        try:
            written = await self._write(lease, granted, self._free(lease, seen), given_up)
        except Ambiguous:
            written = await self._read_back(lease, granted, seen)
        if written is None:
            # Then a transaction that is still under way cannot be done any more, either.
            await self._revoke(granted)
        return written

    async def replace(
        self, held: pb.KeyValue, lease: Lease, given_up: Iterable[Lease] = (), *, forever: bool = False
    ) -> Written | None:
        """``lease`` in place of ``held``, with its key and creation, for a new time to live; a reservation stays one,
        and ``forever`` makes it one. None if something else stands there by now."""
        granted = FOREVER if forever or held.lease == FOREVER.id else await self._grant()
        try:
            written = await self._write(lease, granted, [_unchanged(held.key, held.mod_revision)], given_up)
        except Ambiguous:
            written = await self._read_back(lease, granted, held.mod_revision)
        if written is None:
            await self._revoke(granted)
            return None
        return written._replace(lease=msgspec.structs.replace(written.lease, created=held.create_revision))

    async def touch(self, record: pb.KeyValue) -> int | None:
        """Write ``record`` once more as it stands; the revision of that, None if something else stands there by now."""
        put = pb.PutRequest(key=record.key, value=record.value, lease=record.lease)
        unchanged = _unchanged(record.key, record.mod_revision)
        answer = await self._client.call(
            TXN, pb.TxnRequest(compare=[unchanged], success=[pb.RequestOp(request_put=put)])
        )
        return answer.header.revision if answer.succeeded else None

    async def delete(self, record: pb.KeyValue) -> bool:
        """False if something else stands there by now."""
        unchanged = _unchanged(record.key, record.mod_revision)
        try:
            answer = await self._client.call(TXN, pb.TxnRequest(compare=[unchanged], success=[_deletion(record.key)]))
            return answer.succeeded
        except Ambiguous:
            return False

    async def put_config(self, text: bytes) -> None:
        await self._client.call(PUT, pb.PutRequest(key=self._keys.config, value=text))

    def _free(self, lease: Lease, seen: int) -> list[pb.Compare]:
        """True as long as no other lease has a subnet of ``lease``."""
        key = self._keys.lease(lease.key)
        if lease.ipv4 is None or lease.ipv6 is None:
            # 10.5.43.0-24&fc00::-64 has the subnet of 10.5.43.0-24, too.
            return [_absent(key), _absent(key + b"&", prefix_end(key + b"&"))]
        # A key that differs in one family may have the subnet of the other, so nothing may have been created at all.
        return [
            pb.Compare(
                result=pb.Compare.LESS,
                target=pb.Compare.CREATE,
                create_revision=seen + 1,
                key=self._keys.subnets,
                range_end=self._keys.subnets_end,
            )
        ]

    async def _write(
        self, lease: Lease, granted: Granted, conditions: list[pb.Compare], given_up: Iterable[Lease]
    ) -> Written | None:
        put = pb.PutRequest(key=self._keys.lease(lease.key), value=encoded(lease), lease=granted.id)
        gone = {self._keys.lease(other.key): other.revision for other in list(given_up)[:MOST_DELETED]}
        request = pb.TxnRequest(
            compare=[*conditions, *(_unchanged(key, revision) for key, revision in gone.items())],
            # Watchers hear it in this order: to forget a subnet after having heard of its new lease would be wrong.
            success=[*map(_deletion, gone), pb.RequestOp(request_put=put)],
        )
        answer = await self._client.call(TXN, request)
        if not answer.succeeded:
            return None
        revision = answer.header.revision
        return _written(lease, granted, created=revision, revision=revision)

    async def _read_back(self, lease: Lease, granted: Granted, seen: int) -> Written | None:
        """What became of a write whose answer was lost: it is known by its etcd lease, which nobody else has."""
        record = await self.find(lease.key)
        if (
            record is None
            or record.lease != granted.id
            or record.mod_revision <= seen
            or record.value != encoded(lease)
        ):
            return None
        return _written(lease, granted, created=record.create_revision, revision=record.mod_revision)

    async def _grant(self) -> Granted:
        asked = time.time()
        answer = await self._client.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=self._ttl))
        return Granted(answer.ID, asked + answer.TTL)

    async def _revoke(self, granted: Granted) -> None:
        try:
            if granted.id != FOREVER.id:
                await self._client.call(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=granted.id))
        except Refused:
            pass  # it is gone already


def encoded(lease: Lease) -> bytes:
    """The value of ``lease``. Raises FlannelError for one that no flannel could read back."""
    try:
        return encode_lease(lease)
    except ValueError as error:
        raise FlannelError(f"the lease {lease.key} of this host cannot be written: {error}") from None


def _deletion(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


def _written(lease: Lease, granted: Granted, *, created: int, revision: int) -> Written:
    stands = msgspec.structs.replace(lease, created=created, revision=revision, expires=granted.expires)
    return Written(stands, granted.id)


def _unchanged(key: bytes, revision: int) -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, mod_revision=revision, key=key)


def _absent(key: bytes, end: bytes = b"") -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VERSION, version=0, key=key, range_end=end)
