"""What happens to the agent itself: dead while the others move on, started again, replaced by a newer one, fought."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import flannel_core
from flannel_core.lease import IPNetwork

from ..hosts import Host
from ..network import LabError
from .host import OTHER_ADDRESS, known_addresses, put_back
from .kernel import NEW_MAC
from .scene import BACK_SECONDS, Case, Outcome, Scene, device, expect_none_lost, run_all

DEAD = "agent dead while a peer leaves, joins, changes address or MAC"
START_SECONDS = 1.0
"""From its start on until all is right."""

RESTART = "restart and upgrade under 1,000 packets/s"
PACKETS_PER_SECOND = 1000

FIGHT = "the same route deleted ten times a second"
FIGHT_SECONDS = 5.0
CPU_PERCENT = 5.0
HELD_OFF_SECONDS = 60.0
"""As long as the engine's hold-off can last."""


# --- dead while the others move on -----------------------------------------------------------------------------------


def _dead(scene: Scene) -> Outcome:
    """One peer stays, one leaves, one joins, one changes its address, one (of vxlan) the MAC of its device."""
    a, stays, leaves, moves, renewed, joins = scene.hosts
    before = renewed.env.subnets, moves.env.subnets
    with scene.pinging([a, stays]) as pings:
        scene.ping_some(pings)
        a.kill()
        began = time.monotonic()
        held = leaves.env.subnets
        leaves.stop()
        leaves.store.release(held[0])
        run_all(moves, [f"ip addr del {moves.machine.ipv4} dev eth0", *put_back(OTHER_ADDRESS[4], 4)])
        if scene.combination.backend == "vxlan":
            renewed.stop()
            renewed.run(f"ip link set {device(4)} address {NEW_MAC}")
            renewed.start()
        joins.start()
        others = [stays, moves, renewed, joins]
        scene.lab.wait_until_ready(others)
        scene.lab.eventually(lambda: known_addresses(stays, moves)[:1] == (OTHER_ADDRESS[4].partition("/")[0],))
        scene.wait_until_settled(others)
        time.sleep(max(0.0, scene.outage - (time.monotonic() - began)))
        for host in others:
            host.serve_pod()
        a.start()
        seconds = scene.seconds_until(lambda: _is_right(a, others, leaves, held), START_SECONDS)
        scene.ping_some(pings)
    expect_none_lost(pings)
    scene.wait_until_settled([a, *others])
    if (now := (renewed.env.subnets, moves.env.subnets)) != before:
        raise LabError(f"{renewed.name} and {moves.name} had {before}, and now {now}")
    return Outcome(seconds, pings.lost, pings.sent)


def _is_right(host: Host, others: list[Host], gone: Host, held: tuple[IPNetwork, ...]) -> bool:
    """Everybody else's pod answers, and nothing is left of ``gone``, that ``held`` these."""
    if not all(host.pings(other, within=0.1) for other in others):
        return False
    tables = (
        "ip route",
        "ip -6 route",
        "ip neigh show nud permanent",
        "ip -6 neigh show nud permanent",
        "bridge fdb show",
    )
    shown = set(host.run(f"sh -c '{'; '.join(tables)}'").split())
    machine = (gone.machine.ipv4, gone.machine.ipv6)
    addresses = {str(address.ip) for address in machine if address}
    return shown.isdisjoint({*map(str, held), *(str(subnet.network_address) for subnet in held), *addresses})


# --- started again ---------------------------------------------------------------------------------------------------


def _without_loss(change: Callable[[Scene], None], scene: Scene) -> Outcome:
    """``change`` something about the agent of ``a``, at 1,000 packets/s: none is lost."""
    flows = len(scene.a.flows(scene.b)) * 2
    with scene.pinging(interval=flows / PACKETS_PER_SECOND) as pings:
        began = time.monotonic()
        scene.ping_some(pings)
        change(scene)
        seconds = scene.seconds_until(lambda: scene.a.ready() and scene.is_settled(), BACK_SECONDS)
        scene.ping_some(pings)
        rate = pings.sent / (time.monotonic() - began)
    expect_none_lost(pings)
    return Outcome(seconds, pings.lost, pings.sent, f"{rate:.0f} packets/s")


def _restart(scene: Scene) -> Outcome:
    return _without_loss(lambda scene: scene.a.restart(), scene)


def _kill(scene: Scene) -> Outcome:
    def kill(scene: Scene) -> None:
        scene.a.kill()
        scene.a.start()

    return _without_loss(kill, scene)


def _upgrade(scene: Scene) -> Outcome:
    """The next version: this one's code under another version number, in another directory."""
    a, before = scene.a, scene.a.environment
    directory = scene.lab.directory / "upgrade"
    if not directory.exists():
        package = Path(flannel_core.__file__).parent
        shutil.copytree(package, directory / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        named = directory / package.name / "__init__.py"
        named.write_text(named.read_text().replace(f'"{flannel_core.__version__}"', '"999.0"'))

    def upgrade(scene: Scene) -> None:
        a.environment = {**before, "PYTHONPATH": os.pathsep.join([str(directory), before.get("PYTHONPATH", "")])}
        a.restart()
        scene.lab.wait_until_ready([a])
        if a.status().version != "999.0":
            raise LabError(f"{a.name} runs {a.status().version} after the upgrade")

    try:
        return _without_loss(upgrade, scene)
    finally:
        a.environment = before


# --- fought ----------------------------------------------------------------------------------------------------------


def _fight(scene: Scene) -> Outcome:
    """Held off and named, at little cost; all is right again a minute after the other gave up at the latest."""
    a, b = scene.a, scene.b
    assert a.process is not None
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.1):
            a.run(f"ip route flush {b.subnet}")

    thread = threading.Thread(target=delete, name="deleting a route")
    began, spent = time.monotonic(), _cpu_seconds(a.process.pid)
    thread.start()
    try:
        scene.lab.eventually(lambda: any("something else keeps changing it" in p for p in a.status().problems))
        if not any(f"{b.subnet}" in p and "something else keeps changing it" in p for p in a.status().problems):
            raise LabError(f"the route is not named: {a.status().problems}")
        over.wait(max(FIGHT_SECONDS, scene.outage) - (time.monotonic() - began))
        percent = (_cpu_seconds(a.process.pid) - spent) / (time.monotonic() - began) * 100
    finally:
        over.set()
        thread.join()
    if percent >= CPU_PERCENT:
        raise LabError(f"the agent took {percent:.1f} % of a CPU while something fought it")
    seconds = 0.0
    if scene.outage >= HELD_OFF_SECONDS:  # what is held off waits that long: nothing for a quick look
        seconds = scene.seconds_until(scene.is_settled, HELD_OFF_SECONDS + BACK_SECONDS)
    else:
        scene.restart()
    return Outcome(seconds, 0, 0, f"{percent:.1f} % CPU")


def _cpu_seconds(pid: int) -> float:
    """User and system time that a process has taken (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


CASES = (
    Case(DEAD, DEAD, _dead, hosts=6, started=5),
    Case(FIGHT, FIGHT, _fight, lasts=True),
    Case(RESTART, "restart", _restart),
    Case(RESTART, "kill -9 and start", _kill),
    Case(RESTART, "upgrade", _upgrade),
)
