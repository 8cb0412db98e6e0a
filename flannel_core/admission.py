"""Which leases are trusted as peers, and why one is not. Pure, incremental, and independent of the order of events.

A lease is judged family by family. By itself first (``peer_rules``); then against the others: where two overlap or
claim one identity, the older holds it. A claim is therefore admitted if and only if no older admitted claim clashes
with it, which is settled from the oldest to the youngest and, after a change, for the younger neighbours of whatever
changed only. Our own lease counts as the oldest of all and is no peer.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

import msgspec

from .backend import Backend
from .lease import FAMILIES, Endpoint, Family, IPAddress, IPNetwork, Lease, Malformed
from .multimap import Multimap
from .netconf import NetworkConfig
from .peer_rules import PeerRules, Refusal
from .prefix_map import PrefixMap
from .printable import printable


class Refused(msgspec.Struct, frozen=True):
    """A lease, or one family of it, that is not trusted. All text is safe to print.

    ``subnets`` are those that are refused (none for an entry that is no lease), ``reason`` is one line.
    """

    key: str
    subnets: tuple[str, ...]
    reason: str


class Delta(msgspec.Struct, frozen=True):
    """What a change did, by key. ``admitted`` and ``refused``: new or other than before; ``withdrawn``: not admitted
    any more. A key whose families fare differently can be in ``admitted`` and ``refused`` at once."""

    admitted: dict[str, Lease]
    withdrawn: frozenset[str]
    refused: dict[str, Refused]


class Admission:
    """The state of all leases but our own under one configuration and backend.

    ``admitted`` holds the trusted ones, with the families that are trusted and their data as the backend's Data;
    ``refused`` the others, and the entries that are no lease. Both are by key, and for reading only.
    """

    def __init__(self, config: NetworkConfig, backend: Backend[Any, Any], own: Lease | None = None) -> None:
        self.admitted: dict[str, Lease] = {}
        self.refused: dict[str, Refused] = {}
        self._rules = PeerRules(config, backend)
        self._entries: dict[str, Lease | Malformed] = {}
        self._faults: dict[str, dict[Family, str]] = {}
        """Why a family of a lease is refused by itself."""
        self._claims: dict[str, tuple[_Claim, ...]] = {}
        """What is judged against the others, IPv4 first."""
        self._claimants = _Index()
        self._holders: Multimap[object, _Claim] = Multimap()
        """Identity -> the admitted claim. Of any number of claimants of one identity a decision then looks at one."""
        self._queue = _Queue()
        self._dirty: set[str] = set()
        self._own: Lease | None = None
        self._own_claims: list[_Claim] = []
        self._own_addresses: frozenset[IPAddress] = frozenset()
        self.set_own(own)

    @property
    def entries(self) -> list[Lease | Malformed]:
        """All entries as the store has them, our own among them."""
        return list(self._entries.values())

    def replace(self, leases: Iterable[Lease], malformed: Iterable[Malformed] = ()) -> Delta:
        """These are all entries that there are, as in a store's Snapshot."""
        entries: dict[str, Lease | Malformed] = {entry.key: entry for entry in malformed}
        entries.update((lease.key, lease) for lease in leases)
        for key in self._entries.keys() - entries.keys():
            self._enter(key, None)
        for key, entry in entries.items():
            self._enter(key, entry)
        return self._settle()

    def update(self, key: str, entry: Lease | Malformed | None) -> Delta:
        """The entry ``key`` is now this one, or gone."""
        self._enter(key, entry)
        return self._settle()

    def set_own(self, lease: Lease | None) -> Delta:
        """Our own lease, its data raw or decoded. None: we have none (yet)."""
        before, self._own = self._own, lease
        addresses = frozenset(e.public_ip for e in lease.endpoints) if lease is not None else frozenset()
        moved, self._own_addresses = addresses ^ self._own_addresses, addresses
        for claim in self._own_claims:
            self._retract(claim)
        self._own_claims = [] if lease is None else self._claims_of_own(lease)
        for claim in self._own_claims:
            self._stake(claim)
        for key in {owner.key for owner in (before, lease) if owner is not None}:
            self._review(key)  # a peer no longer, or a peer again
        if moved:
            for claims in self._claims.values():
                self._queue.extend(claim for claim in claims if claim.endpoint.public_ip in moved)
        return self._settle()

    def _claims_of_own(self, lease: Lease) -> list[_Claim]:
        return [
            _Claim(lease, family, self._rules.own_identities(lease, family), own=True)
            for family in FAMILIES
            if lease.endpoint(family) is not None
        ]

    def _enter(self, key: str, entry: Lease | Malformed | None) -> None:
        if entry == self._entries.get(key):
            return
        if entry is None:
            del self._entries[key]
        else:
            self._entries[key] = entry
        self._review(key)

    def _review(self, key: str) -> None:
        """Judge an entry by itself; its claims stand in place of the ones that it had."""
        self._dirty.add(key)
        entry = self._entries.get(key)
        faults: dict[Family, str] = {}
        claims: dict[Family, _Claim] = {}
        if isinstance(entry, Lease) and not self._is_own(key):
            self._judge(entry, faults, claims)
        before = {claim.family: claim for claim in self._claims.pop(key, ())}
        for family in FAMILIES:
            was, becomes = before.get(family), claims.get(family)
            if was is not None and becomes is not None and was.equals(becomes):
                was.lease, claims[family] = becomes.lease, was  # renewed, or something that clashes with nobody
                self._queue.push(was)
                continue
            if was is not None:
                self._retract(was)
            if becomes is not None:
                self._stake(becomes)
        self._faults.pop(key, None)
        if faults:
            self._faults[key] = faults
        if claims:
            self._claims[key] = tuple(claims[family] for family in FAMILIES if family in claims)

    def _judge(self, lease: Lease, faults: dict[Family, str], claims: dict[Family, _Claim]) -> None:
        try:
            families = self._rules.families(lease)
        except Refusal as refusal:
            faults.update({family: str(refusal) for family in FAMILIES if lease.endpoint(family) is not None})
            return
        for family in families:
            try:
                only, identities = self._rules.judge(lease, family)
            except Refusal as refusal:
                faults[family] = str(refusal)
            else:
                claims[family] = _Claim(only, family, identities)

    def _is_own(self, key: str) -> bool:
        return self._own is not None and self._own.key == key

    def _stake(self, claim: _Claim) -> None:
        self._claimants.add(claim)
        self._queue.push(claim)

    def _retract(self, claim: _Claim) -> None:
        self._claimants.remove(claim)
        self._queue.drop(claim)
        if claim.admitted:
            self._hold(claim, False)
            self._queue.extend(self._younger(claim))

    def _hold(self, claim: _Claim, admitted: bool) -> None:
        claim.admitted = admitted
        for identity in claim.identities:
            (self._holders.add if admitted else self._holders.remove)(identity, claim)

    def _younger(self, claim: _Claim) -> list[_Claim]:
        return [other for other in self._claimants.clashing(claim) if other.age > claim.age]

    def _settle(self) -> Delta:
        """Decide what waits, the oldest first: whatever a decision unsettles is younger, and so still to come."""
        while (claim := self._queue.pop()) is not None:
            refusal = self._refusal(claim)
            if refusal != claim.refusal:
                self._dirty.add(claim.key)
            claim.refusal = refusal
            if claim.admitted != (refusal is None):
                self._hold(claim, refusal is None)
                self._dirty.add(claim.key)
                self._queue.extend(self._younger(claim))
        return self._delta()

    def _refusal(self, claim: _Claim) -> str | None:
        if not claim.own and claim.endpoint.public_ip in self._own_addresses:
            return f"its public address {claim.endpoint.public_ip} is our own"
        rivals = [other for other in self._claimants.overlapping(claim) if other.admitted]
        for identity in claim.identities:
            rivals += self._holders.get(identity)
        older = [other for other in rivals if other.key != claim.key and other.age < claim.age]
        return claim.clash(min(older, key=lambda other: other.age)) if older else None

    def _delta(self) -> Delta:
        admitted: dict[str, Lease] = {}
        withdrawn = set()
        refused: dict[str, Refused] = {}
        for key in self._dirty:
            lease, refusal = self._outcome(key)
            if lease is None:
                if self.admitted.pop(key, None) is not None:
                    withdrawn.add(key)
            elif lease != self.admitted.get(key):
                self.admitted[key] = admitted[key] = lease
            if refusal is None:
                self.refused.pop(key, None)
            elif refusal != self.refused.get(key):
                self.refused[key] = refused[key] = refusal
        self._dirty.clear()
        return Delta(admitted, frozenset(withdrawn), refused)

    def _outcome(self, key: str) -> tuple[Lease | None, Refused | None]:
        entry = self._entries.get(key)
        if entry is None or self._is_own(key):
            return None, None
        if isinstance(entry, Malformed):
            return None, Refused(printable(key, 120), (), entry.reason)
        claims = self._claims.get(key, ())
        bad = {**self._faults.get(key, {}), **{c.family: c.refusal for c in claims if c.refusal is not None}}
        good = [claim.lease for claim in claims if claim.admitted]
        lease = good[0] if good else None
        if len(good) == 2:
            lease = msgspec.structs.replace(good[0], ipv6=good[1].ipv6)
        if not bad:
            return lease, None
        reasons = {f"IPv{family}: {bad[family]}": None for family in sorted(bad)}
        if lease is None and len(set(bad.values())) == 1:
            reasons = dict.fromkeys(bad.values())
        subnets = tuple(str(e.subnet) for e in entry.endpoints if e.subnet.version in bad)
        return lease, Refused(printable(key, 120), subnets, "; ".join(reasons))


