"""The kernel of this network namespace as a target: links, addresses, neighbours, forwarding entries and routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import ClassVar

from ..errors import FlannelError
from ..objects import Address, FdbEntry, Link, Neighbour, Object, Route
from ..target import Actual, Changed, Failure, Put, Scope, Target, TargetUnavailable, Unknown
from . import links
from .callers import Callers
from .devices import link_names
from .message import MalformedMessage
from .ours import Ours
from .reader import read
from .socket import NetlinkSocket, NotificationsLost, NotificationSocket
from .watcher import GROUPS, translate
from .writer import Writer

HELD_BACK_SECONDS = 0.05
MOST_HELD_BACK_SECONDS = 2.0
"""How late at most it is heard what others do while thousands of objects are written."""


class KernelTarget(Target):
    """Reads, watches and writes through netlink, in the namespace that the calling thread is in at ``open``, ``read``
    and ``watch``."""

    name: ClassVar[str] = "kernel"
    stages: ClassVar[Mapping[type[Object], int]] = {Link: 0, Address: 20, Neighbour: 30, FdbEntry: 30, Route: 40}

    def __init__(self) -> None:
        self._ours = Ours(self.scope)
        self._writer: Writer | None = None

    async def open(self) -> None:
        """Raises FlannelError where netlink sockets are forbidden."""
        self._writer = Writer(NetlinkSocket())

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def read(self, scope: Scope) -> Iterator[Actual]:
        """Links of our names (of whatever type), addresses, permanent neighbours and forwarding entries on them, routes
        by the rules of ``Ours``; read as they are iterated over. Raises TargetUnavailable."""
        self.scope = scope
        return self._read(scope.only)

    def _read(self, only: frozenset[str] | None) -> Iterator[Actual]:
        try:
            with NetlinkSocket() as kernel:
                for item in read(kernel, self._rules(), only):
                    yield Actual(item)
        except FlannelError as error:
            raise TargetUnavailable(f"the kernel's tables cannot be read: {error}") from error

    def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        """Subscribed when this returns."""
        self.scope = scope
        return self._changes(NotificationSocket(GROUPS))

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        """Raises TargetUnavailable."""
        try:
            if self._writer is None:
                raise FlannelError("the kernel target is closed")
            return await self._writer.write(puts, removes, self._is_left_over)
        except FlannelError as error:
            raise TargetUnavailable(f"the kernel cannot be written to: {error}") from error

    async def _until_written(self) -> None:
        """While thousands are written, what is heard is nearly all about them, and as much work as the writing: it
        waits in the kernel, but not for too long."""
        deadline = time.monotonic() + MOST_HELD_BACK_SECONDS
        while self._writer is not None and self._writer.writes_much and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(HELD_BACK_SECONDS)

    def _is_left_over(self, device: str) -> bool:
        return device in self.scope.devices and (Link.kind, device) not in self.scope.wanted

    def _rules(self) -> Ours:
        if self._ours.scope is not self.scope:
            self._ours = Ours(self.scope)
        return self._ours

    async def _changes(self, notifications: NotificationSocket) -> AsyncIterator[Changed | Unknown]:
        callers = Callers()
        try:
            names = _names_now()
            while True:
                await self._until_written()
                try:
                    heard = await notifications.receive()
                    own_port = self._writer.port if self._writer is not None else -1
                    for change in translate(heard, self._rules(), names, own_port, callers.name):
                        yield change
                except (NotificationsLost, MalformedMessage) as error:
                    names = _names_now()
                    yield Unknown(None, str(error))
        finally:
            notifications.close()


def _names_now() -> dict[int, str]:
    with NetlinkSocket() as kernel:
        return link_names(kernel.dump(links.dump()))
