"""What asyncio leaves to its users: race two awaitables, and tell what a group of exceptions is about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unless(signal: Awaitable[object], work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None if ``signal`` comes first; neither is left running."""
    signalled, done = asyncio.ensure_future(signal), asyncio.ensure_future(work)
    try:
        await asyncio.wait((signalled, done), return_when=asyncio.FIRST_COMPLETED)
        return done.result() if done.done() else None
    finally:
        for future in (signalled, done):
            future.cancel()
        await asyncio.gather(signalled, done, return_exceptions=True)


def first_of(group: BaseExceptionGroup[BaseException], *kinds: type[BaseException]) -> BaseException:
    """The exception in ``group``, however deep, that is of the first of ``kinds`` that occurs; else any."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for kind in kinds for leaf in leaves if isinstance(leaf, kind)), leaves[0])
