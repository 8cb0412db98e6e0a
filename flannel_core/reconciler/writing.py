"""A pass's writes: stage by stage over all targets, each object with its own outcome."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import msgspec

from ..errors import CannotGoOn
from ..journal import Action, Journal
from ..objects import Identity, Link, Object
from ..ownership import OwnedFile
from ..target import Failure, Put, Target
from .diff import UNWANTED, deviations, is_of_our_making, removals
from .picture import Picture
from .reading import Reader
from .retries import HoldOff, Retries

log = logging.getLogger(__name__)

SHOWN = 10
"""How many objects of one batch the journal and the log name one by one."""
FIGHT = "something else keeps changing it"

Failed = dict[Identity, tuple[Failure, float | None]]
"""What failed in a pass, and when it is tried again: None by backoff, infinity after an event."""


class Home(msgspec.Struct, frozen=True):
    """Where a kind of objects lives, and at which stage of a pass it is written."""

    target: Target
    stage: int


def homes_of(targets: Iterable[Target]) -> dict[object, Home]:
    """By kind. Raises ValueError if two targets hold the same kind."""
    homes: dict[object, Home] = {}
    for target in targets:
        for kind, stage in target.stages.items():
            if kind.kind in homes:
                raise ValueError(
                    f"targets {homes[kind.kind].target.name} and {target.name} both hold {kind.kind} objects"
                )
            homes[kind.kind] = Home(target, stage)
    return homes


class Writer:
    """Makes what exists as the picture wants it. ``writes`` counts the objects put or removed, ``repairs`` those of
    them that something else had changed."""

    def __init__(
        self,
        homes: Mapping[object, Home],
        picture: Picture,
        reader: Reader,
        retries: Retries,
        owned: OwnedFile,
        journal: Journal,
    ) -> None:
        self.writes = 0
        self.repairs = 0
        self.hold_off = HoldOff()
        self._homes = homes
        self._stages = sorted({home.stage for home in homes.values()})
        self._picture = picture
        self._reader = reader
        self._retries = retries
        self._owned = owned
        self._journal = journal

    async def write(self, *, pruning: bool) -> None:
        """Try once all that is dirty: puts, then removals if they are allowed, then what may have been in their way."""
        failed: Failed = {}
        not_removed: Failed = {}
        await self._put(failed)
        if await self._remove(not_removed, pruning) and failed:
            # A device of the same VNI, the holder of an address: what was in the way may be gone now.
            self._picture.touch(failed)
            failed = {}
            await self._put(failed)
        self._conclude(not_removed | failed)
        self._picture.tidy()

    # --- puts ----------------------------------------------------------------------------------------------------

    async def _put(self, failed: Failed) -> None:
        for stage in self._stages:
            for target, puts in self._take(stage, failed).items():
                refused = await self._send(target, puts, ())
                done = [put for put in puts if put.object.identity not in refused]
                self._record_puts(done)
                failed.update({identity: (failure, None) for identity, failure in refused.items()})
                links = {put.object.name: put.object for put in puts if isinstance(put.object, Link)}
                if links:
                    await self._read_back(links, failed)

    def _take(self, stage: int, failed: Failed) -> dict[Target, list[Put]]:
        """What is to be put in this stage; what is as it should be, or has to wait, is settled on the spot."""
        picture, now = self._picture, _now()
        puts: dict[Target, list[Put]] = {}
        missing = cache(lambda device: self._missing_device(device, failed))  # few devices, thousands of objects
        for identity in list(picture.dirty):
            home = self._homes.get(identity[0])
            if home is not None and home.stage != stage:
                continue
            claim = picture.desired.get(identity)
            if claim is None:
                continue
            want, have = claim.object, picture.found(identity)
            if home is None:
                failed[identity] = (Failure(want, f"no target of this agent holds {want.kind} objects"), None)
            elif home.target in self._reader.outages:
                picture.untried.discard(identity)
                self._retries.clear(identity)  # the outage is why it does not stand, and when it is tried again
                continue
            elif have is want or (have is not None and want.satisfied_by(have)):
                picture.settled(identity)
                if isinstance(want, Link):  # others may have made it for us
                    self._try_what_waits_for(frozenset({want.name}))
                self._retries.clear(identity)
            elif not isinstance(want, Link) and (reason := missing(want.on_device)):
                failed[identity] = (Failure(want, reason), math.inf)
            elif identity in picture.lost and (until := self.hold_off.until(identity, now)):
                failed[identity] = (Failure(want, FIGHT), until)
            else:
                puts.setdefault(home.target, []).append(Put(want, have if is_of_our_making(have) else None))
            del picture.dirty[identity]
        return puts

    def _missing_device(self, device: str | None, failed: Failed) -> str | None:
        """Why a device that is wanted is not there; None if it is, or nobody here makes it."""
        identity = (Link.kind, device)
        if self._picture.desired.get(identity) is None or is_of_our_making(self._picture.found(identity)):
            return None
        trouble = self._retries.get(identity)
        failure = failed[identity][0] if identity in failed else trouble.failure if trouble else None
        return f"{device} has to be made first" + (f": {failure.reason}" if failure else "")

    async def _read_back(self, links: Mapping[str, Link], failed: Failed) -> None:
        """A device was made or changed, and may have lost what lay on it: that follows in the stages to come."""
        devices = frozenset(links)
        await self._reader.read_devices(devices, by_us=True)
        self._try_what_waits_for(devices)
        for link in links.values():
            claim = self._picture.desired.get(link.identity)
            if claim is None or claim.object is not link:  # something else is wanted by now
                continue
            self._picture.dirty.pop(link.identity, None)
            have = self._picture.found(link.identity)
            if link.identity in failed or self._target_of(link) in self._reader.outages:
                continue
            if have is None or not link.satisfied_by(have):
                became = deviations(link, have) if have else "it is gone again"
                failed[link.identity] = (Failure(link, f"it was written, but {became}"), None)

    def _try_what_waits_for(self, devices: frozenset[str]) -> None:
        failed = self._retries.on_devices(devices)
        self._picture.touch(identity for identity, item in failed if not isinstance(item, Link))

    def _record_puts(self, puts: Sequence[Put]) -> None:
        picture, now = self._picture, _now()
        told: dict[Action, list[tuple[Object, str, str]]] = {}
        made: Counter[Action] = Counter()
        for put in puts:
            identity = put.object.identity
            claim = picture.desired.get(identity)
            by = picture.lost.get(identity)
            if by is not None:
                self.repairs += 1
                self._journal.tally.repairs[put.object.kind] += 1
                self.hold_off.repaired(identity, now)
            action: Action = "repair" if by is not None else "change" if put.previous is not None else "put"
            made[action] += 1
            if made[action] <= SHOWN:  # words for the others would be made to be thrown away
                cause = picture.desired.cause(claim) if claim else UNWANTED
                told.setdefault(action, []).append((put.object, cause, by or ""))
            picture.wrote(put.object)
            self._retries.clear(identity)
        self.writes += len(puts)
        for action, items in told.items():
            self._report(action, items, made[action])

    # --- removals ------------------------------------------------------------------------------------------------

    async def _remove(self, failed: Failed, pruning: bool) -> bool:
        """True if anything is gone now that was there."""
        picture, now = self._picture, _now()
        unwanted = [identity for identity in picture.dirty if picture.desired.get(identity) is None]
        found = [have for identity in unwanted if (have := picture.found(identity)) is not None]
        doomed = {have.identity: have for have in removals(found, self._owned.owned.devices)} if pruning else {}
        for identity in unwanted:
            del picture.dirty[identity]
            if identity not in doomed:
                self._retries.clear(identity)
        removed = False
        for stage in reversed(self._stages):
            batches: dict[Target, list[Object]] = {}
            for identity, have in doomed.items():
                home = self._homes[have.kind]
                if home.stage != stage or picture.desired.get(identity) is not None:
                    continue
                if home.target in self._reader.outages:
                    picture.touch([identity])
                    self._retries.clear(identity)
                elif until := self.hold_off.until(identity, now):
                    failed[identity] = (Failure(have, FIGHT), until)
                else:
                    batches.setdefault(home.target, []).append(have)
            for target, batch in batches.items():
                refused = await self._send(target, (), batch)
                gone = [have for have in batch if have.identity not in refused]
                failed.update({identity: (failure, None) for identity, failure in refused.items()})
                for have in gone:
                    picture.removed(have)
                    self._retries.clear(have.identity)
                    self.hold_off.repaired(have.identity, now)
                self.writes += len(gone)
                self._report("remove", [(have, UNWANTED, "") for have in gone])
                removed = removed or bool(gone)
        return removed

    # --- outcomes ------------------------------------------------------------------------------------------------

    async def _send(self, target: Target, puts: Sequence[Put], removes: Sequence[Object]) -> dict[Identity, Failure]:
        """Returns what failed."""
        try:
            failures = await target.write(puts, removes)
        except CannotGoOn:
            raise
        except Exception as error:
            self._reader.distrust(target, error)
            reason = self._reader.outages[target].reason
            return {item.identity: Failure(item, reason) for item in (*(put.object for put in puts), *removes)}
        return {failure.object.identity: failure for failure in failures}

    def _conclude(self, failed: Failed) -> None:
        """Remember what failed until it is tried again."""
        now = _now()
        news: list[tuple[Object, str, str]] = []
        for identity, (failure, retry_at) in failed.items():
            self._picture.untried.discard(identity)
            is_news = self._retries.failed(identity, failure, now, retry_at)
            if is_news and retry_at != math.inf:  # what waits for a device is told by the device's own failure
                news.append((failure.object, failure.reason, ""))
        self._report("failed", news)

    def _report(self, action: Action, items: Sequence[tuple[Object, str, str]], total: int | None = None) -> None:
        """Into the journal and the log, the first of many by name. ``items`` may be no more than those of ``total``."""
        level = {"failed": logging.WARNING, "repair": logging.INFO}.get(action, logging.DEBUG)
        for item, cause, by in items[:SHOWN]:
            text = item.describe()
            self._journal.add(action, text, cause, by)
            log.log(level, "%s: %s (%s%s)", action, text, cause, f"; it was {by}" if by else "")
        more = (len(items) if total is None else total) - SHOWN
        if more > 0:
            text = f"{more} more objects"
            self._journal.add(action, text, items[-1][1], count=more)
            log.log(level, "%s: %s", action, text)

    def _target_of(self, item: Object) -> Target:
        return self._homes[item.kind].target


def _now() -> float:
    return asyncio.get_running_loop().time()
