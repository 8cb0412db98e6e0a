"""The reconciler over the real kernel, in a network namespace of its own, with ``ip`` as the operator and the judge."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flannel_core.journal import Journal
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Address, FdbEntry, Link, Neighbour, Object, Route, Sysctl, Vxlan
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.engine import Reconciler
from flannel_core.sysctl import SysctlTarget

CLONE_NEWNET = 0x40000000  # linux/sched.h
MAC = "02:00:00:00:01:01"
numbers = itertools.count()


class Host:
    """A host in a namespace: eth0 with 192.0.2.1/24, and the agent's part of it that is tested here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"fprec-{os.getpid()}-{next(numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._enter)
        for line in ("link set lo up", "link add eth0 type veth peer name cable", "link set cable up"):
            self.ip(line)
        for line in ("link set eth0 up", "address add 192.0.2.1/24 dev eth0"):
            self.ip(line)

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.name}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def play(self, script: Callable[[], Awaitable[None]]) -> None:
        """Run a scenario in the namespace."""
        self._thread.submit(lambda: asyncio.run(script())).result()  # type: ignore[arg-type]

    def ip(self, line: str) -> str:
        return self.command(f"ip {line}")

    def command(self, line: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", self.name, *line.split()], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def delete(self) -> None:
        self._thread.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    @asynccontextmanager
    async def agent(
        self, peers: range = range(2, 6), vni: int = 1, network: int = 5, port: int = 8472, subnet: str = "1"
    ) -> AsyncIterator[Reconciler]:
        """An agent that knows these peers and may prune."""
        owned = OwnedFile(self.directory / str(network) / "owned.json")
        owned.record([f"flannel.{vni}"], [f"10.{network}.0.0/16"], ["eth0"])
        reconciler = Reconciler([KernelTarget(), SysctlTarget()], owned, Journal())
        await reconciler.open()
        reconciler.want("local", local(vni, network, port), "this host")
        for n in peers:
            reconciler.want(f"peer {n}", peer(n, vni, network), f"lease 10.{network}.{n}.0-24 revision 1")
        reconciler.pruning = True
        await reconciler.settle()
        running = asyncio.create_task(reconciler.run())
        yield reconciler
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await reconciler.close()


def local(vni: int = 1, network: int = 5, port: int = 8472) -> list[Object]:
    device = f"flannel.{vni}"
    return [
        Link(device, Vxlan(vni, "eth0", "192.0.2.1", port), 1450, MAC, txqueuelen=0),
        Sysctl(f"net/ipv6/conf/{device}/accept_ra", "0", device=device, optional=True),
        Address(device, f"10.{network}.1.0/32"),
    ]


def peer(n: int, vni: int = 1, network: int = 5) -> list[Object]:
    device, mac, vtep = f"flannel.{vni}", f"02:00:00:00:02:{n:02x}", f"10.{network}.{n}.0"
    return [
        Neighbour(device, vtep, mac),
        FdbEntry(device, mac, f"192.0.2.{n}"),
        Route(f"{vtep}/24", device, gateway=vtep, onlink=True),
    ]


async def unchanged(reconciler: Reconciler) -> bool:
    """True if a full read finds nothing to do, once the pass is over that may be under way."""
    await reconciler.settle()
    before = reconciler.writes
    reconciler.suspect()
    await reconciler.settle()
    return reconciler.writes == before and reconciler.failures() == []


async def eventually(holds: Callable[[], bool]) -> None:
    """What is broken is back within five seconds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  what ip prints has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.delete()


def test_everything_stands_after_one_pass_and_a_restart_writes_nothing(host: Host) -> None:
    async def script() -> None:
        async with host.agent() as first:
            assert first.failures() == []
            assert first.writes == 3 + 4 * 3
        assert host.ip("route show proto 76").count("onlink") == 4
        assert host.ip("neigh show dev flannel.1 nud permanent").count("lladdr 02:00:00:00:02") == 4
        assert host.command("bridge fdb show dev flannel.1").count("dst 192.0.2.") == 4
        async with host.agent() as second:
            assert second.state("peer 2").tried
            assert second.writes == 0

    host.play(script)


@pytest.mark.parametrize(
    "deed",
    [
        "ip route del 10.5.2.0/24",
        "ip route flush proto 76",
        "ip route replace 10.5.2.0/24 via 10.5.3.0 dev flannel.1 onlink proto 76",
        "ip neigh del 10.5.2.0 dev flannel.1",
        "ip neigh replace 10.5.2.0 lladdr 02:00:00:00:99:99 dev flannel.1",
        "bridge fdb del 02:00:00:00:02:02 dev flannel.1 dst 192.0.2.2",
        "bridge fdb replace 02:00:00:00:02:02 dev flannel.1 dst 192.0.2.99",
        "bridge fdb append 02:00:00:00:99:99 dev flannel.1 dst 192.0.2.99",
        "ip address del 10.5.1.0/32 dev flannel.1",
        "ip address add 10.5.77.0/24 dev flannel.1",
        "ip link set flannel.1 down",
        "ip link set flannel.1 mtu 1300",
        "ip link set flannel.1 address 02:00:00:00:99:99",
        "ip link del flannel.1",
        "sysctl -qw net.ipv6.conf.flannel/1.accept_ra=1",
    ],
)
def test_what_an_operator_does_is_undone(host: Host, deed: str) -> None:
    async def script() -> None:
        async with host.agent() as reconciler:
            before = seen(host)
            host.command(deed)
            assert seen(host) != before
            await eventually(lambda: seen(host) == before)
            assert await unchanged(reconciler)

    host.play(script)


def seen(host: Host) -> list[str]:
    """All that an operator sees of our device, but for its index."""
    link = host.ip("-details link show").split("\n")
    about = [part for n, line in enumerate(link) if ": flannel.1:" in line for part in link[n : n + 4]]
    return [
        " ".join(about).partition(": ")[2].replace("UNKNOWN", "UP"),
        host.ip("route show table main"),
        "\n".join(sorted(host.command("bridge fdb show").split("\n"))),
        "\n".join(sorted(line for line in host.ip("neigh show nud permanent").split("\n"))),
        host.ip("-4 address show scope global").partition("flannel.1")[2],
        host.command("sysctl -a -r flannel.1.accept_ra$"),
    ]


def test_a_device_that_is_made_again_has_everything_after_one_pass(host: Host) -> None:
    async def script() -> None:
        async with host.agent() as reconciler:
            reconciler.want("local", local(port=4789), "this host")
            await reconciler.settle()
            assert reconciler.failures() == []
            assert "dstport 4789" in host.ip("-details link show flannel.1")
            assert MAC in host.ip("link show flannel.1")
            assert host.ip("route show proto 76").count("onlink") == 4
            assert await unchanged(reconciler)
            assert reconciler.repairs == 0

    host.play(script)


def test_a_foreign_route_is_left_alone_until_it_goes(host: Host) -> None:
    host.ip("route add 10.5.2.0/24 via 192.0.2.77 proto static")

    async def script() -> None:
        async with host.agent() as reconciler:
            (failure,) = reconciler.failures()
            assert failure.foreign
            assert "192.0.2.77" in failure.reason
            assert "192.0.2.77" in host.ip("route show 10.5.2.0/24")
            assert host.ip("route show proto 76").count("onlink") == 3
            host.ip("route del 10.5.2.0/24")
            await eventually(lambda: "dev flannel.1" in host.ip("route show 10.5.2.0/24"))
            assert await unchanged(reconciler)

    host.play(script)


def test_a_device_of_our_name_and_another_type_is_left_alone(host: Host) -> None:
    host.ip("link add flannel.1 type bridge")

    async def script() -> None:
        async with host.agent() as reconciler:
            failures = {failure.object.kind: failure for failure in reconciler.failures()}
            assert failures["link"].foreign
            assert failures["route"].reason.startswith("flannel.1 has to be made first")
        assert "bridge" in host.ip("-details link show flannel.1")

    host.play(script)


def test_a_renamed_device_is_named_once_and_not_with_all_that_lay_on_it(host: Host) -> None:
    async def script() -> None:
        async with host.agent() as reconciler:
            host.ip("link set flannel.1 name mine")
            await eventually(lambda: len(reconciler.failures()) == 3 + 4 * 3)
            assert [e.object for e in reconciler.journal.entries() if e.action == "failed"] == [local()[0].describe()]
            host.ip("link set mine name flannel.1")
            await eventually(lambda: reconciler.failures() == [])
            assert await unchanged(reconciler)

    host.play(script)


def test_what_go_flannel_left_is_adopted_and_the_rest_of_it_removed(host: Host) -> None:
    host.ip(f"link add flannel.1 address {MAC} type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472 nolearning")
    host.ip("link set flannel.1 mtu 1450 up")
    host.ip("address add 10.5.1.0/32 dev flannel.1")
    for n in (2, 200):
        host.ip(f"route add 10.5.{n}.0/24 via 10.5.{n}.0 dev flannel.1 onlink")
    index = host.ip("link show flannel.1").partition(":")[0]

    async def script() -> None:
        async with host.agent() as reconciler:
            assert host.ip("link show flannel.1").partition(":")[0] == index
            assert "proto 76" in host.ip("route show 10.5.2.0/24")
            assert host.ip("route show 10.5.200.0/24") == ""
            assert await unchanged(reconciler)

    host.play(script)


def test_a_change_of_vni_leaves_nothing_of_the_old_one(host: Host) -> None:
    async def script() -> None:
        async with host.agent(vni=1):
            pass
        async with host.agent(vni=2) as reconciler:
            assert reconciler.failures() == []
            assert "flannel.1" not in host.ip("link show")
            assert host.ip("route show proto 76").count("dev flannel.2") == 4
            assert await unchanged(reconciler)
        assert OwnedFile(host.directory / "5" / "owned.json").owned.devices == {"flannel.2"}

    host.play(script)


def test_two_agents_of_different_networks_leave_each_other_alone(host: Host) -> None:
    async def script() -> None:
        async with host.agent(vni=1, network=5) as first, host.agent(vni=2, network=6) as second:
            for _ in range(2):
                assert await unchanged(first)
                assert await unchanged(second)
            assert host.ip("route show proto 76").count("onlink") == 8
            second.unwant("peer 2")
            await second.settle()
            assert host.ip("route show proto 76").count("onlink") == 7
            assert await unchanged(first)

    host.play(script)


def test_the_journal_says_whose_netlink_port_took_a_route(host: Host) -> None:
    async def script() -> None:
        async with host.agent() as reconciler:
            host.ip("route del 10.5.2.0/24")
            await eventually(lambda: reconciler.repairs == 1)
            entry = reconciler.journal.entries()[-1]
            assert (entry.action, entry.cause) == ("repair", "lease 10.5.2.0-24 revision 1")
            assert re.fullmatch(r"netlink port \d+, gone|ip \(pid \d+\)", entry.by)

    host.play(script)
