"""Hosts in network namespaces with the real iptables, of a chosen variant, and nft; what a Go flanneld left there is in
data/: ``iptables -S`` and ``nft list ruleset`` of v0.28.9, with iptables 1.8.9 and nft 1.0.6."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest

from flannel_core.firewall.traffic import TrafficRules
from flannel_core.journal import Journal
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import NetworkConfig, Space
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.diff import PlannedChange
from flannel_core.reconciler.engine import Reconciler

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # linux/sched.h
DATA = Path(__file__).parent / "data"
SUBNET, SUBNET6 = IPv4Network("10.5.18.0/24"), IPv6Network("fc00:5:0:12::/64")
IPV4, IPV6 = IPv4Address("192.0.2.10"), IPv6Address("2001:db8::a")
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Agent:
    """The part of an agent that keeps traffic rules, in a host's namespace. Each has its own record of what is its."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self.directory = directory
        self.reconciler: Any = None
        self.rules: Any = None

    def start(
        self,
        *,
        nft: bool = False,
        ipv6: bool = True,
        network: str = "10.5.0.0/16",
        masquerade: bool = True,
        forward: bool = True,
        random_fully: bool = True,
        excludes: tuple[str, ...] = (),
    ) -> Agent:
        """A fresh agent on this host: a pass, and one more now that everything was said, so that it may remove."""
        self._config = config = _config(network, ipv6=ipv6, nft=nft)
        subnet = SUBNET if SUBNET.subnet_of(IPv4Network(network)) else next(IPv4Network(network).subnets(new_prefix=24))
        lease = Lease("K", ipv4=Endpoint(subnet, IPV4), ipv6=Endpoint(SUBNET6, IPV6) if ipv6 else None)

        async def started() -> None:
            self.rules = TrafficRules(
                masquerade=masquerade,
                random_fully=random_fully,
                forward=forward,
                excludes=tuple(map(ip_network, excludes)),
                seconds=0.2,
            )
            owned = OwnedFile(self.directory / "owned.json")
            owned.record(networks=map(str, config.networks))
            self.reconciler = Reconciler(self.rules.targets, owned, Journal(), rng=random.Random(1))
            await self.reconciler.open()
            await self.reconciler.settle()
            self.reconciler.want("traffic rules", await self.rules.wanted(config, lease), "the configuration")
            self.reconciler.suspect()
            await self.reconciler.settle()
            self.reconciler.pruning = True
            await self.reconciler.settle()

        self._host.run(started())
        return self

    def settle(self) -> int:
        """Looks again and repairs; how many objects were written."""

        async def settled() -> int:
            before = self.reconciler.writes
            self.reconciler.suspect()
            await self.reconciler.settle()
            return int(self.reconciler.writes - before)

        return self._host.run(settled())

    def keeps_at_it_until(self, done: Callable[[], bool]) -> None:
        """Runs until ``done``, for 5 s at most."""

        async def running() -> None:
            task = asyncio.create_task(self.reconciler.run())
            try:
                async with asyncio.timeout(5):
                    while not await asyncio.to_thread(done):  # noqa: ASYNC110 - nothing tells
                        await asyncio.sleep(0.02)
            finally:
                task.cancel()

        self._host.run(running())

    def plan(self) -> list[PlannedChange]:
        return self._host.run(self.reconciler.plan())

    def end(self) -> None:
        """Its process ends: nothing is taken away."""
        if self.reconciler is not None:
            self._host.run(self.reconciler.close())

    def withdraw(self) -> None:
        """Takes everything away, as an agent does that wants no rules any more."""

        async def withdrawn() -> None:
            self.reconciler.unwant("traffic rules")
            await self.reconciler.settle()

        self._host.run(withdrawn())

    def failures(self) -> list[str]:
        return [f"{failure.object.describe()}: {failure.reason}" for failure in self.reconciler.failures()]

    def problems(self) -> list[str]:
        """What an operator is told, after another look."""
        self.settle()
        return list(self.rules.problems(self._config))


def _config(network: str, *, ipv6: bool, nft: bool) -> NetworkConfig:
    four, six = IPv4Network(network), IPv6Network("fc00:5::/48")
    return NetworkConfig(
        Space(four, 24, four.network_address, four.broadcast_address),
        Space(six, 64, six.network_address, six.broadcast_address) if ipv6 else None,
        "host-gw",
        {},
        nft,
    )


class Host:
    """A network namespace, a thread that lives in it, and a folder of programs that comes first in its PATH."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.programs = directory / "programs"
        self.programs.mkdir(parents=True)
        self._agents: list[Agent] = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._enter)
        self._loop = self._thread.submit(asyncio.new_event_loop).result()

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.name}").open() as file:
            if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def use(self, variant: str) -> None:
        """``iptables`` and ``ip6tables`` are those of ``legacy`` or ``nft`` from now on."""
        for program in ("iptables", "ip6tables"):
            for part in ("", "-save", "-restore"):
                link = self.programs / f"{program}{part}"
                link.unlink(missing_ok=True)
                link.symlink_to(f"/usr/sbin/{program}-{variant}{part}")

    def script(self, program: str, text: str) -> None:
        """``program`` is this shell script."""
        path = self.programs / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def agent(self) -> Agent:
        directory = self.directory / f"agent-{next(_numbers)}"
        directory.mkdir()
        self._agents.append(Agent(self, directory))
        return self._agents[-1]

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """The result of a coroutine that ran in the namespace, in the one event loop there."""
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()

    def sh(self, script: str) -> str:
        """What a shell script prints in the namespace; it has to succeed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-ec", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}:/usr/sbin"},
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def iptables(self) -> str:
        """As the data were recorded."""
        parts = [
            f"echo '# {program} -t {table} -S'; {program} -t {table} -S"
            for program in ("iptables", "ip6tables")
            for table in ("nat", "filter")
        ]
        return self.sh("; ".join(parts))

    def nft(self) -> str:
        """As the data were recorded."""
        return self.sh("nft list ruleset ip; nft list ruleset ip6")

    def close(self) -> None:
        for agent in self._agents:
            agent.end()
        self._thread.submit(self._loop.close).result()
        self._thread.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture
def new_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Host]]:
    made: list[Host] = []

    def make() -> Host:
        number = next(_numbers)
        made.append(Host(f"fpfw-{os.getpid()}-{number}", tmp_path / f"host-{number}"))
        monkeypatch.setenv("PATH", f"{made[-1].programs}:{os.environ['PATH']}")
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def host(new_host: Callable[[], Host]) -> Host:
    """With the nft variant of iptables."""
    made = new_host()
    made.use("nft")
    return made


@pytest.fixture(params=["legacy", "nft"])
def either(request: pytest.FixtureRequest, new_host: Callable[[], Host]) -> Host:
    """A host with the legacy, then one with the nft variant of iptables."""
    made = new_host()
    made.use(request.param)
    return made


@pytest.fixture
def recorded() -> Callable[[str], str]:
    """What a Go flanneld left, by the name of the record."""
    return lambda name: (DATA / f"{name}.txt").read_text()
