"""Hearing what changes at the targets: one task per target, that outlives whatever the target's watch dies of."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ..errors import FlannelError
from ..target import Changed, Scope, Target, TargetUnavailable, Unknown
from .retries import LONGEST_DELAY, backoff

log = logging.getLogger(__name__)

News = Changed | Unknown


class Listening:
    """``hear`` is called with the target and what it said, never from two places at once. A target that polls, or whose
    watch began anew, says Unknown(None)."""

    def __init__(
        self, scope: Callable[[Target], Scope], hear: Callable[[Target, News], None], rng: random.Random
    ) -> None:
        self._scope = scope
        self._hear = hear
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, targets: Sequence[Target]) -> None:
        """Subscribe to all of them; what changes after this call is heard."""
        for target in targets:
            if target.poll_seconds is not None:
                job = self._poll(target, target.poll_seconds)
            elif type(target).watch is not Target.watch:
                job = self._listen(target, self._subscribe(target))
            else:
                continue
            self._tasks.append(asyncio.create_task(job, name=f"listening to {target.name}"))

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self, target: Target, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds * self._rng.uniform(0.9, 1.1))  # hosts started together do not ask together
            self._hear(target, Unknown(None))

    def _subscribe(self, target: Target) -> AsyncIterator[News] | Exception:
        try:
            return target.watch(self._scope(target))
        except Exception as error:
            return error

    async def _listen(self, target: Target, watch: AsyncIterator[News] | Exception) -> None:
        loop = asyncio.get_running_loop()
        attempts = 0
        while True:
            began = loop.time()
            try:
                reason = await self._follow(target, watch)
            finally:
                await _close(watch)
            attempts = attempts + 1 if loop.time() < began + LONGEST_DELAY else 1
            log.warning("What changes in the %s is not heard, listening again: %s", target.name, reason)
            await asyncio.sleep(backoff(attempts, self._rng))
            watch = self._subscribe(target)
            self._hear(target, Unknown(None, reason))

    async def _follow(self, target: Target, watch: AsyncIterator[News] | Exception) -> str:
        """Returns why ``watch`` is over."""
        if isinstance(watch, Exception):
            return reason_of(watch)
        try:
            async for news in watch:
                self._hear(target, news)
        except Exception as error:
            return reason_of(error)
        return "it ended"


def reason_of(error: Exception) -> str:
    """What a person is told of a target's failure."""
    told = isinstance(error, FlannelError | TargetUnavailable)
    return str(error) if told else f"it failed with {type(error).__name__}: {error}"


async def _close(watch: Any) -> None:
    if hasattr(watch, "aclose"):
        await watch.aclose()
