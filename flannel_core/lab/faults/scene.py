"""Hosts that ping each other without end while something is broken, and what became of it.

A :class:`Case` is one thing that goes wrong, in the words of whoever does it; a :class:`Scene` is where it happens.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import TypeVar

from flannel_core.lease import Family

from ..hosts import Host
from ..lab import NETWORK, NETWORK6, Lab
from ..network import LabError, execute
from ..pings import Pinging

BACKENDS = ("vxlan", "host-gw")
STORES = ("sqlite", "etcd")
"""Those that all cases happen with; kubernetes has cases of its own."""
FIREWALLS = ("iptables", "nft")

BACK_SECONDS = 5.0
"""What is broken is back within this time."""
RESYNC_SECONDS = 2
"""``--iptables-resync`` of the agents here: the firewall tells nobody of its changes."""
PING_INTERVAL = 0.01
ENOUGH_PINGS = 40
"""Before something is broken, and after all is right again."""

T = TypeVar("T")


@dataclass(frozen=True)
class Combination:
    """What a scene's hosts run with."""

    backend: str
    store: str
    firewall: str

    def __str__(self) -> str:
        return f"{self.backend}, {self.store}, {self.firewall}"


COMBINATIONS = tuple(Combination(*each) for each in product(BACKENDS, (*STORES, "kubernetes"), FIREWALLS))


@dataclass(frozen=True)
class Outcome:
    """``seconds`` it took until all was right again: without an answer to a ping if any was lost, else until the
    agents had nothing left to do. ``lost`` and ``sent`` count pings. ``said``: what else was measured."""

    seconds: float
    lost: int
    sent: int
    said: str = ""


