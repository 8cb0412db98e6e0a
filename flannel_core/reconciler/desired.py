"""Who wants what: objects by identity, with the owners that claim them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

import msgspec

from ..objects import Identity, Object
from ..target import Failure


class Claim(msgspec.Struct, gc=False):
    """An object that is wanted. ``owner`` was the first to want it and decides how it is; ``others`` (None: nobody)
    want the same identity, in this order, each with its own idea of it. ``identity`` is the one instance kept in
    memory."""

    identity: Identity
    object: Object
    owner: str
    others: dict[str, Object] | None = None


class _Owner(msgspec.Struct, gc=False):
    cause: object
    identities: tuple[Identity, ...]


class Desired:
    """Everything that is wanted. What an owner wants is replaced as a whole, at the price of that owner's objects."""

    def __init__(self) -> None:
        self._claims: dict[object, dict[Identity, Claim]] = {}
        self._owners: dict[str, _Owner] = {}

    def get(self, identity: Identity) -> Claim | None:
        claims = self._claims.get(identity[0])
        return claims.get(identity) if claims else None

    def of_kind(self, kind: object) -> dict[Identity, Claim]:
        """The claims of one kind of objects, in the order they were first made. Not to be changed."""
        return self._claims.get(kind, {})

    def __iter__(self) -> Iterator[Claim]:
        for claims in self._claims.values():
            yield from claims.values()

    def owners(self) -> list[str]:
        return list(self._owners)

    def identities(self, owner: str) -> tuple[Identity, ...]:
        """What ``owner`` wants; empty for one that wants nothing."""
        held = self._owners.get(owner)
        return held.identities if held else ()

    def cause(self, claim: Claim) -> str:
        """Why it is wanted, in its first owner's words."""
        return str(self._owners[claim.owner].cause)

    def replace(self, owner: str, objects: Iterable[Object], cause: object) -> list[Identity]:
        """``owner`` wants exactly ``objects`` from now on; of two with one identity, the first. Returns the identities
        of which something else is wanted than before."""
        wanted: dict[Identity, Object] = {}
        for item in objects:
            wanted.setdefault(item.identity, item)
        before = self.identities(owner)
        changed = [identity for identity in before if identity not in wanted and self._release(owner, identity)]
        kept = []
        for identity, item in wanted.items():
            claim, is_news = self._claim(owner, identity, item)
            kept.append(claim.identity)
            if is_news:
                changed.append(claim.identity)
        self._owners[owner] = _Owner(cause, tuple(kept))
        return changed

    def remove(self, owner: str) -> list[Identity]:
        """``owner`` wants nothing any more. Returns what ``replace`` returns."""
        changed = [identity for identity in self.identities(owner) if self._release(owner, identity)]
        self._owners.pop(owner, None)
        return changed

    def contested(self, owner: str) -> list[Failure]:
        """The objects that ``owner`` wants otherwise than somebody who came first."""
        claims = (self.get(identity) for identity in self.identities(owner))
        return [failure for claim in claims if claim for name, failure in _losers(claim) if name == owner]

    def all_contested(self) -> list[Failure]:
        return [failure for claim in self if claim.others for _, failure in _losers(claim)]

    def _claim(self, owner: str, identity: Identity, item: Object) -> tuple[Claim, bool]:
        claims = self._claims.setdefault(identity[0], {})
        claim = claims.get(identity)
        if claim is None:
            claims[identity] = claim = Claim(identity, item, owner)
            return claim, True
        if claim.owner != owner:
            claim.others = claim.others or {}
            claim.others[owner] = item
            return claim, False
        if claim.object == item:
            return claim, False
        claim.object = item
        return claim, True

    def _release(self, owner: str, identity: Identity) -> bool:
        claim = self._claims[identity[0]][identity]
        if claim.owner != owner:
            assert claim.others is not None
            del claim.others[owner]
            return False
        if not claim.others:
            del self._claims[identity[0]][identity]
            return True
        claim.owner = next(iter(claim.others))
        item = claim.others.pop(claim.owner)
        if item == claim.object:
            return False
        claim.object = item
        return True


def _losers(claim: Claim) -> Iterator[tuple[str, Failure]]:
    for name, item in (claim.others or {}).items():
        if item != claim.object:
            yield name, Failure(item, f"{claim.owner} was first and wants {claim.object.describe()}")


class WantedIdentities(AbstractSet[Identity]):
    """The identities of some kinds that are wanted: always as they are now, and no copy of them."""

    def __init__(self, desired: Desired, kinds: Iterable[object]) -> None:
        self._desired = desired
        self._kinds = tuple(kinds)

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, tuple) and identity[0] in self._kinds and self._desired.get(identity) is not None

    def __iter__(self) -> Iterator[Identity]:
        return chain.from_iterable(self._desired.of_kind(kind) for kind in self._kinds)

    def __len__(self) -> int:
        return sum(len(self._desired.of_kind(kind)) for kind in self._kinds)
