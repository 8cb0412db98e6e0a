"""Random sequences of faults on real hosts, one upon the other, each from its seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from flannel_core.errors import FlannelError
from flannel_core.lease import FAMILIES
from flannel_core.store import StoreUnavailable

from ..hosts import Host
from ..lab import Lab
from ..network import LabError
from ..stores import EtcdLabStore
from . import firewall, kernel
from .host import OTHER_ADDRESS, address_of, put_back
from .kernel import FLUSHED_ROUTES
from .scene import COMBINATIONS, STORES, Scene, run_all
from .store import untrusted, write_entry

HOSTS = 3
STEPS = (3, 10)
LONGEST_PAUSE = 1.0
END_SECONDS = 75.0
"""What was held off, because too much happened to it, is back a minute later."""

FOREIGN = (
    "ip route add 203.0.113.0/24 via 198.51.100.1 proto static",
    "ip -6 route add 2001:db8:71::/64 via 2001:db8:51::1 proto static",
    "ip neigh add 198.51.100.200 lladdr 02:00:5e:00:53:99 dev eth0 nud permanent",
    "ip link add others0 type bridge",
    "ip addr add 203.0.113.129/32 dev others0",
    "nft add table inet others",
)
"""What somebody else keeps on every host; it has to be there in the end."""

Step = Callable[[Scene, Host, random.Random], None]


def prepare(lab: Lab, seed: int) -> Scene:
    """Hosts for sequences from ``seed`` on, others' things already on them."""
    combination = random.Random(seed).choice([each for each in COMBINATIONS if each.store in STORES])
    scene = Scene(lab, combination, hosts=HOSTS)
    for host in scene.hosts:
        run_all(host, FOREIGN)
    return scene


def play(scene: Scene, seed: int) -> list[str]:
    """One sequence: what was done. Raises LabError, with the seed and all that was done, if the hosts do not become
    what they were, or if a fresh agent would do anything to them."""
    choice = random.Random(seed)
    for host in scene.hosts:
        host.restart()  # what was repaired again and again in the sequence before is held off on purpose
    scene.lab.wait_until_ready(scene.hosts)
    before, done = scene.settled_states(), []
    try:
        for _ in range(choice.randint(*STEPS)):
            host = choice.choice(scene.hosts)
            name = choice.choice(sorted(steps(scene)))
            try:
                steps(scene)[name](scene, host, choice)
            except (FlannelError, StoreUnavailable):
                name += ": in vain"
            pause = choice.choice((0.0, choice.uniform(0, 0.1), choice.uniform(0, LONGEST_PAUSE)))
            done.append(f"{host.name}: {name}; {pause:.3f} s")
            time.sleep(pause)
        _put_right(scene)
        scene.lab.wait_until_ready(scene.hosts)
        scene.lab.eventually(lambda: scene.is_settled(scene.hosts), END_SECONDS)
        scene.expect_states(before)
        _expect_nothing_left_to_do(scene, before)
    except LabError as error:
        raise LabError("\n".join([f"seed {seed}, {scene.combination}:", *done, str(error)])) from error
    return done


def _put_right(scene: Scene) -> None:
    """What others took away they give back."""
    for host in scene.hosts:
        run_all(host, ["ip link set eth0 up", "ip link set eth0 mtu 1500"])
        for family in FAMILIES:
            host.run(f"ip -{family} addr flush dev eth0 to {OTHER_ADDRESS[family].partition('/')[0]}")
            run_all(host, put_back(address_of(host, family), family))
        run_all(host, (command.replace(" add ", " replace ") for command in FOREIGN if " route " in command))
        host.run("ip neigh replace 198.51.100.200 lladdr 02:00:5e:00:53:99 dev eth0 nud permanent")
        if "others" not in host.run("nft list tables"):
            host.run("nft add table inet others")
    store = scene.a.store
    if isinstance(store, EtcdLabStore):
        store.cluster.start()
    for key, _, _ in untrusted(scene):
        write_entry(scene, key, None)
    for host in scene.hosts:
        if not host.running:
            host.start()


