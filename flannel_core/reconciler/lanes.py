"""Targets that answer in milliseconds and targets that take seconds, side by side: a repair of the kernel never waits
for a cloud.

Each lane is a :class:`Reconciler` of its own, with its own passes and its own picture. All prompt targets share one,
since their stages depend on each other; each slow target has one to itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import NoReturn

from ..journal import Journal
from ..objects import Identity, Object
from ..ownership import OwnedFile
from ..target import Failure, Target
from .diff import PlannedChange
from .engine import FULL_READ_SECONDS, OwnerState, Reconciler
from .writing import homes_of


class Lanes:
    """One per agent, used from one event loop: what :class:`Reconciler` offers, over all targets."""

    def __init__(
        self,
        targets: Sequence[Target],
        owned: OwnedFile,
        journal: Journal,
        *,
        rng: random.Random | None = None,
        full_read_seconds: float = FULL_READ_SECONDS,
    ) -> None:
        homes = homes_of(targets)  # over all of them: a kind has one home, whatever the lane
        self._owned = owned
        self._names = [target.name for target in targets]
        groups = [[target for target in targets if not target.slow], *([target] for target in targets if target.slow)]
        self._lanes = [
            Reconciler(
                group,
                owned,
                journal,
                rng=rng,
                # A slow target is polled as often as its API likes to be asked.
                full_read_seconds=max([full_read_seconds, *(t.poll_seconds or 0.0 for t in group if t.slow)]),
                on_swept=self._swept,
            )
            for group in groups
        ]
        self._prompt = self._lanes[0]
        self._lane_of = {
            kind: lane
            for lane, group in zip(self._lanes, groups, strict=True)
            for kind, home in homes.items()
            if home.target in group
        }
        self._target_names = {kind: home.target.name for kind, home in homes.items()}

    def _swept(self) -> None:
        if all(lane.swept for lane in self._lanes):
            self._owned.forget_unclaimed(self._names)

    def records_of(self, objects: Iterable[Object]) -> dict[str, set[str]]:
        """What has to be on record before ``objects`` are wanted, by the name of the target."""
        records: dict[str, set[str]] = {}
        for item in objects:
            if item.record is not None and item.kind in self._target_names:
                records.setdefault(self._target_names[item.kind], set()).add(item.record)
        return records

    @property
    def kinds(self) -> list[str]:
        """Of the objects that have a target."""
        return [str(kind) for kind in self._target_names]

    @property
    def writes(self) -> int:
        return sum(lane.writes for lane in self._lanes)

    @property
    def repairs(self) -> int:
        return sum(lane.repairs for lane in self._lanes)

    # --- what is wanted ------------------------------------------------------------------------------------------

    def want(self, owner: str, objects: Iterable[Object], cause: object) -> None:
        """As :meth:`Reconciler.want`; an object of a kind that no target holds fails in the prompt lane."""
        if len(self._lanes) == 1:
            self._prompt.want(owner, objects, cause)
            return
        shares: dict[Reconciler, list[Object]] = {self._prompt: []}
        for item in objects:
            shares.setdefault(self._lane_of.get(item.kind, self._prompt), []).append(item)
        for lane in self._lanes:
            if lane in shares:
                lane.want(owner, shares[lane], cause)
            else:
                lane.unwant(owner)

    def unwant(self, owner: str) -> None:
        for lane in self._lanes:
            lane.unwant(owner)

    def owners(self) -> list[str]:
        return self._prompt.owners()

    @property
    def pruning(self) -> bool:
        return self._prompt.pruning

    @pruning.setter
    def pruning(self, allowed: bool) -> None:
        for lane in self._lanes:
            lane.pruning = allowed

    # --- how it stands -------------------------------------------------------------------------------------------

    def state(self, owner: str) -> OwnerState:
        states = [lane.state(owner) for lane in self._lanes]
        facts: dict[str, object] = {}
        for state in states:
            facts |= state.facts
        return OwnerState(
            all(state.tried for state in states),
            tuple(failure for state in states for failure in state.failures),
            facts,
        )

    def failures(self) -> list[Failure]:
        return [failure for lane in self._lanes for failure in lane.failures()]

    def retry_in(self, identity: Identity) -> float | None:
        return self._lane_of.get(identity[0], self._prompt).retry_in(identity)

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        for lane in self._lanes:
            await lane.open()

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    async def run(self) -> NoReturn:
        """All lanes, each at its own pace. Never returns; cancel it."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(lane.run())
        raise AssertionError("a lane never ends")

    async def settle(self) -> None:
        """One pass of the prompt targets."""
        await self._prompt.settle()

    async def settle_all(self) -> None:
        """One pass of every target: when it returns, everything that was wanted when it began was tried once."""
        await asyncio.gather(*(lane.settle() for lane in self._lanes))

    def suspect(self, devices: frozenset[str] | None = None) -> None:
        for lane in self._lanes:
            lane.suspect(devices)

    async def plan(self) -> list[PlannedChange]:
        return [change for lane in self._lanes for change in await lane.plan()]