_Age = tuple[int, int, str, int]


class _Claim:
    """One family of a lease, as it stands against all others. There is one per peer and family: kept small."""

    __slots__ = ("admitted", "family", "identities", "lease", "own", "refusal")

    def __init__(self, lease: Lease, family: Family, identities: tuple[object, ...], own: bool = False) -> None:
        self.lease = lease
        self.family = family
        self.identities = identities
        self.own = own
        self.admitted = False
        self.refusal: str | None = None

    @property
    def age(self) -> _Age:
        """Smaller is older; no two claims have the same."""
        return (0 if self.own else 1, self.lease.created, self.lease.key, self.family)

    @property
    def key(self) -> str:
        return self.lease.key

    @property
    def endpoint(self) -> Endpoint:
        endpoint = self.lease.endpoint(self.family)
        assert endpoint is not None
        return endpoint

    @property
    def subnet(self) -> IPNetwork:
        return self.endpoint.subnet

    def equals(self, other: _Claim) -> bool:
        return self.age == other.age and self.subnet == other.subnet and self.identities == other.identities

    def clash(self, holder: _Claim) -> str:
        """Why this claim is refused for the sake of an older one."""
        whose = "our own" if holder.own else f"that of '{printable(holder.key)}', which is older"
        if holder.family == self.family and holder.subnet.overlaps(self.subnet):
            return f"its subnet {self.subnet} overlaps {holder.subnet}, {whose}"
        shared = min(printable(_words(identity)) for identity in self.identities if identity in holder.identities)
        return f"its {shared} is {whose}"