class Scene:
    """``hosts`` of one new network in ``lab``, with both families, masquerading, of which the first ``started`` (all)
    run. Where the firewall is iptables it forwards nothing by itself.

    ``outage``: seconds for which something stays away before it comes back. ``go``: a Go flanneld, where there is one.
    """

    def __init__(
        self,
        lab: Lab,
        combination: Combination,
        *,
        hosts: int = 2,
        started: int | None = None,
        outage: float = 1.0,
        go: Path | None = None,
    ) -> None:
        self.lab = lab
        self.combination = combination
        self.outage = outage
        self.go = go
        self.hosts = lab.hosts(
            hosts,
            backend=combination.backend,
            store=combination.store,
            ipv6=True,
            configured=False,
            started=False,
        )
        config = {
            "EnableIPv6": True,
            "Network": NETWORK,
            "IPv6Network": NETWORK6,
            "EnableNFTables": combination.firewall == "nft",
            "Backend": {"Type": combination.backend},
        }
        self.hosts[0].store.set_config(json.dumps(config).encode())
        for host in self.hosts:
            host.options = {**host.options, "ip-masq": True, "iptables-resync": str(RESYNC_SECONDS)}
            if combination.firewall == "iptables":
                host.run("iptables -P FORWARD DROP")
                host.run("ip6tables -P FORWARD DROP")
        running = self.hosts[:started]
        for host in running:
            host.start()
        lab.wait_until_ready(running)
        self.wait_until_settled(running)

    @property
    def a(self) -> Host:
        """The host that things happen to."""
        return self.hosts[0]

    @property
    def b(self) -> Host:
        """Its peer."""
        return self.hosts[1]

    @property
    def running(self) -> list[Host]:
        return [host for host in self.hosts if host.running]

    def restart(self) -> None:
        """A fresh agent on ``a``, and all settled: what is repaired again and again is held off on purpose."""
        self.a.restart()
        self.lab.wait_until_ready([self.a])
        self.wait_until_settled()

    def is_settled(self, hosts: Sequence[Host] | None = None) -> bool:
        """All reach each other, and no agent of ours has anything left to do."""
        chosen = self.running if hosts is None else hosts
        idle = not any(host.plan() for host in chosen if host.is_ours)
        return idle and all(one.pings(other) for one, other in permutations(chosen, 2))

    def wait_until_settled(self, hosts: Sequence[Host] | None = None) -> None:
        """Raises LabError where that takes longer than it may."""
        self.lab.eventually(lambda: self.is_settled(hosts), BACK_SECONDS)

    def settled_states(self) -> str:
        """What every host is like once all is settled. Raises LabError where that takes longer than it may."""
        self.wait_until_settled()
        return states(self.running)

    def pinging(self, hosts: Sequence[Host] | None = None, interval: float = PING_INTERVAL) -> Pinging:
        """Pings between all of ``hosts``, ``a`` and ``b`` if they are not given, in both directions and families."""
        chosen = [self.a, self.b] if hosts is None else hosts
        return Pinging([flow for one, other in permutations(chosen, 2) for flow in one.flows(other)], interval)

    def ping_some(self, pings: Pinging) -> None:
        """Wait until a few more have been sent."""
        sent = pings.sent
        self.lab.eventually(lambda: pings.sent >= sent + ENOUGH_PINGS * len(pings.flows))

    def seconds_until(self, holds: Callable[[], T], within: float) -> float:
        """How long it takes. Raises LabError if it takes longer than ``within``."""
        began = time.monotonic()
        self.lab.eventually(holds, within)
        return time.monotonic() - began

    def repaired(self, strike: Callable[[], None], within: float = BACK_SECONDS) -> Outcome:
        """``strike``, and wait until every host is exactly as it was before. Raises LabError if that takes longer than
        ``within`` seconds."""
        before = self.settled_states()
        with self.pinging() as pings:
            self.ping_some(pings)
            strike()
            seconds = self.seconds_until(self.is_settled, within)
            self.ping_some(pings)
        self.expect_states(before)
        return Outcome(pings.outage if pings.lost else seconds, pings.lost, pings.sent)

    def unharmed(self, happening: Callable[[], None], within: float = BACK_SECONDS) -> Outcome:
        """Let ``happening`` pass without a lost ping, all right again ``within`` seconds after it. Raises LabError."""
        before = self.settled_states()
        with self.pinging() as pings:
            self.ping_some(pings)
            happening()
            seconds = self.seconds_until(self.is_settled, within)
            self.ping_some(pings)
        expect_none_lost(pings)
        self.expect_states(before)
        return Outcome(seconds, 0, pings.sent)

    def expect_states(self, before: str) -> None:
        """The hosts that run are as they were. Raises LabError with what differs."""
        try:
            self.lab.eventually(lambda: not differences(before, states(self.running)), BACK_SECONDS)
        except LabError as error:
            changed = differences(before, states(self.running))
            raise LabError("\n".join(["it is not what it was:", *changed, str(error)])) from None

    def on_underlay(self, command: str) -> str:
        """Run a command where the underlay's bridge and the etcd are."""
        return execute(f"flannel-{self.lab.id}-net", command, self.lab.environment)


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong. ``row`` is the line of the table that it stands in. ``happen`` makes it so, waits
    until all is right again, and raises LabError if that is not as promised.

    ``family``: done to one of the two; there is another case for the other. It needs so many ``hosts``, of which the
    first ``started`` (None: all) run, and happens with these backends, stores and firewalls. ``lasts``: something stays
    away for the scene's outage, and other scenes do not disturb what is measured. ``needs_go``: a Go flanneld.
    """

    row: str
    name: str
    happen: Callable[[Scene], Outcome]
    family: Family | None = None
    backends: tuple[str, ...] = BACKENDS
    stores: tuple[str, ...] = STORES
    firewalls: tuple[str, ...] = FIREWALLS
    hosts: int = 2
    started: int | None = None
    lasts: bool = False
    needs_go: bool = False

    def __str__(self) -> str:
        return self.name if self.family is None else f"{self.name}, IPv{self.family}"

    @property
    def combinations(self) -> list[Combination]:
        return [
            each
            for each in COMBINATIONS
            if each.backend in self.backends and each.store in self.stores and each.firewall in self.firewalls
        ]


class Stage:
    """A context manager that gives each case its scene: the one before, if that will do."""

    def __init__(self, outage: float, go: Path | None = None) -> None:
        self._outage = outage
        self._go = go
        self._scene: Scene | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def play(self, case: Case, combination: Combination) -> Outcome:
        """Let ``case`` happen. Raises LabError, which names both, if it does not go as promised."""
        try:
            outcome = case.happen(self._set(case, combination))
        except LabError as error:
            self._clear()
            raise LabError(f"{case} ({combination}): {error}") from error
        if case.hosts != 2 or case.needs_go:
            self._clear()
        return outcome

    def _set(self, case: Case, combination: Combination) -> Scene:
        scene = self._scene
        if scene is not None and scene.combination == combination and case.hosts == 2 and not case.needs_go:
            scene.restart()
            return scene
        self._clear()
        lab = Lab().__enter__()
        try:
            self._scene = Scene(
                lab, combination, hosts=case.hosts, started=case.started, outage=self._outage, go=self._go
            )
        except BaseException:
            lab.close()
            raise
        return self._scene

    def _clear(self) -> None:
        if self._scene is not None:
            self._scene.lab.close()
        self._scene = None


def expect_none_lost(pings: Pinging) -> None:
    """Raises LabError saying how many were, and why."""
    if pings.lost:
        raise LabError(
            f"{pings.lost} of {pings.sent} pings lost ({', '.join(pings.reasons)}), {pings.outage:.3f} s long"
        )


def run_all(host: Host, commands: Iterable[str]) -> None:
    for command in commands:
        host.run(command)


def subnet(host: Host, family: Family) -> str:
    return str(host.subnet if family == 4 else host.subnet6)


def vtep(host: Host, family: Family) -> str:
    """The address that a host's subnet is reached by through the tunnel: its first."""
    return str((host.subnet if family == 4 else host.subnet6).network_address)