def _expect_nothing_left_to_do(scene: Scene, before: str) -> None:
    for host in scene.hosts:
        host.restart()
    scene.lab.wait_until_ready(scene.hosts)
    scene.wait_until_settled(scene.hosts)
    writes = {host.name: host.status().writes for host in scene.hosts}
    if any(writes.values()):
        raise LabError(f"fresh agents found something to do: {writes} writes")
    scene.expect_states(before)


def steps(scene: Scene) -> dict[str, Step]:
    """What may happen in this combination."""
    found: dict[str, Step] = {
        "eth0 down": lambda scene, host, choice: run_all(host, ["ip link set eth0 down"]),
        "eth0 up": _eth0_up,
        "address away": _address_away,
        "another address": _other_address,
        "eth0 mtu 1400": lambda scene, host, choice: run_all(host, ["ip link set eth0 mtu 1400"]),
        "agent killed": lambda scene, host, choice: _kill(host),
        "agent started": lambda scene, host, choice: _start(host),
        "its lease deleted": _lease_deleted,
        "a lease that cannot be trusted": _untrusted,
    }
    faults = kernel.ANYWHERE | (kernel.OF_VXLAN if scene.combination.backend == "vxlan" else {})
    for name, commands in faults.items():
        if name != FLUSHED_ROUTES:  # while eth0 is down, what others had is not to be told from what is lost
            found[name] = _kernel(commands)
    if scene.combination.firewall == "iptables":
        found |= {
            f"iptables: {name}": _firewall([f"{program} {c}" for program in firewall.PROGRAMS for c in commands])
            for name, commands in firewall.IPTABLES.items()
        }
    else:
        found |= {
            f"nft: {name}": _firewall([f"nft {c.format(table=table)}" for table in firewall.TABLES for c in commands])
            for name, commands in firewall.NFT.items()
        }
    if scene.combination.store == "etcd":
        found["etcd killed"] = lambda scene, host, choice: _etcd(scene).cluster.kill()
        found["etcd started"] = lambda scene, host, choice: _etcd(scene).cluster.start()
    return found


def _kernel(commands: kernel.Commands) -> Step:
    def step(scene: Scene, host: Host, choice: random.Random) -> None:
        peer = choice.choice([other for other in scene.hosts if other is not host])
        run_all(host, commands(host, peer, choice.choice(FAMILIES)))

    return step


def _firewall(commands: list[str]) -> Step:
    return lambda scene, host, choice: run_all(host, commands)


def _eth0_up(scene: Scene, host: Host, choice: random.Random) -> None:
    host.run("ip link set eth0 up")
    for family in FAMILIES:
        run_all(host, put_back(address_of(host, family), family))


def _address_away(scene: Scene, host: Host, choice: random.Random) -> None:
    host.run(f"ip addr del {address_of(host, choice.choice(FAMILIES))} dev eth0")


def _other_address(scene: Scene, host: Host, choice: random.Random) -> None:
    if any(OTHER_ADDRESS[4].partition("/")[0] in other.run("ip addr show dev eth0") for other in scene.hosts):
        raise LabError("another host has it")
    host.run(f"ip addr del {address_of(host, 4)} dev eth0")
    run_all(host, put_back(OTHER_ADDRESS[4], 4))


def _kill(host: Host) -> None:
    if host.running:
        host.kill()


def _start(host: Host) -> None:
    if not host.running:
        host.start()


def _lease_deleted(scene: Scene, host: Host, choice: random.Random) -> None:
    if not host.running or not host.ready():
        raise LabError("its subnet would be free for another")
    host.store.release(host.subnet)


def _untrusted(scene: Scene, host: Host, choice: random.Random) -> None:
    key, value, _ = choice.choice(list(untrusted(scene)))
    write_entry(scene, key, value)


def _etcd(scene: Scene) -> EtcdLabStore:
    store = scene.a.store
    assert isinstance(store, EtcdLabStore)
    return store