def _words(identity: object) -> str:
    return " ".join(map(str, identity)) if isinstance(identity, tuple) else str(identity)


class _Index:
    """Claims by what they claim."""

    def __init__(self) -> None:
        self._subnets: dict[Family, PrefixMap[_Claim]] = {family: PrefixMap() for family in FAMILIES}
        self._identities: Multimap[object, _Claim] = Multimap()

    def add(self, claim: _Claim) -> None:
        self._subnets[claim.family].add(claim.subnet, claim)
        for identity in claim.identities:
            self._identities.add(identity, claim)

    def remove(self, claim: _Claim) -> None:
        self._subnets[claim.family].remove(claim.subnet, claim)
        for identity in claim.identities:
            self._identities.remove(identity, claim)

    def overlapping(self, claim: _Claim) -> Iterable[_Claim]:
        """The claims whose subnet overlaps that of ``claim``, itself among them."""
        return self._subnets[claim.family].overlapping(claim.subnet)

    def clashing(self, claim: _Claim) -> list[_Claim]:
        """The claims of other leases that overlap ``claim`` or share an identity with it, some of them repeatedly."""
        found = [*self.overlapping(claim)]
        for identity in claim.identities:
            found += self._identities.get(identity)
        return [other for other in found if other.key != claim.key]


class _Queue:
    """Claims to decide, each once, the oldest first."""

    def __init__(self) -> None:
        self._ages: list[_Age] = []
        self._claims: dict[_Age, _Claim] = {}

    def push(self, claim: _Claim) -> None:
        age = claim.age
        if age not in self._claims:
            heappush(self._ages, age)
        self._claims[age] = claim

    def extend(self, claims: Iterable[_Claim]) -> None:
        for claim in claims:
            self.push(claim)

    def drop(self, claim: _Claim) -> None:
        self._claims.pop(claim.age, None)

    def pop(self) -> _Claim | None:
        while self._ages:
            claim = self._claims.pop(heappop(self._ages), None)
            if claim is not None:
                return claim
        return None