def device(family: Family) -> str:
    """The name of the vxlan device of a family, with the default VNI."""
    return "flannel.1" if family == 4 else "flannel-v6.1"


def mac(host: Host, family: Family) -> str:
    """The MAC of the host's vxlan device."""
    return host.run(f"cat /sys/class/net/{device(family)}/address").strip()


SHOWN = """
ip -o -d link show type vxlan
ip -o link show eth0
ip -o addr show
ip route show
ip -6 route show
ip neigh show nud permanent
ip -6 neigh show nud permanent
for device in $(ls /sys/class/net | grep ^flannel); do bridge fdb show dev $device | sed "s/^/$device /"; done
iptables-save
ip6tables-save
nft -s list ruleset
"""
"""All that an agent may have a hand in, and what of others it must leave alone."""
_VOLATILE = re.compile(
    r"^\d+: |^[#:].*|\[\d+:\d+\]| promiscuity.*| qdisc.*qlen \d+| pref (medium|low|high)", re.MULTILINE
)
"""Indices, counters, comments, and what differs between a device and its like made anew."""


def state(host: Host) -> str:
    """What SHOWN prints and subnet.env says, a line each, in a stable order."""
    shown = _VOLATILE.sub("", host.run(f"sh -c '{SHOWN}'"))
    lines = [line for line in (*shown.splitlines(), *host.subnet_file.read_text().splitlines()) if line.strip()]
    return "\n".join(sorted(f"{host.name}: {line.strip()}" for line in lines))


def states(hosts: Iterable[Host]) -> str:
    """Those of several hosts."""
    return "\n".join(state(host) for host in hosts)


def differences(before: str, after: str) -> list[str]:
    """The lines that are gone, after a minus, and those that have come, after a plus."""
    then, now = before.splitlines(), after.splitlines()
    gone, come = Counter(then) - Counter(now), Counter(now) - Counter(then)
    return [*(f"- {line}" for line in gone), *(f"+ {line}" for line in come)]
