"""Reading and writing the file from the event loop, and hearing when anybody wrote."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from flannel_core.store import StoreError, StoreUnavailable

from . import rows
from .database import Busy, Database
from .file_thread import FileThread

POLL_SECONDS = 0.1
"""How often it is looked whether another process wrote."""
LOCKED_SECONDS = 5.0
"""For how long a lock of another process is waited for before the store counts as unavailable."""
SWEEP_SECONDS = 1.0
"""How often it is looked for leases that have run out, up to half as long again: a thousand agents do not all look at
once. Longer than an agent whose lease has run out waits between two attempts to renew it."""

T = TypeVar("T")
Way = Literal["read", "write"]

UNUSABLE = (StoreUnavailable, StoreError)
"""What a call raises while the file cannot be used."""


class Closed(StoreUnavailable):
    """The store was closed under the call."""


class Engine:
    """The file of one store. ``said`` is called in the event loop with why the file cannot be used, None once it can;
    reading and writing are told apart, since one may go on without the other."""

    def __init__(self, path: Path, dry_run: bool, said: Callable[[str | None], None]) -> None:
        self.path = path
        self._said = said
        self.changed = asyncio.Event()
        """Set at the next change of anything in the file, by whomever, and then replaced by a new one."""
        self.answered = 0.0
        """time.monotonic() of the file's last answer."""
        self._database = Database(path, dry_run)
        self._thread: FileThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble: dict[Way, str] = {}
        self._sweep_at = 0.0
        self._run_out: set[rows.Written] = set()
        self._looked = 0.0

    async def open(self) -> None:
        """Raises StoreError if the file is there and is not ours to use."""
        self._loop = asyncio.get_running_loop()
        self._thread = FileThread(self._look, POLL_SECONDS)
        try:
            await self._call("read", self._database.check)
        except StoreUnavailable:
            pass  # it is waited for, and the status says why
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Once the call that is being served is done. Those that wait get Closed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._pulse()
            await thread.do(self._database.close)
            thread.stop()

    async def read(self, work: Callable[[sqlite3.Connection | None], T]) -> T:
        """What ``work`` returns for one consistent view of the file; it gets None while there is no file."""

        def reading() -> T:
            with self._database.reading() as connection:
                return work(connection)

        return await self._call("read", reading)

    async def write(self, work: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None) -> T:
        """What ``work`` returns in a write transaction, which is committed and on disk by then. ``committed`` is called
        with it before anything else is read or written, even if the caller has gone."""

        def writing() -> T:
            with self._database.writing() as connection:
                result = work(connection)
            if committed is not None:
                committed(result)
            return result

        result = await self._call("write", writing)
        self._pulse()  # our own commits are not noticed by looking
        return result

    async def blocking(self, work: Callable[[], T]) -> T:
        """``work`` in the file's thread, for what else would block the event loop."""
        if self._thread is None:
            raise Closed(f"{self.path}: the store is closed")
        return await self._thread.do(work)

    async def wait(self, changed: asyncio.Event, seconds: float | None = None) -> bool:
        """Until ``changed`` (taken from ``self.changed`` before reading, so that nothing is missed in between) or for
        ``seconds``; True: something changed."""
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    async def _call(self, way: Way, work: Callable[[], T]) -> T:
        give_up = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                result = await self.blocking(work)
            except Busy as busy:
                if time.monotonic() >= give_up:
                    reason = f"{busy} (waited {LOCKED_SECONDS:.0f} s)"
                    self._note(way, reason)
                    raise StoreUnavailable(reason) from None
                await asyncio.sleep(random.uniform(0.005, 0.05))
            except Closed:
                raise
            except UNUSABLE as error:
                self._note(way, str(error))
                raise
            except Exception:
                self._note(way, None)  # the file answered; the answer is a refusal
                raise
            else:
                self._note(way, None)
                return result

    def _note(self, way: Way, trouble: str | None) -> None:
        if trouble is not None:
            self._trouble[way] = trouble
        else:
            self.answered = time.monotonic()
            self._trouble.pop("read", None)
            if way == "write":  # who may write may read, not the other way round
                self._trouble.pop("write", None)
        self._said(self._trouble.get("read") or self._trouble.get("write"))

    def _pulse(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    # --- in the file's thread --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Whether others wrote; the event loop is woken only if they did, or if the file became usable or unusable."""
        changed, trouble = False, None
        try:
            changed = self._database.changed()
            if time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_SECONDS * random.uniform(1, 1.5)
                changed = self._sweep() or changed
            self.answered = time.monotonic()
        except Busy as busy:
            if time.monotonic() < self.answered + LOCKED_SECONDS:
                return
            trouble = str(busy)
        except Exception as error:
            trouble = str(error)
        if changed or trouble != self._trouble.get("read"):
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._looked_at, changed, trouble)

    def _looked_at(self, changed: bool, trouble: str | None) -> None:
        self._note("read", trouble)
        if changed:
            self._pulse()

    def _sweep(self) -> bool:
        """Remove the leases that had run out at the last look already, if that was a moment ago; whether there were
        any. The second look is for their owners: after a suspend, a jump of the clock, a lock or a full disk many have
        run out at once, and who is alive renews before it."""
        with self._database.reading() as view:
            if self._database.dry_run or not rows.expired(view, time.time()):
                return False
        try:
            with self._database.writing() as connection:
                run_out = rows.expired(connection, time.time())
                now = time.monotonic()
                doomed = run_out & self._run_out if now < self._looked + 3 * SWEEP_SECONDS else set()
                rows.delete(connection, doomed)
                self._run_out, self._looked = run_out, now
        except UNUSABLE:
            return False  # who needs to write says so
        return bool(doomed)
