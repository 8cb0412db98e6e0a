"""The promises of a backend, tried on a real kernel.

Each check has a network namespace of its own, with ``eth0`` up in both families, that vanishes with it; the pings a lab
of two hosts with an agent each. Needs root.
"""

from __future__ import annotations

import asyncio
import functools
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from flannel_core import plugins
from flannel_core.backend import Backend, Node, Unreachable
from flannel_core.journal import Journal
from flannel_core.lab import Lab
from flannel_core.lab.network import in_a_throw_away_namespace, ip_batch
from flannel_core.lab.patience import PATIENCE
from flannel_core.lease import Family, Lease
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.netlink.offloads import OffloadTarget
from flannel_core.objects import Link, Object
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.engine import Reconciler
from flannel_core.sysctl import SysctlTarget
from flannel_core.target import Scope

from .applying import needs
from .backends import INTERFACE, BackendConformance

LOCAL = "this host"
SETTINGS = (
    f"link add {INTERFACE} type veth peer name cable",
    "link set cable up",
    f"link set {INTERFACE} up",
    f"addr add 198.51.100.200/24 dev {INTERFACE}",
    f"addr add 2001:db8:5::c8/64 dev {INTERFACE} nodad",
)
Check = Callable[..., Awaitable[None]]


def in_a_namespace(*features: str) -> Callable[[Check], Callable[..., None]]:
    """An async check as pytest calls it, in a namespace of its own, for backends that have these features."""

    def as_test(body: Check) -> Callable[..., None]:
        @needs(*features)
        @functools.wraps(body)
        def run(self: Any, *arguments: Any, **named: Any) -> None:
            async def bounded() -> None:
                async with asyncio.timeout(60 * PATIENCE):
                    await _until(_has_carrier, 5.0, f"{INTERFACE} has no carrier")
                    await body(self, *arguments, **named)

            def there() -> None:
                ip_batch(SETTINGS)
                asyncio.run(bounded())

            in_a_throw_away_namespace(there)

        return run

    return as_test


class Fabric:
    """One backend's plans, applied to the namespace by the reconciler of the agent, and an operator beside it."""

    def __init__(self, backend: Backend[Any, Any], node: Node, directory: Path) -> None:
        self.backend = backend
        self.node = node
        self._owned = OwnedFile(directory / "owned.json")
        targets = [KernelTarget(), SysctlTarget(), OffloadTarget(), *backend.targets()]
        self.reconciler = Reconciler(targets, self._owned, Journal())
        self._operator = [KernelTarget(), *backend.targets()]
        self._wanted: dict[str, list[Object]] = {}
        local = list(backend.local(node))
        self._owned.record(
            devices=[item.name for item in local if isinstance(item, Link)],
            networks=map(str, node.config.networks),
            external=[INTERFACE],
        )
        self._want(LOCAL, local)
        self.reconciler.pruning = True

    async def open(self) -> None:
        await self.reconciler.open()
        for target in self._operator:
            await target.open()

    async def close(self) -> None:
        for target in self._operator:
            await target.close()
        await self.reconciler.close()

    @property
    def wanted(self) -> list[Object]:
        return [item for items in self._wanted.values() for item in items]

    def _want(self, owner: str, items: list[Object]) -> None:
        self._wanted[owner] = items
        self.reconciler.want(owner, items, owner)

    def add(self, lease: Lease) -> None:
        """Want what reaches one peer."""
        reached = self.backend.peer(self.node, lease)
        self._want(lease.key, [item for item in reached if not isinstance(item, Unreachable)])

    def remove(self, lease: Lease) -> None:
        """Want it no longer."""
        del self._wanted[lease.key]
        self.reconciler.unwant(lease.key)

    async def settled(self) -> None:
        """A pass of the reconciler in which everything succeeds."""
        await self.reconciler.settle()
        assert [f"{f.object.describe()}: {f.reason}" for f in self.reconciler.failures()] == []

    async def seen(self) -> set[str]:
        """What an operator sees that the agent could have written, a line an item: with ``ip`` and ``bridge`` in the
        kernel, through the backend's own targets elsewhere."""
        owned = self._owned.owned
        wanted = frozenset(item.identity for item in self.wanted)
        scope = Scope(owned.devices, tuple(sorted(owned.networks)), owned.external, owned.records, wanted)
        found = _tables()
        for target in self._operator[1:]:
            found |= {actual.object.describe() for actual in await target.read(scope)}
        return found

    async def delete(self, item: Object) -> bool:
        """As an operator would. False: this kind knows no absence."""
        for target in self._operator:
            if type(item) in target.stages:
                await target.write([], [item])
                return item.removable
        return False


