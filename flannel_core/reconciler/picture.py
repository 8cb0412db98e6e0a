"""What is wanted beside what was last read or heard, and which of it has to be looked at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..objects import Identity, Link, Object
from .desired import Desired


class Picture:
    """``desired`` against ``actual``. Every identity of which the two differ is in ``dirty``, or a try to write it
    failed and it waits for the next.

    An actual object that is exactly the wanted one is kept as that very instance: at 5,000 peers the two take little
    more memory than one.
    """

    def __init__(self, kinds: Iterable[object]) -> None:
        self.desired = Desired()
        self.actual: dict[object, dict[Identity, Object]] = {kind: {} for kind in kinds}
        self.dirty: dict[Identity, None] = {}
        """What a pass looks at, in the order it came up."""
        self.untried: set[Identity] = set()
        """What was wanted since it was last tried to make it so."""
        self.lost: dict[Identity, str] = {}
        """What was as wanted until something else changed it -> who that was, "" if it is not known."""
        self.facts: dict[Identity, Mapping[str, Any]] = {}
        """What the last reading told beside the objects. Few targets do."""

    def found(self, identity: Identity) -> Object | None:
        """What is there, as far as is known."""
        table = self.actual.get(identity[0])
        return table.get(identity) if table else None

    def is_settled_as(self, identity: Identity, now: Object | None) -> bool:
        """True if ``now`` is known to be there and is as wanted, so that nobody is writing it at this moment."""
        claim = self.desired.get(identity)
        if self.found(identity) != now:
            return False
        return claim is None if now is None else claim is not None and claim.object.satisfied_by(now)

    def touch(self, identities: Iterable[Identity]) -> None:
        self.dirty.update(dict.fromkeys(identities))

    def touch_wanted(self) -> None:
        self.touch(claim.identity for claim in self.desired)

    def touch_unwanted(self) -> None:
        self.touch(self.unwanted())

    def unwanted(self) -> list[Identity]:
        """What is there and nobody wants."""
        return [identity for table in self.actual.values() for identity in table if self.desired.get(identity) is None]

    def wanted_anew(self, identities: Iterable[Identity]) -> None:
        """Something else is wanted there than before."""
        for identity in identities:
            self.dirty[identity] = None
            self.lost.pop(identity, None)
            if self.desired.get(identity) is None:
                self.untried.discard(identity)
            else:
                self.untried.add(identity)

    def on_any(self, devices: frozenset[str], kinds: Iterable[object]) -> bool:
        """True if an object of these kinds, wanted or found, lies on one of these devices."""
        return any(have.on_device in devices for kind in kinds for have in self.actual[kind].values()) or any(
            claim.object.on_device in devices for kind in kinds for claim in self.desired.of_kind(kind).values()
        )

    def learn(self, kinds: Iterable[object], devices: frozenset[str] | None, *, by_us: bool = False) -> Lesson:
        """Take in all that there is of these kinds, on these devices (None: anywhere). ``by_us``: what is other than
        before was our own doing."""
        return Lesson(self, tuple(kinds), devices, by_us)

    def hear(self, identity: Identity, now: Object | None, by: str = "", *, by_us: bool = False) -> None:
        """``now`` is there (None: nothing). Costs one lookup if that is known."""
        table = self.actual[identity[0]]
        before = table.get(identity)
        if before == now:
            return
        claim = self.desired.get(identity)
        if claim is not None:
            identity, want = claim.identity, claim.object
            stood = before is not None and want.satisfied_by(before)
            stands = now is not None and want.satisfied_by(now)
            if stood and not stands and not by_us:
                self.lost[identity] = by
            if now == want:
                now = want
        if now is None:
            del table[identity]
            self.facts.pop(identity, None)
        else:
            table[identity] = now
        self.dirty[identity] = None

    def tidy(self) -> None:
        """Give back the room that a great pass took: emptied item by item, dictionaries and sets keep it."""
        if not self.dirty:
            self.dirty = {}
        if not self.untried:
            self.untried = set()
        if not self.lost:
            self.lost = {}

    def settled(self, identity: Identity) -> None:
        """It is as wanted."""
        self.lost.pop(identity, None)
        self.untried.discard(identity)

    def wrote(self, item: Object) -> None:
        """We made ``item`` so."""
        claim = self.desired.get(item.identity)
        identity = claim.identity if claim else item.identity
        self.actual[identity[0]][identity] = item
        self.lost.pop(identity, None)
        if claim is not None and claim.object is item:
            self.untried.discard(identity)

    def removed(self, item: Object) -> None:
        """We took ``item`` away, and with a device all that lies on it."""
        gone = [item.identity]
        if isinstance(item, Link):
            gone += [i for table in self.actual.values() for i, have in table.items() if have.on_device == item.name]
        for identity in gone:
            self.hear(identity, None, by_us=True)


class Lesson:
    """A reading in progress: ``take`` each object, then ``end``. Objects that are as wanted are not kept."""

    def __init__(
        self, picture: Picture, kinds: tuple[object, ...], devices: frozenset[str] | None, by_us: bool
    ) -> None:
        self._picture = picture
        self._kinds = kinds
        self._devices = devices
        self._by_us = by_us
        self._seen: set[Identity] = set()

    def take(self, item: Object, facts: Mapping[str, Any] | None = None) -> None:
        """It is there. Of two with one identity the first counts."""
        identity = item.identity
        claim = self._picture.desired.get(identity)
        if claim is not None:
            identity = claim.identity  # the one instance, so that the set holds no copies
        if identity not in self._seen:
            self._seen.add(identity)
            self._picture.hear(identity, item, by_us=self._by_us)
            if facts is not None:
                self._picture.facts[identity] = facts

    def end(self) -> None:
        """Nothing else is there."""
        for kind in self._kinds:
            gone = [
                identity
                for identity, have in self._picture.actual[kind].items()
                if identity not in self._seen and (self._devices is None or have.on_device in self._devices)
            ]
            for identity in gone:
                self._picture.hear(identity, None, by_us=self._by_us)
