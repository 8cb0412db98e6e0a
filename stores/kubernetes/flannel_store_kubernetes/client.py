"""An API server as the event loop asks it: a request, or a stream of nodes, and what is wrong with either."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, NamedTuple, TypeVar

from flannel_core import threads
from flannel_core.store import StoreUnavailable
from flannel_core.task_groups import unless

from .api import ApiServer, Call, Refused
from .node_stream import AnyNode, NodeStream, Step, Trouble
from .nodes import Dialect

SECONDS = 30.0
"""How long a request may take with all that belongs to it, an exec plugin among them."""
NOT_FOUND = 404

V = TypeVar("V")


class Closed(StoreUnavailable):
    """The store was closed under the call."""

    def __init__(self) -> None:
        super().__init__("the store is closed")


class Begun(NamedTuple, Generic[V]):
    """A stream of nodes that is under way. ``found`` ends with None."""

    stream: NodeStream[V]
    found: asyncio.Queue[Step[V] | None]
    subject: str
    since: float

    @property
    def age(self) -> float:
        """Seconds."""
        return time.monotonic() - self.since


class Client:
    """``said`` is called with why the server cannot be used, None once it can."""

    def __init__(self, server: ApiServer, dialect: Dialect, said: Callable[[str | None], None]) -> None:
        self.server = server
        self.dialect = dialect
        self._said = said
        self._troubles: dict[str, str] = {}
        self._streams: dict[NodeStream[Any], asyncio.Queue[Any]] = {}
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Once and for all: streams end, whoever waits gets Closed."""
        self._closed.set()
        for stream, found in self._streams.items():
            stream.stop()
            found.put_nowait(None)
        self.server.close()

    def start_over(self) -> None:
        """All goes over new connections from now on. This host's address may have changed: nothing comes back to the
        old one, and it would take a minute of silence to notice."""
        self.server.close()
        for stream in self._streams:
            stream.break_off()

    async def pause(self, seconds: float) -> None:
        """Raises Closed as soon as the store is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise Closed

    async def ask(self, call: Call) -> bytes:
        """The answer. Raises StoreUnavailable, which the status then shows."""
        subject = f"{call.verb} {call.resource}"
        try:
            answer = await self.answer(call)
        except StoreUnavailable as error:
            absent = isinstance(error, Refused) and error.status == NOT_FOUND
            self._note(subject, None if absent else str(error))
            raise
        self._note(subject, None)
        return answer

    async def answer(self, call: Call) -> bytes:
        """The same for what the status has nothing to do with."""
        if self._closed.is_set():
            raise Closed
        try:
            async with asyncio.timeout(SECONDS):
                answer = await unless(self._closed.wait(), threads.call(lambda: self.server.answer(call)))
        except TimeoutError:
            raise StoreUnavailable(f"{self.server.place} does not answer within {SECONDS:g} s") from None
        if answer is None:
            raise Closed
        return answer

    def _note(self, subject: str, trouble: str | None) -> None:
        self._troubles.pop(subject, None)
        if trouble is not None:
            self._troubles[subject] = trouble
        self._said(next(iter(self._troubles.values()), None))

    def begin(self, read: Callable[[AnyNode], V | None], *, only: str | None = None, since: str = "") -> Begun[V]:
        """Have the nodes listed; they are watched once somebody follows."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Step[V] | None] = asyncio.Queue()

        def deliver(step: Step[V]) -> None:
            loop.call_soon_threadsafe(found.put_nowait, step)

        stream = NodeStream(self.server, self.dialect, read, deliver, only=only, since=since)
        self._streams[stream] = found
        if self._closed.is_set():
            found.put_nowait(None)
        else:
            stream.start()
        return Begun(stream, found, f"nodes {only or ''}", time.monotonic())

    async def follow(self, begun: Begun[V]) -> AsyncGenerator[Step[V], None]:
        """What it finds. Ends when the store is closed."""
        begun.stream.go_on()
        try:
            while (step := await begun.found.get()) is not None:
                if isinstance(step, Trouble):
                    self._note(begun.subject, step.reason)
                yield step
        finally:
            self.drop(begun)

    def drop(self, begun: Begun[Any]) -> None:
        """End it."""
        begun.stream.stop()
        self._streams.pop(begun.stream, None)
        self._note(begun.subject, None)
