"""Keeps what exists as what is wanted: reads, writes the difference, and hears what changes.

A start, a crash, a missed event, an operator's ``ip route flush`` and a changed config are one case here: a pass over
what differs. Backends say what they want through :meth:`Reconciler.want`; nothing else ever writes.

``Picture`` holds what is wanted and what is known to exist, ``Reader`` keeps the latter true, ``Writer`` makes it the
former.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from ..errors import FlannelError
from ..journal import Journal
from ..objects import Identity, Object
from ..ownership import OwnedFile
from ..target import Failure, Target
from .diff import PlannedChange as PlannedChange
from .diff import plan
from .listening import reason_of
from .picture import Picture
from .reading import Reader
from .retries import Retries
from .writing import Writer, homes_of

log = logging.getLogger(__name__)

FULL_READ_SECONDS = 60.0
"""How often everything is read again although nothing was heard; a tenth more or less by chance."""
BURST_SECONDS = 0.003
"""How long a pass waits once something was heard, unless something new is wanted: what belongs together is heard within
it."""


class OwnerState(msgspec.Struct, frozen=True):
    """``tried``: each object of the owner was tried at least once since it is wanted. ``failures``: what of it does not
    stand, and why. ``facts``: what the targets tell beside the objects (handshake age, bytes), for the status."""

    tried: bool
    failures: tuple[Failure, ...] = ()
    facts: Mapping[str, Any] = {}


class Reconciler:
    """One per agent, used from one event loop.

    Nothing is removed as long as ``pruning`` is False, and no device that is not on record in ``owned``. What comes to
    be made has to be on record before it is wanted.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        owned: OwnedFile,
        journal: Journal,
        *,
        rng: random.Random | None = None,
        full_read_seconds: float = FULL_READ_SECONDS,
        on_swept: Callable[[], None] | None = None,
    ) -> None:
        """``on_swept`` is called whenever nothing of an earlier run is left at the targets, in place of having the
        record of that run forgotten."""
        rng = rng or random.Random()
        self.journal = journal
        self._targets = tuple(targets)
        self._owned = owned
        self._homes = homes_of(self._targets)
        self._picture = Picture(self._homes)
        self._retries = Retries(rng)
        self._reader = Reader(self._targets, owned, self._picture, self._retries, journal, rng, full_read_seconds)
        self._writer = Writer(self._homes, self._picture, self._reader, self._retries, owned, journal)
        self.swept = False
        """The last full reading found nothing that is ours and unwanted."""
        self._on_swept = on_swept or self._forget_earlier_runs
        self._pruning = False
        self._lock = asyncio.Lock()
        self._new_wish = asyncio.Event()

    @property
    def writes(self) -> int:
        """The objects put or removed since the start."""
        return self._writer.writes

    @property
    def repairs(self) -> int:
        """The objects put back, because something else had changed or removed them, since the start."""
        return self._writer.repairs

    # --- what is wanted ------------------------------------------------------------------------------------------

    def want(self, owner: str, objects: Iterable[Object], cause: object) -> None:
        """``owner`` wants exactly ``objects`` from now on, because of ``cause``, which ``str`` puts into words (``lease
        10.5.3.0-24 revision 17``).

        Owners may share an object. Where two want one identity otherwise, the first has its way; the other is told by
        its ``state``, and has its way when the first is gone.
        """
        self._wanted_anew(self._picture.desired.replace(owner, objects, cause))

    def unwant(self, owner: str) -> None:
        """``owner`` wants nothing any more."""
        self._wanted_anew(self._picture.desired.remove(owner))

    def _wanted_anew(self, identities: Sequence[Identity]) -> None:
        if not identities:
            return
        self._picture.wanted_anew(identities)
        for identity in identities:
            self._retries.clear(identity)
            self._writer.hold_off.forget(identity)
        self._new_wish.set()
        self._reader.wake.set()

    def owners(self) -> list[str]:
        return self._picture.desired.owners()

    @property
    def pruning(self) -> bool:
        """True if what is ours and unwanted is removed. Only safe once all that is wanted was said."""
        return self._pruning

    @pruning.setter
    def pruning(self, allowed: bool) -> None:
        self._pruning = allowed
        if allowed:
            self._picture.touch_unwanted()
            self._reader.wake.set()

    # --- how it stands -------------------------------------------------------------------------------------------

    def state(self, owner: str) -> OwnerState:
        """How what ``owner`` wants stands. Costs no more than that owner's objects."""
        picture = self._picture
        identities = picture.desired.identities(owner)
        failures = [failure for identity in identities if (failure := self._failure_of(identity))]
        failures += picture.desired.contested(owner)
        facts = {name: value for identity in identities for name, value in picture.facts.get(identity, {}).items()}
        return OwnerState(not any(identity in picture.untried for identity in identities), tuple(failures), facts)

    def failures(self) -> list[Failure]:
        """Everything that was tried and is not as wanted, or could not be removed."""
        found = self._retries.failures()
        if self._reader.outages:
            identities = (claim.identity for claim in self._picture.desired if claim.identity not in self._retries)
            found += [failure for identity in identities if (failure := self._failure_of(identity))]
        return found + self._picture.desired.all_contested()

    def retry_in(self, identity: Identity) -> float | None:
        """Seconds until what failed there is tried again; None if it waits for an event or did not fail."""
        trouble, home = self._retries.get(identity), self._homes.get(identity[0])
        outage = self._reader.outages.get(home.target) if home else None
        at = outage.retry_at if outage else trouble.retry_at if trouble else math.inf
        return None if at == math.inf else max(0.0, at - asyncio.get_running_loop().time())

    def _failure_of(self, identity: Identity) -> Failure | None:
        trouble = self._retries.get(identity)
        if trouble is not None:
            return trouble.failure
        claim, home = self._picture.desired.get(identity), self._homes.get(identity[0])
        outage = self._reader.outages.get(home.target) if home else None
        return Failure(claim.object, outage.reason) if claim and outage else None

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the targets. Raises FlannelError if one cannot be."""
        for target in self._targets:
            await target.open()

    async def close(self) -> None:
        """Stop listening and close the targets. What was written stays."""
        await self._reader.close()
        for target in self._targets:
            await target.close()

    async def run(self) -> NoReturn:
        """A pass whenever something changed, is wanted or is due to be tried again. Never returns; cancel it."""
        self._reader.wake.set()
        while True:
            await self._until_needed()
            await self.settle()

    async def settle(self) -> None:
        """One pass: read what is not known, write what differs, remove what is unwanted if that is allowed.

        When it returns, everything that was wanted when it began was tried once. Safe beside ``run``.
        """
        async with self._lock:
            try:
                self._reader.absorb()
                now = asyncio.get_running_loop().time()
                everything_read = await self._reader.refresh()
                self._picture.touch(self._retries.due(now))
                pruning = self._pruning
                await self._writer.write(pruning=pruning)
                if self._pruning and not pruning:  # allowed meanwhile: this pass passed over what is unwanted
                    self.pruning = True
                if everything_read:
                    self._writer.hold_off.forget_old(now)
                    self._look_for_remains()
                self.journal.tally.passes.add(asyncio.get_running_loop().time() - now)
            except BaseException:  # most likely cancelled in the middle of a write: nothing is certain any more
                self._picture.touch_wanted()
                self._reader.suspect()
                raise

    def suspect(self, devices: frozenset[str] | None = None) -> None:
        """Read what is on ``devices``, or everything (None), in the next pass, whatever was heard of it."""
        self._reader.suspect(devices)

    async def plan(self) -> list[PlannedChange]:
        """What a pass would write, in its order, from a reading of its own. Changes nothing, here or there.

        Raises FlannelError if a target cannot be read.
        """
        async with self._lock:
            seen = Picture(self._homes)
            for target in self._targets:
                try:
                    lesson = seen.learn(self._reader.kinds[target], None)
                    for actual in await target.read(self._reader.scope(target)):
                        lesson.take(actual.object)
                except Exception as error:
                    raise FlannelError(f"{target.name}: {reason_of(error)}") from error
            return plan(
                self._picture.desired,
                seen.actual,
                sorted(self._homes, key=lambda kind: self._homes[kind].stage),
                self._owned.owned.devices,
                pruning=self._pruning,
                waiting=lambda identity: failure.reason if (failure := self._failure_of(identity)) else None,
            )

    async def _until_needed(self) -> None:
        try:
            async with asyncio.timeout_at(min(self._retries.next_due(), self._reader.due)):
                await self._reader.wake.wait()
        except TimeoutError:
            pass
        if self._reader.heard:
            try:
                async with asyncio.timeout(BURST_SECONDS):
                    await self._new_wish.wait()
            except TimeoutError:
                pass
        self._reader.heard = False
        self._new_wish.clear()
        self._reader.wake.clear()

    def _look_for_remains(self) -> None:
        self.swept = (
            self._pruning
            and not self._reader.outages
            and not any(
                have.removable for identity in self._picture.unwanted() if (have := self._picture.found(identity))
            )
        )
        if self.swept:
            self._on_swept()

    def _forget_earlier_runs(self) -> None:
        self._owned.forget_unclaimed([target.name for target in self._targets])
