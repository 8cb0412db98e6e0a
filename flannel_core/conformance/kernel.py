"""The promises of a backend whose objects live in the kernel, tried on a real one.

Each check has a network namespace of its own, with ``eth0`` up in both families, that vanishes with it. Needs root.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flannel_core.backend import Backend, Node, Unreachable
from flannel_core.journal import Journal
from flannel_core.lab.network import in_a_throw_away_namespace, ip_batch
from flannel_core.lease import Lease
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Link, Object
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.engine import Reconciler
from flannel_core.sysctl import SysctlTarget

from .backends import INTERFACE, BackendConformance

REPAIR_SECONDS = 5.0
"""Within this, what is broken is back."""
LOCAL = "this host"
SETTINGS = (
    f"link add {INTERFACE} type veth peer name cable",
    "link set cable up",
    f"link set {INTERFACE} up",
    f"addr add 198.51.100.200/24 dev {INTERFACE}",
    f"addr add 2001:db8:5::c8/64 dev {INTERFACE} nodad",
)


class Fabric:
    """One backend's plans, applied to the namespace by the reconciler of the agent."""

    def __init__(self, backend: Backend[Any, Any], node: Node, directory: Path) -> None:
        self.backend = backend
        self.node = node
        self.owned = OwnedFile(directory / "owned.json")
        self.reconciler = Reconciler([KernelTarget(), SysctlTarget(), *backend.targets()], self.owned, Journal())
        local = list(backend.local(node))
        self.owned.record(
            devices=[item.name for item in local if isinstance(item, Link)],
            networks=map(str, node.config.networks),
            external=[INTERFACE],
        )
        self.reconciler.want(LOCAL, local, LOCAL)
        self.reconciler.pruning = True

    def add(self, lease: Lease) -> list[Object]:
        """Want what reaches one peer, and say what that is."""
        wanted = [item for item in self.backend.peer(self.node, lease) if not isinstance(item, Unreachable)]
        self.reconciler.want(lease.key, wanted, f"lease {lease.key}")
        return wanted

    async def settled(self) -> None:
        await self.reconciler.settle()
        assert [f"{f.object.describe()}: {f.reason}" for f in self.reconciler.failures()] == []


