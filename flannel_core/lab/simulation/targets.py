"""The simulated kernel as the agent's targets see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from flannel_core.firewall.rules import IptablesRules, NftablesRules
from flannel_core.netlink.ours import Ours
from flannel_core.objects import Address, FdbEntry, Identity, Link, Neighbour, Object, Offload, Route, Sysctl
from flannel_core.target import Actual, Changed, Failure, Put, Scope, Target, TargetUnavailable, Unknown

from .kernel import Kernel, Told, WatchDied

FIREWALL_SECONDS = 5.0
SETTINGS_SECONDS = 10.0
LONGEST_WRITE = 0.02
BATCH = 3
"""Objects written at once."""
LONGEST_DELAY = 0.2
"""How long a notification may be on its way, in seconds."""


class SimulatedKernelTarget(Target):
    """Reads, hears and writes as :class:`flannel_core.netlink.kernel.KernelTarget` does, by the same rules of what is
    ours."""

    name: ClassVar[str] = "kernel"
    stages: ClassVar[Mapping[type[Object], int]] = {Link: 0, Address: 20, Neighbour: 30, FdbEntry: 30, Route: 40}

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def _is_ours(self, item: Object, scope: Scope) -> bool:
        if isinstance(item, Link):
            return item.name in scope.devices
        if isinstance(item, Address):
            return item.device in scope.devices and item.device not in scope.external
        if isinstance(item, Neighbour | FdbEntry):
            return Ours(scope).neighbour(item)
        return isinstance(item, Route) and Ours(scope).route(item)

    async def read(self, scope: Scope) -> Iterator[Actual]:
        self.scope = scope
        await self._answer()
        found = list(self._kernel.objects.values())
        return iter(
            Actual(item)
            for item in found
            if self._is_ours(item, scope) and (scope.only is None or item.on_device in scope.only)
        )

    def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        self.scope = scope
        return self._changes(self._kernel.subscribe())

    async def _changes(self, queue: asyncio.Queue[Told | WatchDied | None]) -> AsyncIterator[Changed | Unknown]:
        try:
            while True:
                told = await queue.get()
                await asyncio.sleep(self._kernel.rng.choice((0, 0, self._kernel.rng.uniform(0, LONGEST_DELAY))))
                if isinstance(told, WatchDied):
                    raise told
                if told is None:
                    yield Unknown(None, "notifications were lost")
                    continue
                for news in self._meaning(told.item, gone=told.gone, own=told.own):
                    yield news
        finally:
            self._kernel.unsubscribe(queue)

    def _meaning(self, item: Object, *, gone: bool, own: bool) -> Iterator[Changed | Unknown]:
        heeded = self.scope.devices | self.scope.external
        is_wanted = item.identity in self.scope.wanted
        if isinstance(item, Link | Address):
            if isinstance(item, Address) and gone and is_wanted:
                yield Changed(item.identity, None, "")
            if item.on_device in heeded:
                yield Unknown(frozenset({str(item.on_device)}), f"{item.kind} changed")
        elif own and isinstance(item, Route):
            return
        elif self._is_ours(item, self.scope):
            yield Changed(item.identity, None if gone else item, "somebody")
        elif is_wanted:
            yield Changed(item.identity, None, "somebody")

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        await self._answer()
        failures = []
        for item in removes:
            if self._is_the_one(item):
                self._kernel.remove(item, own=True)
        for number, put in enumerate(puts, 1):
            if reason := self._kernel.write(put.object, put.previous):
                failures.append(Failure(put.object, reason, foreign="in the way" in reason))
            if number % BATCH == 0:
                await self._answer()  # it may die, or something else may come in between
        return failures

    def _is_the_one(self, item: Object) -> bool:
        """A deletion of a route names its protocol and device: another's in its place stays."""
        have = self._kernel.objects.get(item.identity)
        if isinstance(item, Route) and isinstance(have, Route):
            return (item.protocol, item.device) == (have.protocol, have.device)
        return have is not None

    async def _answer(self) -> None:
        await asyncio.sleep(self._kernel.rng.uniform(0, LONGEST_WRITE))
        if self._kernel.mute:
            raise TargetUnavailable("simulated: it does not answer")


class _PolledTarget(Target):
    """Objects that nothing tells of."""

    def __init__(self, held: Callable[[], dict[Identity, Object]], seconds: float) -> None:
        self._held = held
        self._seconds = seconds

    async def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        while True:
            await asyncio.sleep(self._seconds)
            yield Unknown(None)

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        for item in removes:
            self._held().pop(item.identity, None)
        self._held().update({put.object.identity: put.object for put in puts})
        return []


class SimulatedSettings(_PolledTarget):
    """Sysctls and offloads of devices, which go with their device."""

    name: ClassVar[str] = "settings"
    stages: ClassVar[Mapping[type[Object], int]] = {Sysctl: 10, Offload: 10}

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(lambda: kernel.settings, SETTINGS_SECONDS)

    async def read(self, scope: Scope) -> list[Actual]:
        self.scope = scope
        return [Actual(item) for identity, item in self._held().items() if identity in scope.wanted]


class SimulatedFirewall(_PolledTarget):
    """Traffic rules, read from time to time; ours by their network."""

    name: ClassVar[str] = "firewall"
    stages: ClassVar[Mapping[type[Object], int]] = {IptablesRules: 50, NftablesRules: 50}

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(lambda: kernel.rules, FIREWALL_SECONDS)

    async def read(self, scope: Scope) -> list[Actual]:
        self.scope = scope
        return [Actual(item) for item in self._held().values() if getattr(item, "network", "") in scope.networks]
