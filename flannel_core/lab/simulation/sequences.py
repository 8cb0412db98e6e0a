"""Random sequences of what goes wrong, each from its seed, and what has to be true in the end.

python -m flannel_core.lab.simulation.sequences [FIRST_SEED [HOW_MANY]]
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flannel_core.errors import FlannelError
from flannel_core.lease import FAMILIES, Family
from flannel_core.netconf import parse_config
from flannel_core.objects import FdbEntry, Neighbour, Route
from flannel_core.plugins import load_backend

from . import clock
from .hosts import SimulatedHost, foreign_objects, restore_interface, underlay_address
from .kernel import EXTERNAL
from .steps import REPAIRED_AT_ONCE, STEPS_OF_A_HOST
from .store import SimulatedStore

HOSTS = 3
STEPS = (4, 18)
"""Fewest and most in a sequence."""
CALM_SECONDS = 400.0
"""How long it is quiet at the end: the longest backoff, hold-off and hold of removals one after the other, and a full
reading."""
PROMISED_SECONDS = 5.0
"""For what the kernel tells of, or takes along in silence with what it tells of."""
CONFIGS: tuple[dict[str, Any], ...] = (
    {"Type": "vxlan"},
    {"Type": "vxlan", "DirectRouting": True},
    {"Type": "host-gw"},
)


class WrongEnd(FlannelError):
    """A sequence that did not end as it has to: ``str(error)`` has seed, steps and what is wrong."""


class Sequence:
    """One of them. ``steps`` says in words what was done so far."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.steps: list[str] = []
        self.rng = random.Random(seed)
        backend = self.rng.choice(CONFIGS)
        self.nft = self.rng.random() < 0.5
        text = {
            "EnableIPv6": True,
            "Network": "10.5.0.0/16",
            "IPv6Network": "fc00:5::/48",
            "EnableNFTables": self.nft,
            "Backend": backend,
        }
        self.config = parse_config(json.dumps(text).encode(), "net-conf.json")
        self.store = SimulatedStore(self.config, self.rng)
        self.backend = load_backend(self.config.backend_type)
        self.directory = directory
        self.hosts = [self._host(f"h{number}", number, directory / f"h{number}") for number in range(1, HOSTS + 1)]
        self.in_the_way: dict[str, list[Route]] = {host.name: [] for host in self.hosts}
        self._subnets: dict[str, object] = {}

    def _host(self, name: str, number: int, directory: Path) -> SimulatedHost:
        return SimulatedHost(name, number, self.config, self.backend, self.store, directory, self.rng)

    async def play(self) -> None:
        """Raises WrongEnd."""
        try:
            for host in self.hosts:
                host.start()
            await asyncio.sleep(5)
            self._subnets = {host.name: host.lease and host.lease.subnets for host in self.hosts}
            for _ in range(self.rng.randint(*STEPS)):
                host = self.rng.choice(self.hosts)
                step = self.rng.choice(STEPS_OF_A_HOST)
                if (said := step(self, host)) is not None:
                    self.steps.append(f"{host.name}: {said}")
                    pause = self.rng.choice((0.0, self.rng.uniform(0, 0.05), self.rng.uniform(0, 3), 30.0))
                    self.steps[-1] += f"; {pause:.3f} s"
                    await self._finish(pause)
            await self._calm()
            for host in self.hosts:
                await self._break_and_wait(host)
            await self._judge()
        except AssertionError as error:
            raise WrongEnd(self._report(f"AssertionError: {error}")) from error
        finally:
            for host in self.hosts:
                await host.kill()

    async def _finish(self, pause: float) -> None:
        for host in [host for host in self.hosts if host.agent is not None and host.agent.cancelling()]:
            await host.kill()
        await asyncio.sleep(pause)
        for host in self.hosts:
            if host.agent is not None and host.agent.done() and host.agent.exception():
                raise WrongEnd(self._report(f"the agent of {host.name} ended: {host.agent.exception()!r}"))

    async def _calm(self) -> None:
        """All that was away comes back, by its owner's hand; then nothing happens for a long time."""
        for host in self.hosts:
            host.kernel.refuse, host.kernel.mute = 0, False
            restore_interface(host)
            self.store.return_to(host.name)
            host.start()
        await asyncio.sleep(CALM_SECONDS)

    async def _break_and_wait(self, host: SimulatedHost) -> None:
        """One more thing is broken, and has to be right after the seconds that are promised."""
        step = self.rng.choice(REPAIRED_AT_ONCE)
        if (said := step(self, host)) is None:
            return
        self.steps.append(f"{host.name}: {said}, after a long calm")
        link = host.kernel.link(EXTERNAL)
        if link is not None and not link.up:
            await asyncio.sleep(self.rng.uniform(0, 3))
            restore_interface(host)
        await asyncio.sleep(PROMISED_SECONDS)
        assert host.reconciler is not None
        for change in await host.reconciler.plan():
            if change.held is None:
                raise WrongEnd(self._report(f"not done within {PROMISED_SECONDS} s: {change.object.describe()}"))

    # --- the end -------------------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        wrong: list[str] = []
        for host in self.hosts:
            assert host.agent is not None
            if host.agent.done():
                raise WrongEnd(self._report(f"the agent of {host.name} ended: {host.agent.exception()!r}"))
            wrong += [f"{host.name}: {said}" for said in await self._wrong_with(host)]
            wrong += [
                f"{host.name} does not reach {other.name} over IPv{family}: {said}"
                for other in self.hosts
                if other is not host
                for family in FAMILIES
                if (said := unreachable(host, other, family))
                and not any(r.destination in map(str, subnets_of(other)) for r in self.in_the_way[host.name])
            ]
        if wrong:
            raise WrongEnd(self._report("\n".join(wrong)))

    async def _wrong_with(self, host: SimulatedHost) -> list[str]:
        assert host.reconciler is not None
        wrong = []
        blocked = {route.destination for route in self.in_the_way[host.name]}
        if (host.lease and host.lease.subnets) != self._subnets[host.name]:
            wrong.append(f"its subnets were {self._subnets[host.name]} and are {host.lease and host.lease.subnets}")
        wrong += [
            f"left to do: {change.action} {change.object.describe()} ({change.held})"
            for change in await host.reconciler.plan()
            if change.held is None or getattr(change.object, "destination", None) not in blocked
        ]
        writes = host.reconciler.writes
        host.reconciler.suspect()
        await asyncio.sleep(2)
        if host.reconciler.writes != writes:
            wrong.append(f"{host.reconciler.writes - writes} writes though nothing happened")
        wrong += [
            f"touched: {item.describe()} is {host.kernel.objects.get(item.identity)}"
            for item in [*foreign_objects(), *self.in_the_way[host.name]]
            if host.kernel.objects.get(item.identity) != item
        ]
        fresh = await self._fresh(host)
        for table in ("objects", "settings", "rules"):
            have, want = getattr(host.kernel, table), getattr(fresh.kernel, table)
            wrong += [f"a fresh agent would not have {item}" for key, item in have.items() if want.get(key) != item]
            wrong += [f"a fresh agent would have {item}" for key, item in want.items() if have.get(key) != item]
        return wrong

    async def _fresh(self, host: SimulatedHost) -> SimulatedHost:
        """The same host, made anew, after a fresh agent has settled there."""
        fresh = self._host(host.name, host.number, self.directory / f"fresh-{host.name}")
        await host.kill()
        for item in self.in_the_way[host.name]:
            fresh.kernel.put(item)
        fresh.lease = host.lease
        fresh.start()
        await asyncio.sleep(30)
        await fresh.kill()
        return fresh

    def _report(self, wrong: str) -> str:
        family = f"{self.config.backend_type} {dict(self.config.backend)}, {'nft' if self.nft else 'iptables'}"
        return "\n".join([f"seed {self.seed}: {family}", *(f"  {step}" for step in self.steps), wrong])


