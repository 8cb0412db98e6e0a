"""The one thread that uses the file.

sqlite3 blocks: on fsync, on another process's lock, on a disk that hangs. So every use of the file happens in a thread
of its own (one, because SQLite lets one write at a time and a connection belongs to its thread), one after the other,
and the event loop only ever waits.

A ThreadPoolExecutor would do the same for calls, but looking at the file ten times a second from the event loop wakes
two threads each time: 0.6 % of a core on the machine this was measured on, 0.1 % when this thread looks by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class FileThread:
    """Does what it is given, in order, and ``look`` every ``seconds`` in between. ``look`` must not raise."""

    def __init__(self, look: Callable[[], None], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="flannel-sqlite", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What ``work`` returns or raises, as a future of the running loop."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return asyncio.wrap_future(future)

    def stop(self) -> None:
        """Once everything that was given is done."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        look_at = time.monotonic() + self._seconds
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, look_at - time.monotonic()))
            except Empty:
                self._look()
                look_at = time.monotonic() + self._seconds
                continue
            if job is None:
                return
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            del job, future, work  # nothing lives on while the thread waits
