"""A target in memory that behaves like a kernel, and a clock that jumps: no test here waits for anything."""

from __future__ import annotations

import asyncio
import inspect
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flannel_core.journal import Journal
from flannel_core.lab.simulation.clock import JumpingLoop
from flannel_core.objects import Address, FdbEntry, Identity, Link, Neighbour, Object, Route, Sysctl, Vxlan
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.engine import Reconciler
from flannel_core.target import Actual, Changed, Failure, Put, Scope, Target, Unknown

KERNEL_STAGES = {Link: 0, Address: 20, Neighbour: 30, FdbEntry: 30, Route: 40}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


class MemoryTarget(Target):
    """``objects`` is what is ours there, ``foreign`` what is not and stands in the way. ``broken`` identities refuse to
    be written, for the reason given. ``external`` devices exist without being ours."""

    def __init__(
        self,
        name: str = "memory",
        stages: Mapping[type[Object], int] = KERNEL_STAGES,
        poll_seconds: float | None = None,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.stages = stages  # type: ignore[misc]
        self.poll_seconds = poll_seconds  # type: ignore[misc]
        self.objects: dict[Identity, Object] = {}
        self.foreign: dict[Identity, Object] = {}
        self.broken: dict[Identity, str] = {}
        self.external = {"eth0"}
        self.kept_as: dict[Identity, Object] = {}
        """What the kernel makes of an object, instead of what it is asked for."""
        self.read_error: Exception | None = None
        self.write_error: Exception | None = None
        self.during_write: Callable[[], None] = lambda: None
        self.write_gate: asyncio.Event | None = None
        self.reads: list[frozenset[str] | None] = []
        self.batches: list[tuple[list[Object], list[Object]]] = []
        self.attempts: list[tuple[float, Object]] = []
        self.watches = 0
        self._queue: asyncio.Queue[Changed | Unknown | Exception | None] = asyncio.Queue()

    # what a test does to it

    def put(self, *objects: Object, tell: bool = True, by: str = "") -> None:
        """Somebody makes these, or makes them otherwise."""
        for item in objects:
            self.objects[item.identity] = item
            if tell:
                self.tell(Changed(item.identity, item, by))

    def lose(self, *objects: Object, tell: bool = True, by: str = "") -> None:
        """Somebody takes these away; a device takes along what lies on it, which is told by ``Unknown`` alone."""
        for item in objects:
            self._take(item)
            if tell and isinstance(item, Link):
                self.tell(Unknown(frozenset({item.name}), "link"))
            elif tell:
                self.tell(Changed(item.identity, None, by))

    def tell(self, news: Changed | Unknown | Exception | None) -> None:
        """None: the watch ends; an exception: it dies of it."""
        self._queue.put_nowait(news)

    def has(self, *objects: Object) -> bool:
        return all(self.objects.get(item.identity) == item for item in objects)

    # what the reconciler does to it

    async def read(self, scope: Scope) -> Iterable[Actual]:
        self.reads.append(scope.only)
        if self.read_error:
            raise self.read_error
        return [Actual(o) for o in self.objects.values() if scope.only is None or o.on_device in scope.only]

    async def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        self.watches += 1
        while (news := await self._queue.get()) is not None:
            if isinstance(news, Exception):
                raise news
            yield news

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        if self.write_gate:
            await self.write_gate.wait()
        if self.write_error:
            raise self.write_error
        self.batches.append(([put.object for put in puts], list(removes)))
        failures = [f for put in puts if (f := self._put(put))]
        for item in removes:
            if item.identity in self.broken:
                failures.append(Failure(item, self.broken[item.identity]))
            else:
                self._take(item)
        self.during_write()
        await asyncio.sleep(0)
        return failures

    def _put(self, put: Put) -> Failure | None:
        item = put.object
        self.attempts.append((asyncio.get_running_loop().time(), item))
        if item.identity in self.broken:
            return Failure(item, self.broken[item.identity])
        if item.identity in self.foreign:
            return Failure(item, "not ours", foreign=True)
        have = self.objects.get(item.identity)
        if put.previous is None and have is not None and not item.satisfied_by(have):
            return Failure(item, "File exists", foreign=True)
        if isinstance(item, Link):
            assert isinstance(item.info, Vxlan)
            links = [other for other in self.objects.values() if isinstance(other, Link) and other.name != item.name]
            for other in links:
                if isinstance(other.info, Vxlan) and other.info.vni == item.info.vni:
                    return Failure(item, f"{other.name} has this VNI", foreign=True)
            if isinstance(have, Link) and item.must_be_remade(have):
                self._take(have)
        elif item.on_device not in (None, *self.external) and ("link", item.on_device) not in self.objects:
            return Failure(item, f"no device {item.on_device}")
        self.objects[item.identity] = self.kept_as.get(item.identity, item)
        return None

    def _take(self, item: Object) -> None:
        self.objects.pop(item.identity, None)
        if isinstance(item, Link):
            self.objects = {i: o for i, o in self.objects.items() if o.on_device != item.name}


class World:
    """A reconciler over one target or more, and the objects that the tests want of it."""

    link = Link("flannel.1", Vxlan(1, "eth0", "192.0.2.1"), 1450)
    address = Address("flannel.1", "10.5.1.0/32")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.target = MemoryTarget()
        self.journal = Journal(clock=lambda: asyncio.get_running_loop().time())
        self.start()

    def start(self, *more: Target, full_read_seconds: float = 60.0) -> Reconciler:
        """A new agent on the host as it is."""
        self.owned = OwnedFile(self.directory / "owned.json")
        self.owned.record(devices=["flannel.1"], networks=["10.5.0.0/16"], external=["eth0"])
        self.reconciler = Reconciler(
            [self.target, *more],
            self.owned,
            self.journal,
            rng=random.Random(1),
            full_read_seconds=full_read_seconds,
        )
        return self.reconciler

    @staticmethod
    def route(n: int, via: str = "") -> Route:
        return Route(f"10.5.{n}.0/24", "flannel.1", gateway=via or f"10.5.{n}.0", onlink=True)

    @staticmethod
    def plain_route(n: int) -> Route:
        return Route(f"10.5.{n}.0/24", "eth0", gateway=f"192.0.2.{n}")

    @classmethod
    def peer(cls, n: int) -> list[Object]:
        mac = f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}"
        return [
            Neighbour("flannel.1", f"10.5.{n}.0", mac),
            FdbEntry("flannel.1", mac, f"192.0.2.{n}"),
            cls.route(n),
        ]

    def want_local(self) -> None:
        self.reconciler.want("local", [self.link, self.address], "this host")

    def want_peer(self, n: int, revision: int = 1) -> None:
        self.reconciler.want(f"peer {n}", self.peer(n), f"lease 10.5.{n}.0-24 revision {revision}")

    async def settled(self, *peers: int) -> None:
        """This host and ``peers`` stand, and everything is forgotten that was done for it."""
        self.want_local()
        for n in peers:
            self.want_peer(n)
        await self.reconciler.settle()
        assert self.reconciler.failures() == []
        self.target.batches.clear()
        self.target.attempts.clear()
        self.target.reads.clear()

    def running(self) -> Running:
        return Running(self.reconciler)

    def actions(self) -> list[tuple[str, str]]:
        return [(entry.action, entry.object) for entry in self.journal.entries()]

    sysctl = Sysctl("net/ipv6/conf/flannel.1/accept_ra", "0", device="flannel.1")

    @staticmethod
    def sysctl_target() -> MemoryTarget:
        target = MemoryTarget("settings", {Sysctl: 10}, poll_seconds=2.0)
        target.external.add("flannel.1")
        return target


class Running:
    """``async with world.running():`` the reconciler's ``run`` goes on inside."""

    def __init__(self, reconciler: Reconciler) -> None:
        self.reconciler = reconciler

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.reconciler.run())

    async def __aexit__(self, *_: object) -> None:
        assert not self.task.done(), "run() ended by itself"
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.reconciler.close()


@pytest.fixture(scope="session")
def scenario() -> Callable[[Callable[[World], Any]], None]:
    """Runs a coroutine function with a world of its own: for hypothesis, which wants a fresh one for each example."""

    def play(script: Callable[[World], Any]) -> None:
        with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(script(World(Path(directory))))

    return play


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