class KernelBackendConformance(BackendConformance):
    """As BackendConformance, and the same plans on a kernel."""

    patience: ClassVar[float] = 5.0
    """Seconds within which what is broken is back, and a ping is answered (its handshake_seconds not counted)."""
    lab_store: ClassVar[str] = "sqlite"
    """Where the hosts that ping each other lease their subnets. Its plugin has to be installed for that."""

    @classmethod
    def features(cls) -> frozenset[str] | None:
        features = super().features()
        installed = cls.lab_store in plugins.names("store")
        return features if features is None or not installed else features | {"a_store_for_the_lab"}

    @asynccontextmanager
    async def fabric(self, directory: Path, node: Node | None = None) -> AsyncIterator[Fabric]:
        """An agent that starts; with ``node``, one that was there before."""
        backend = self.make_backend(directory)
        if node is None:
            node = self.node_announcing(await backend.prepare(self.host(), None, dry_run=True))
        fabric = Fabric(backend, node, directory)
        await fabric.open()
        try:
            yield fabric
        finally:
            await fabric.close()

    @in_a_namespace()
    async def test_applying_a_second_time_writes_nothing(self, tmp_path: Path) -> None:
        async with self.fabric(tmp_path) as first:
            for number in (1, 2, 3):
                first.add(self.lease(number))
            await first.settled()
        async with self.fabric(tmp_path, first.node) as again:
            for number in (1, 2, 3):
                again.add(self.lease(number))
            await again.settled()
            assert again.reconciler.writes == 0

    @in_a_namespace("forwarding")
    async def test_a_peer_added_and_removed_leaves_nothing(self, tmp_path: Path) -> None:
        async with self.fabric(tmp_path) as fabric:
            fabric.add(self.lease(1))
            await fabric.settled()
            before = await fabric.seen()
            fabric.add(self.lease(2))
            await fabric.settled()
            assert await fabric.seen() != before
            fabric.remove(self.lease(2))
            await fabric.settled()
            assert await fabric.seen() == before

    @in_a_namespace("forwarding")
    async def test_a_peer_that_left_while_nobody_looked_is_removed(self, tmp_path: Path) -> None:
        async with self.fabric(tmp_path) as fabric:
            fabric.add(self.lease(1))
            await fabric.settled()
            before = await fabric.seen()
            fabric.add(self.lease(2))
            await fabric.settled()
        async with self.fabric(tmp_path, fabric.node) as fabric:
            fabric.add(self.lease(1))
            await fabric.settled()
            assert await fabric.seen() == before

    @in_a_namespace()
    async def test_each_object_deleted_behind_its_back_returns(self, tmp_path: Path) -> None:
        async with self.fabric(tmp_path) as fabric:
            fabric.add(self.lease(1))
            await fabric.settled()
            before = await fabric.seen()
            running = asyncio.create_task(fabric.reconciler.run())
            try:
                for item in fabric.wanted:
                    if await fabric.delete(item):
                        await _until(
                            lambda: _same(fabric, before), self.patience, f"{item.describe()} is not as it was again"
                        )
            finally:
                running.cancel()

    @in_a_namespace()
    async def test_foreign_objects_are_untouched(self, tmp_path: Path) -> None:
        ip_batch(
            [
                f"route add 10.5.77.0/24 via 198.51.100.77 dev {INTERFACE} proto static",
                f"route add 10.99.0.0/16 via 198.51.100.77 dev {INTERFACE}",
                f"route add fd00:5:0:77::/64 via 2001:db8:5::77 dev {INTERFACE} proto static",
                f"neigh add 198.51.100.78 lladdr 02:00:00:00:00:78 dev {INTERFACE} nud permanent",
            ]
        )
        foreign = _tables()
        async with self.fabric(tmp_path) as fabric:
            fabric.add(self.lease(1))
            await fabric.settled()
            assert foreign <= _tables()
            fabric.remove(self.lease(1))
            await fabric.settled()
            assert foreign <= _tables()

    @in_a_namespace("forwarding")
    async def test_a_foreign_route_in_the_way_harms_no_other_peer(self, tmp_path: Path) -> None:
        ip_batch(
            [
                f"route add 10.5.1.0/24 via 198.51.100.77 dev {INTERFACE} proto static",
                f"route add fd00:5:0:1::/64 via 2001:db8:5::77 dev {INTERFACE} proto static",
            ]
        )
        foreign = _tables()
        async with self.fabric(tmp_path) as fabric:
            fabric.add(self.lease(1))
            fabric.add(self.lease(2))
            await fabric.reconciler.settle()
            assert foreign <= _tables()
            assert all(failure.foreign for failure in fabric.reconciler.failures())
            assert fabric.reconciler.state(self.lease(2).key).failures == ()

    @needs("forwarding", "IPv4", "a_store_for_the_lab")
    def test_pods_of_two_hosts_ping_each_other_over_ipv4(self) -> None:
        assert self.unanswered(4) == []

    @needs("forwarding", "IPv6", "a_store_for_the_lab")
    def test_pods_of_two_hosts_ping_each_other_over_ipv6(self) -> None:
        assert self.unanswered(6) == []

    def unanswered(self, family: Family) -> list[str]:
        """Which pings fail, and why, between hosts whose agents find the backend by its name, as a user's do."""
        options = dict(self.config)
        name = options.pop("Type")
        with Lab() as lab:
            lab.hosts(2, backend=name, store=self.lab_store, ipv4=family == 4, ipv6=family == 6, options=options)
            pings = lab.ping_table(within=self.patience + self.backend.handshake_seconds)
        assert pings
        return [f"{ping.source} to {ping.target}: {ping.reason}" for ping in pings if ping.milliseconds is None]


async def _same(fabric: Fabric, before: set[str]) -> bool:
    return await fabric.seen() == before


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float, complaint: str) -> None:
    try:
        async with asyncio.timeout(seconds * PATIENCE):
            while not await condition():  # noqa: ASYNC110 - the kernel sets no event of ours
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{complaint} after {seconds} s") from None


async def _has_carrier() -> bool:
    """The kernel finds out a little after the link is up; until then its routes are printed with ``linkdown``."""
    return _printed("ip -o link show").count("state UP") == 2


def _tables() -> set[str]:
    """What ``ip`` and ``bridge`` print of this namespace."""
    commands = (
        "ip -o -d link show",
        "ip -o -4 addr show",
        "ip -o -6 addr show scope global",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip neigh show nud permanent",
        "bridge fdb show",
    )
    lines: set[str] = set()
    for command in commands:
        # A device that was made again has another number, a new link-local address and another expiry to count down.
        shown = _printed(command).splitlines()
        lines |= {_stable(line) for line in shown if "fe80:" not in line and "ff00::" not in line}
    return lines


def _printed(command: str) -> str:
    return subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout


def _stable(line: str) -> str:
    number, colon, rest = line.partition(": ")
    return rest.strip() if colon and number.isdigit() else line.strip()