class KernelBackendConformance(BackendConformance):
    """As BackendConformance, and the same plans on a kernel."""

    def on_a_kernel(self, check: Callable[[Path], Awaitable[None]], directory: Path) -> None:
        """Run ``check`` in a namespace of its own."""

        def there() -> None:
            ip_batch(SETTINGS)
            asyncio.run(_awaited(check(directory)))

        in_a_throw_away_namespace(there)

    @asynccontextmanager
    async def fabric(self, directory: Path) -> AsyncIterator[Fabric]:
        backend = self.make_backend(directory)
        announcement = await backend.prepare(self.host(), None, dry_run=True)
        fabric = Fabric(backend, self.node_announcing(announcement), directory)
        await fabric.reconciler.open()
        try:
            yield fabric
        finally:
            await fabric.reconciler.close()

    def test_applying_a_second_time_writes_nothing(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            async with self.fabric(directory) as first:
                for number in (1, 2, 3):
                    first.add(self.lease(number))
                await first.settled()
                node = first.node
            async with self.fabric(directory) as again:
                again.node = node
                again.reconciler.want(LOCAL, list(again.backend.local(node)), LOCAL)
                for number in (1, 2, 3):
                    again.add(self.lease(number))
                await again.settled()
                assert again.reconciler.writes == 0

        self.on_a_kernel(check, tmp_path)

    def test_a_peer_added_and_removed_leaves_nothing(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            async with self.fabric(directory) as fabric:
                fabric.add(self.lease(1))
                await fabric.settled()
                before = _tables()
                wanted = fabric.add(self.lease(2))
                await fabric.settled()
                assert not wanted or _tables() != before
                fabric.reconciler.unwant(self.lease(2).key)
                await fabric.settled()
                assert _tables() == before

        self.on_a_kernel(check, tmp_path)

    def test_a_peer_that_left_while_nobody_looked_is_removed(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            async with self.fabric(directory) as fabric:
                node = fabric.node
                fabric.add(self.lease(1))
                await fabric.settled()
                before = _tables()
                fabric.add(self.lease(2))
                await fabric.settled()
            async with self.fabric(directory) as fabric:
                fabric.node = node
                fabric.reconciler.want(LOCAL, list(fabric.backend.local(node)), LOCAL)
                fabric.add(self.lease(1))
                await fabric.settled()
                assert _tables() == before

        self.on_a_kernel(check, tmp_path)

    def test_each_object_deleted_behind_its_back_returns(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            async with self.fabric(directory) as fabric:
                wanted = [*fabric.backend.local(fabric.node), *fabric.add(self.lease(1))]
                await fabric.settled()
                before = _tables()
                running = asyncio.create_task(fabric.reconciler.run())
                operator = KernelTarget()
                await operator.open()
                try:
                    for item in wanted:
                        if type(item) not in operator.stages:
                            continue
                        await operator.write([], [item])
                        await _until(lambda: _tables() == before, f"{item.describe()} did not come back")
                finally:
                    running.cancel()
                    await operator.close()

        self.on_a_kernel(check, tmp_path)

    def test_foreign_objects_are_untouched(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            ip_batch(
                [
                    f"route add 10.5.77.0/24 via 198.51.100.77 dev {INTERFACE} proto static",
                    f"route add 10.99.0.0/16 via 198.51.100.77 dev {INTERFACE}",
                    f"route add fd00:5:0:77::/64 via 2001:db8:5::77 dev {INTERFACE} proto static",
                    f"neigh add 198.51.100.78 lladdr 02:00:00:00:00:78 dev {INTERFACE} nud permanent",
                ]
            )
            foreign = _tables()
            async with self.fabric(directory) as fabric:
                fabric.add(self.lease(1))
                await fabric.settled()
                fabric.reconciler.unwant(self.lease(1).key)
                await fabric.settled()
                assert foreign <= _tables()

        self.on_a_kernel(check, tmp_path)

    def test_a_foreign_route_in_the_way_is_named_and_the_other_peers_work(self, tmp_path: Path) -> None:
        async def check(directory: Path) -> None:
            ip_batch(
                [
                    f"route add 10.5.1.0/24 via 198.51.100.77 dev {INTERFACE} proto static",
                    f"route add fd00:5:0:1::/64 via 2001:db8:5::77 dev {INTERFACE} proto static",
                ]
            )
            foreign = _tables()
            async with self.fabric(directory) as fabric:
                blocked = fabric.add(self.lease(1))
                fabric.add(self.lease(2))
                await fabric.reconciler.settle()
                assert foreign <= _tables()
                assert all(failure.foreign for failure in fabric.reconciler.failures())
                assert bool(fabric.reconciler.state(self.lease(1).key).failures) == bool(blocked)
                assert fabric.reconciler.state(self.lease(2).key).failures == ()

        self.on_a_kernel(check, tmp_path)


async def _awaited(check: Awaitable[None]) -> None:
    await check


async def _until(condition: Callable[[], bool], complaint: str) -> None:
    try:
        async with asyncio.timeout(REPAIR_SECONDS):
            while not condition():  # noqa: ASYNC110 - the kernel sets no event of ours
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{complaint} within {REPAIR_SECONDS} s") from None


def _tables() -> set[str]:
    """What ``ip`` and ``bridge`` print of this namespace that an agent could have written, a line an item."""
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
        shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        # A device that was made again has another number, a new link-local address and another expiry to count down.
        lines |= {_stable(line) for line in shown.splitlines() if "fe80:" not in line and "ff00::" not in line}
    return lines


def _stable(line: str) -> str:
    number, colon, rest = line.partition(": ")
    return rest.strip() if colon and number.isdigit() else line.strip()
