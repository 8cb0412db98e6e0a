"""Blocking work in threads that nobody waits for: asyncio's own are joined before a program may end, and a request to a
dead server takes seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def start(work: Callable[[], object], name: str) -> None:
    """``work`` must not raise."""
    Thread(target=work, name=name, daemon=True).start()


def call(work: Callable[[], T]) -> asyncio.Future[T]:
    """What ``work`` returns or raises, as a future of the running loop."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    start(run, "flannel-call")
    return asyncio.wrap_future(future)
