"""A store in memory: compare-and-set, a list and a watch for each host, backups, outages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import msgspec

from flannel_core.claim import claim, own_leases
from flannel_core.lease import Lease, Malformed
from flannel_core.lease_json import decode_lease
from flannel_core.netconf import NetworkConfig
from flannel_core.store import Change, Snapshot, StoreUnavailable, Wish

Event = Change | Snapshot


class SimulatedStore:
    """All that hosts share. ``away``: the hosts, by name, that it does not answer."""

    def __init__(self, config: NetworkConfig, rng: random.Random) -> None:
        self.config = config
        self.away: set[str] = set()
        self.entries: dict[str, Lease | Malformed] = {}
        self._rng = rng
        self._revision = 0
        self._watches: dict[str, asyncio.Queue[Event]] = {}
        self._backup: tuple[int, Mapping[str, Lease | Malformed]] | None = None

    def leases(self) -> list[Lease]:
        return [entry for entry in self.entries.values() if isinstance(entry, Lease)]

    def malformed(self) -> list[Malformed]:
        return [entry for entry in self.entries.values() if isinstance(entry, Malformed)]

    # --- what agents do ------------------------------------------------------------------------------------------

    def previous(self, host: str, wish: Wish) -> Lease | None:
        self._answer(host)
        return next(iter(own_leases(self.leases(), wish)), None)

    def acquire(self, host: str, wish: Wish) -> Lease:
        """Raises StoreUnavailable, OutOfSubnets."""
        self._answer(host)
        claimed = claim(self.config, wish, self.leases(), self.malformed(), self._rng)
        for lease in claimed.given_up:
            self.delete(lease.key)
        return self._save(claimed.lease, claimed.held)

    def announce(self, host: str, lease: Lease) -> Lease | None:
        """None: it is ours no more."""
        self._answer(host)
        held = self.entries.get(lease.key)
        if not isinstance(held, Lease) or held.created != lease.created:
            return None
        return self._save(lease, held)

    def watch(self, host: str) -> asyncio.Queue[Event]:
        """A Snapshot first."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._watches[host] = queue
        queue.put_nowait(self._snapshot())
        return queue

    def _answer(self, host: str) -> None:
        if host in self.away:
            raise StoreUnavailable("simulated outage")

    # --- what others do ------------------------------------------------------------------------------------------

    def put(self, key: str, value: bytes) -> None:
        """Write an entry as any program may."""
        self._revision += 1
        held = self.entries.get(key)
        created = held.created if isinstance(held, Lease) else self._revision
        entry = decode_lease(key, value, created=created, revision=self._revision, expires=2.0e9)
        self._set(key, entry)

    def delete(self, key: str) -> None:
        if key in self.entries:
            self._revision += 1
            self._set(key, None)

    def back_up(self) -> None:
        self._backup = (self._revision, dict(self.entries))

    def restore(self) -> bool:
        """False if there is no backup. Every watch begins anew, with a revision gone back."""
        if self._backup is None:
            return False
        self._revision, entries = self._backup
        self.entries = dict(entries)
        self.compact()
        return True

    def compact(self) -> None:
        """What a watch has missed is no longer told: each is given the whole list."""
        for host, queue in self._watches.items():
            if host not in self.away:
                queue.put_nowait(self._snapshot())

    def return_to(self, host: str) -> None:
        """The store answers this host again, with the whole list."""
        self.away.discard(host)
        if (queue := self._watches.get(host)) is not None:
            queue.put_nowait(self._snapshot())

    def _save(self, lease: Lease, held: Lease | None) -> Lease:
        self._revision += 1
        created = held.created if held is not None else self._revision
        saved = msgspec.structs.replace(lease, created=created, revision=self._revision, expires=2.0e9)
        self._set(saved.key, saved)
        return saved

    def _set(self, key: str, entry: Lease | Malformed | None) -> None:
        if entry is None:
            del self.entries[key]
        else:
            self.entries[key] = entry
        for host, queue in self._watches.items():
            if host not in self.away:
                queue.put_nowait(Change(key, entry, self._revision))

    def _snapshot(self) -> Snapshot:
        return Snapshot(tuple(self.leases()), tuple(self.malformed()), self._revision, "simulated")
