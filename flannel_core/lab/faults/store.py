"""What happens to etcd, and what is written into any store by somebody who should not."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from ..etcd import EtcdCluster
from ..hosts import Host
from ..network import LabError
from ..stores import EtcdLabStore
from .scene import BACK_SECONDS, Case, Outcome, Scene, differences, expect_none_lost, mac, state, states

AWAY = "etcd black-holed, dead, compacted, restored from an hour-old backup"
AWAY_SECONDS = 15.0
"""What a client may take to find etcd again after a long outage, its longest pause included."""
UNTRUSTED = "leases that cannot be trusted, and keys that do not parse"
PREFIX = "/coreos.com/network"


# --- away ------------------------------------------------------------------------------------------------------------


def _etcd(scene: Scene) -> EtcdCluster:
    store = scene.a.store
    assert isinstance(store, EtcdLabStore)
    return store.cluster


def _leases(scene: Scene) -> set[tuple[str, int]]:
    """Keys and how old they are."""
    return {(lease.key, lease.created) for lease in scene.a.store.leases().leases}


def _black_holed(scene: Scene) -> Outcome:
    ports = ", ".join({str(urlsplit(url).port) for member in _etcd(scene).members for url in member.urls})
    held = _leases(scene)

    def black_hole() -> None:
        scene.on_underlay("nft add table inet lab")
        scene.on_underlay("nft add chain inet lab input { type filter hook input priority 0; }")
        scene.on_underlay(f"nft add rule inet lab input iifname underlay tcp dport {{ {ports} }} drop")
        try:
            time.sleep(scene.outage)
        finally:
            scene.on_underlay("nft delete table inet lab")
        _answers_again(scene)

    outcome = scene.unharmed(black_hole)
    _expect_leases(scene, held)
    return outcome


def _dead(scene: Scene) -> Outcome:
    held = _leases(scene)

    def die() -> None:
        _etcd(scene).kill()
        scene.lab.eventually(lambda: any("connection refused" in problem for problem in scene.a.status().problems))
        time.sleep(scene.outage)
        _etcd(scene).start()
        _answers_again(scene)

    outcome = scene.unharmed(die)
    _expect_leases(scene, held)
    return outcome


def _compacted(scene: Scene) -> Outcome:
    """Away; meanwhile a lease comes and goes, and the history that would tell of it is compacted away."""
    cluster, held = _etcd(scene), _leases(scene)
    stray = f"{PREFIX}/subnets/10.5.250.0-24"

    def compact() -> None:
        for host in scene.hosts:  # so that they miss all of it
            host.run("ip route add blackhole 198.51.100.1")
            host.run("ip -6 route add blackhole 2001:db8:51::1")
        try:
            cluster.control("put", stray, _lease_of(scene, "192.0.2.250", "02:00:00:00:02:50"))
            cluster.control("del", stray)
            time.sleep(scene.outage)
            found = json.loads(cluster.control("get", stray, "--write-out=json"))
            cluster.control("compact", str(found["header"]["revision"]))
        finally:
            for host in scene.hosts:
                host.run("ip route del blackhole 198.51.100.1")
                host.run("ip -6 route del blackhole 2001:db8:51::1")
        _answers_again(scene)

    outcome = scene.unharmed(compact)
    _expect_leases(scene, held)
    return outcome


def _restored(scene: Scene) -> Outcome:
    """To a state before the last host joined."""
    cluster, late = _etcd(scene), scene.hosts[-1]
    backup = scene.lab.directory / f"backup-{time.monotonic_ns()}"
    cluster.save(backup)
    late.start()
    scene.lab.wait_until_ready([late])
    scene.wait_until_settled(scene.hosts)
    keys = {key for key, _ in _leases(scene)}
    before = states(scene.hosts)
    with scene.pinging(scene.hosts) as pings:
        scene.ping_some(pings)
        cluster.kill()
        time.sleep(scene.outage)
        cluster.restore(backup)
        began = time.monotonic()
        _answers_again(scene)
        scene.lab.eventually(lambda: {key for key, _ in _leases(scene)} == keys, AWAY_SECONDS)
        scene.lab.eventually(lambda: scene.is_settled(scene.hosts), BACK_SECONDS)
        seconds = time.monotonic() - began
        scene.ping_some(pings)
    expect_none_lost(pings)
    scene.expect_states(before)
    return Outcome(seconds, 0, pings.sent)


def _answers_again(scene: Scene) -> None:
    """Every agent is ready and has heard from its store."""
    scene.lab.eventually(
        lambda: all(
            host.ready() and (store := host.status().store) and store.reachable and (store.answered_ago or 0) < 11
            for host in scene.running
        ),
        AWAY_SECONDS,
    )


def _expect_leases(scene: Scene, held: set[tuple[str, int]]) -> None:
    now = _leases(scene)
    if now != held:
        raise LabError(f"the leases were {sorted(held)} and are {sorted(now)}")


# --- not to be trusted -----------------------------------------------------------------------------------------------


def _lease_of(scene: Scene, public_ip: str, vtep_mac: str, **more: Any) -> str:
    value: dict[str, Any] = {"PublicIP": public_ip, "BackendType": scene.combination.backend}
    if scene.combination.backend == "vxlan":
        value["BackendData"] = {"VNI": 1, "VtepMAC": vtep_mac}
    return json.dumps({**value, **more})


def untrusted(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """What is written: a key, its value, and a word of the sentence that refuses it."""
    a, b = scene.a, scene.b
    good = _lease_of(scene, "198.51.100.250", "02:00:00:00:02:50")
    yield "10.5.0.0-16", good, "10.5.0.0/16"
    yield "10.77.1.0-24", good, "10.77.1.0/24"
    yield f"{b.subnet.supernet(new_prefix=22)}".replace("/", "-"), good, "overlap"
    yield "10.5.251.0-24", _lease_of(scene, str(a.machine.ipv4.ip), "02:00:00:00:02:51"), "our own"  # type: ignore[union-attr]
    yield "10.5.252.0-24", _lease_of(scene, "224.0.0.7", "02:00:00:00:02:52"), "224.0.0.7"
    yield "10.5.253.0-24", good[: len(good) // 2], "truncated"
    yield "nonsense", good, "nonsense"
    if scene.combination.backend == "vxlan":
        yield "10.5.254.0-24", _lease_of(scene, "198.51.100.251", mac(a, 4)), "MAC"
        yield "10.5.255.0-24", _lease_of(scene, "198.51.100.252", "01:00:5e:00:00:01"), "unicast"


def _untrusted(scene: Scene) -> Outcome:
    """``a`` refuses all of them, says why, and does nothing; ``b`` loses no other peer by what it makes of them."""
    a = scene.a
    entries = list(untrusted(scene))
    before = scene.settled_states()
    before_a, writes = state(a), a.status().writes
    with scene.pinging() as pings:
        scene.ping_some(pings)
        for key, value, _ in entries:
            write_entry(scene, key, value)
        expected = sorted(key for key, _, _ in entries)
        seconds = scene.seconds_until(lambda: keys_refused(a) == expected, BACK_SECONDS)
        reasons = {refused.key: str(refused) for refused in a.status().refused}
        scene.ping_some(pings)
        changed = differences(before_a, state(a))
        for key, _, _ in entries:
            write_entry(scene, key, None)
        scene.lab.eventually(lambda: not any(host.status().refused for host in scene.hosts), BACK_SECONDS)
        scene.ping_some(pings)
    expect_none_lost(pings)
    scene.expect_states(before)
    if changed or a.status().writes != writes:
        raise LabError("\n".join(["what was refused changed a host:", *changed]))
    for key, _, word in entries:
        if word not in reasons[key]:
            raise LabError(f"{key}: {reasons[key]!r} does not say {word!r}")
    return Outcome(seconds, 0, pings.sent)


def keys_refused(host: Host) -> list[str]:
    """Of the leases that the host's agent does not believe."""
    return sorted(refused.key for refused in host.status().refused)


def write_entry(scene: Scene, key: str, value: str | None) -> None:
    """Put an entry beside the leases as an operator does, or (None) take it away."""
    store = scene.a.store
    if isinstance(store, EtcdLabStore):
        words = ["del", f"{PREFIX}/subnets/{key}"] if value is None else ["put", f"{PREFIX}/subnets/{key}", value]
        store.cluster.control(*words)
        return
    with closing(sqlite3.connect(store.options["file"])) as connection, connection:
        connection.execute("DELETE FROM leases WHERE key = ?", (key,))
        if value is not None:
            connection.execute("INSERT INTO leases (key, value) VALUES (?, ?)", (key, value))


CASES = (
    Case(AWAY, "etcd black-holed", _black_holed, stores=("etcd",), lasts=True),
    Case(AWAY, "etcd dead", _dead, stores=("etcd",), lasts=True),
    Case(AWAY, "etcd compacted while nobody could hear", _compacted, stores=("etcd",), lasts=True),
    Case(AWAY, "etcd restored from a backup", _restored, stores=("etcd",), lasts=True, hosts=3, started=2),
    Case(UNTRUSTED, UNTRUSTED, _untrusted),
)
