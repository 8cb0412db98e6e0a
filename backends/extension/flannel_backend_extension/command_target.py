"""Where the commands "live": in what this agent remembers having run since the host booted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from flannel_core.errors import CannotGoOn
from flannel_core.objects import Object
from flannel_core.target import Actual, Failure, Put, Scope, Target

from .commands import PeerCommand, Startup
from .memory import Memory
from .running import CommandFailed, run

log = logging.getLogger(__name__)

MEMORY = "extension.jsonl"
"""The file, in the state directory."""


class CommandTarget(Target):
    """Runs one command at a time, in the order of the leases, as Go flannel does."""

    name = "commands"
    stages: ClassVar[Mapping[type[Object], int]] = {Startup: 50, PeerCommand: 60}

    def __init__(self, state_directory: Path) -> None:
        self.memory = Memory(state_directory / MEMORY)

    async def read(self, scope: Scope) -> Iterable[Actual]:
        if scope.only is not None:
            return ()
        return [Actual(item) for item in self.memory.done.values()]

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        """Raises CannotGoOn where PostStartupCommand fails, as Go flannel ends."""
        failures = [Failure(item, reason) for item in removes if (reason := await self._undo(item)) is not None]
        for put in puts:
            if put.previous is not None and (reason := await self._undo(put.previous)) is not None:
                log.warning("What was run for %s is not undone: %s", put.previous.describe(), reason)
            if (reason := await self._do(put.object)) is not None:
                failures.append(Failure(put.object, reason))
        return failures

    async def _do(self, item: Object) -> str | None:
        """Returns why it failed."""
        if isinstance(item, Startup):
            words, stdin = item.words, ""
        elif isinstance(item, PeerCommand):
            words, stdin = item.add, item.data
        else:
            raise TypeError(f"{item.kind} objects do not live here")
        if words:
            try:
                await run(words, dict(item.variables), stdin, item.seconds)
            except CommandFailed as error:
                if isinstance(item, Startup):
                    raise CannotGoOn(f"PostStartupCommand: {error}") from error
                return str(error)
        self.memory.did(item)
        return None

    async def _undo(self, item: Object) -> str | None:
        """Returns why it failed."""
        assert isinstance(item, Startup | PeerCommand)
        if isinstance(item, PeerCommand) and item.remove:
            try:
                await run(item.remove, dict(item.variables), item.data, item.seconds)
            except CommandFailed as error:
                return str(error)
        self.memory.undid(item)
        return None