def subnets_of(host: SimulatedHost) -> tuple[object, ...]:
    return host.lease.subnets if host.lease else ()


def unreachable(host: SimulatedHost, other: SimulatedHost, family: Family) -> str | None:
    """Why a packet from ``host`` to the pods of ``other`` does not arrive, looked up as the kernel does it."""
    endpoint = other.lease.endpoint(family) if other.lease else None
    if endpoint is None:
        return "it holds no lease"
    destination, objects = str(endpoint.subnet), host.kernel.objects
    route = next((o for o in objects.values() if isinstance(o, Route) and o.destination == destination), None)
    if route is None or route.gateway is None or (link := host.kernel.link(route.device)) is None or not link.up:
        return f"no route that works: {route}"
    theirs = underlay_address(family, other.number).partition("/")[0]
    if route.device == EXTERNAL:
        return None if route.gateway == theirs else f"its gateway is {route.gateway}, not {theirs}"
    neighbour = objects.get((Neighbour.kind, route.device, route.gateway))
    if not isinstance(neighbour, Neighbour):
        return f"no neighbour {route.gateway}"
    fdb = objects.get((FdbEntry.kind, route.device, neighbour.mac))
    if not isinstance(fdb, FdbEntry) or fdb.remote != theirs:
        return f"frames to {neighbour.mac} leave for {fdb}"
    there = other.kernel.link(route.device)
    if there is None or there.mac != neighbour.mac or not there.up:
        return f"the device there has {there and there.mac}, not {neighbour.mac}"
    return None


def simulate(seed: int) -> int:
    """One sequence: how many steps it had. Raises WrongEnd."""
    with tempfile.TemporaryDirectory() as directory:

        async def play() -> int:
            sequence = Sequence(seed, Path(directory))
            # A backend's draws (a MAC) come from the seed as well.
            with patch.object(secrets, "token_bytes", sequence.rng.randbytes):
                await sequence.play()
            return len(sequence.steps)

        return clock.run(play())
