"""What this host has written itself, and is to find again: under each of its keys the record as it wrote it last."""

from __future__ import annotations

import msgspec

from flannel_core.claim import Claim, says_the_same
from flannel_core.lease import Lease, Malformed

from . import rpc_pb2 as pb
from .keys import Keys
from .records import FOREVER, Records, Written


class Ours(msgspec.Struct):
    """What this host wrote last under a key, and what it has sent since without having heard what became of it."""

    written: Written
    sent: Lease | None = None

    def said(self, entry: Lease | Malformed) -> bool:
        """Whether ``entry`` says what this host wrote, or may have written."""
        said = (self.written.lease, self.sent)
        return isinstance(entry, Lease) and any(each is not None and says_the_same(entry, each) for each in said)

    def was_touched(self, record: pb.KeyValue) -> bool:
        """Another host has written our record as it stood: a renewal, or an operator, would change its etcd lease."""
        return (
            self.sent is None
            and record.mod_revision > self.written.lease.revision
            and record.lease == self.written.etcd_lease
        )


class OwnRecords:
    """Among ``records``, those of this host. Every method that waits raises StoreUnavailable."""

    def __init__(self, records: Records, keys: Keys) -> None:
        self._records = records
        self._keys = keys
        self._ours: dict[str, Ours] = {}

    def last(self, lease: Lease) -> Ours:
        """``lease`` as this host wrote it last."""
        ours = self._ours.get(lease.key)
        if ours is None or ours.written.lease.created != lease.created or ours.written.lease.revision < lease.revision:
            return Ours(Written(lease, -1))
        return ours

    async def expiry(self, record: pb.KeyValue | None) -> float | None:
        """When it expires (Unix time), without a question if this host has written it."""
        if record is None:
            return None
        ours = self._ours.get(self._keys.name(record.key))
        if ours is not None and ours.written.etcd_lease == record.lease:
            return ours.written.lease.expires
        return await self._records.expiry(record.lease)

    async def take(self, chosen: Claim, held: pb.KeyValue | None, seen: int) -> Written | None:
        """What ``chosen`` says is written. None: the records have changed since revision ``seen``."""
        lease = chosen.lease
        if held is None:
            written = await self._records.create(lease, seen, chosen.given_up)
        elif chosen.held is not None and held.lease == FOREVER.id and says_the_same(chosen.held, lease):
            written = Written(chosen.held, FOREVER.id)
        else:
            written = await self._records.replace(held, lease, chosen.given_up)
        if written is not None:
            self._ours[lease.key] = Ours(written)
        return written

    async def rewrite(self, record: pb.KeyValue, told: Lease) -> Written | None:
        """``told`` in place of ``record``. None: something else stands there by now."""
        ours = self._ours[told.key] = msgspec.structs.replace(self.last(told), sent=told)
        written = await self._records.replace(record, told)
        if written is not None:
            self._ours[told.key] = Ours(written)
        else:
            ours.sent = None
        return written

    async def learn(self, record: pb.KeyValue, lease: Lease) -> None:
        """Somebody has changed no more than how long our record lasts: an operator, for a reservation."""
        ours = self.last(lease)
        if ours.sent is None and record.mod_revision > ours.written.lease.revision:
            stands = self._records.entry(record, await self.expiry(record))
            if isinstance(stands, Lease):
                self._ours[lease.key] = Ours(Written(stands, record.lease))
