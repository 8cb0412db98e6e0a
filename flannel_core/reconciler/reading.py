"""Keeps the picture of what exists: reads the targets, believes what they tell, and reads again what is in doubt."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Iterable, Sequence

import msgspec

from ..journal import Journal
from ..objects import Identity, Link
from ..ownership import OwnedFile
from ..target import Changed, Scope, Target, Unknown
from .desired import WantedIdentities
from .listening import Listening, News, reason_of
from .picture import Picture
from .retries import Retries, backoff

log = logging.getLogger(__name__)


AT_ONCE = 500
"""Objects that are taken in before the event loop runs again: about 3 ms."""


class Outage(msgspec.Struct, frozen=True):
    """A target that does not answer: why, how often in a row, and when to try again (seconds of the loop's clock)."""

    reason: str
    attempts: int
    retry_at: float


class Reader:
    """Everything that learns from the targets. ``wake`` is set when there is something for a pass to do."""

    def __init__(
        self,
        targets: Sequence[Target],
        owned: OwnedFile,
        picture: Picture,
        retries: Retries,
        journal: Journal,
        rng: random.Random,
        full_read_seconds: float,
    ) -> None:
        self.outages: dict[Target, Outage] = {}
        self.wake = asyncio.Event()
        self.heard = False
        """Something was heard since it was last set to False."""
        self.kinds = {target: tuple(kind.kind for kind in target.stages) for target in targets}
        self._targets = targets
        self._owned = owned
        self._picture = picture
        self._retries = retries
        self._journal = journal
        self._rng = rng
        self._full_read_seconds = full_read_seconds
        self._full_read_at = -math.inf
        self._listening: Listening | None = None
        self._known_ours = Scope()
        self._inbox: dict[Identity, Changed] = {}
        self._unread: set[Target] = set(targets)
        self._unread_devices: frozenset[str] = frozenset()

    @property
    def due(self) -> float:
        """When to read again at the latest, though nothing is heard."""
        return min(self._full_read_at, *(outage.retry_at for outage in self.outages.values()), math.inf)

    async def close(self) -> None:
        if self._listening is not None:
            await self._listening.stop()

    def suspect(self, devices: frozenset[str] | None = None) -> None:
        """Read what is on ``devices``, or everything (None), before the next pass."""
        if devices is None:
            self._unread.update(self._targets)
        else:
            self._unread_devices |= devices
        self.wake.set()

    def scope(self, target: Target, only: frozenset[str] | None = None) -> Scope:
        """What is ours, for ``target``: its ``wanted`` keeps in step by itself."""
        wanted = WantedIdentities(self._picture.desired, self.kinds[target])
        return msgspec.structs.replace(self._ours(), wanted=wanted, only=only)

    def _ours(self) -> Scope:
        """What is on record, and devices that are wanted (a dry run records nothing)."""
        owned = self._owned.owned
        links = (claim.object for claim in self._picture.desired.of_kind(Link.kind).values())
        return Scope(
            devices=owned.devices.union(link.name for link in links if isinstance(link, Link)),
            networks=tuple(sorted(owned.networks)),
            external=owned.external,
            records=owned.records,
        )

    def hear(self, target: Target, news: News) -> None:
        """Keep it for the next pass: one that is under way may be reading or writing the very thing."""
        if isinstance(news, Unknown):
            if news.devices is None:
                self._unread.add(target)
            else:
                self._unread_devices |= news.devices
        else:
            identity = news.identity
            if identity[0] not in self.kinds[target]:
                return
            known = self._inbox.get(identity)
            if known is None and self._picture.is_settled_as(identity, news.object):
                return
            if known is not None and known.object == news.object:
                return  # said twice, as of a neighbour: who did it, only the first time
            claim = self._picture.desired.get(identity)
            if claim is not None and claim.object == news.object:  # the echo of a great write need not be kept twice
                identity, news = claim.identity, Changed(claim.identity, claim.object, news.by)
            self._inbox[identity] = news
        self.heard = True
        self.wake.set()

    def absorb(self) -> None:
        """Believe what was heard, the latest of each object."""
        inbox, self._inbox = self._inbox, {}
        for identity, news in inbox.items():
            if news.object is None and identity in self._retries:
                self._picture.touch([identity])
            self._picture.hear(identity, news.object, news.by)
            if identity[0] == Link.kind:  # what went along with a device is not told in full
                self._unread_devices |= {str(identity[1])}

    async def refresh(self) -> bool:
        """Read what is in doubt. True if that was everything."""
        now = asyncio.get_running_loop().time()
        self._share_scope()
        if self._listening is None:
            self._listening = Listening(self.scope, self.hear, self._rng)
            self._listening.start(self._targets)
        if now >= self._full_read_at:
            self.suspect()
        everything = self._unread.issuperset(self._targets)
        if everything:
            self._full_read_at = now + self._full_read_seconds * self._rng.uniform(0.9, 1.1)
        unread, self._unread = self._unread, set()
        devices, self._unread_devices = self._unread_devices, frozenset()
        for target in self._targets:
            outage = self.outages.get(target)
            if outage is not None:
                if outage.retry_at <= now:
                    await self.read(target)
            elif target in unread:
                await self.read(target)
            elif devices:
                await self.read_devices(devices, [target])
        self._try_again_on(devices, now)
        return everything

    async def read(self, target: Target, devices: frozenset[str] | None = None, *, by_us: bool = False) -> None:
        """Learn what ``target`` has, on ``devices`` or anywhere. ``by_us``: what is other than before was our doing."""
        try:
            lesson = self._picture.learn(self.kinds[target], devices, by_us=by_us)
            for number, actual in enumerate(await target.read(self.scope(target, devices)), 1):
                lesson.take(actual.object, actual.facts)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            lesson.end()
        except Exception as error:
            self.distrust(target, error)
        else:
            self.outages.pop(target, None)

    async def read_devices(
        self, devices: frozenset[str], targets: Iterable[Target] | None = None, *, by_us: bool = False
    ) -> None:
        """Learn what is on ``devices`` now, from those targets that have something there. One that has to be polled
        anyway is read as a whole."""
        for target in targets or self._targets:
            if target not in self.outages and self._picture.on_any(devices, self.kinds[target]):
                await self.read(target, devices if target.poll_seconds is None else None, by_us=by_us)

    def distrust(self, target: Target, error: Exception) -> None:
        """``target`` failed as a whole: nothing is written to it until it could be read again."""
        before = self.outages.get(target)
        reason = reason_of(error)
        attempts = before.attempts + 1 if before else 1
        retry_at = asyncio.get_running_loop().time() + backoff(attempts, self._rng)
        self.outages[target] = Outage(reason, attempts, retry_at)
        if before is None or before.reason != reason:
            log.error("%s: %s", target.name, reason)
            self._journal.add("failed", f"target {target.name}", reason)

    def _share_scope(self) -> None:
        """Tell the running watches what is ours by now; what has become so was not read yet."""
        ours = self._ours()
        if ours == self._known_ours:
            return
        self._known_ours = ours
        for target in self._targets:
            target.scope = self.scope(target)
        self.suspect()
        self._picture.touch_unwanted()

    def _try_again_on(self, devices: frozenset[str], now: float) -> None:
        """Something happened to ``devices``: what failed there may succeed now."""
        for identity, failed in self._retries.on_devices(devices):
            if isinstance(failed, Link):  # which may just have told of our own vain try
                self._retries.hasten(identity, now)
            else:
                self._picture.touch([identity])
