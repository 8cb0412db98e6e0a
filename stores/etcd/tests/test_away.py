"""etcd is killed, frozen, cut off, compacted or put back to an older state: nothing is lost, nothing heard twice."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flannel_core.conformance.store_kit import net_conf
from flannel_core.conformance.stores import GO_LEASE, IPV4, host
from flannel_core.conformance.watching import Standing, Watcher, watching
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import Alive, Change, Request, Snapshot, StoreUnavailable
from flannel_store_etcd.connection import Connection, NoAnswer
from flannel_store_etcd.rpc import TXN

Make = Callable[..., EtcdCluster]
NAMES = [f"10.5.{number}.0-24" for number in range(1, 200)]


def key(name: str) -> bytes:
    return f"/coreos.com/network/subnets/{name}".encode()


def revisions(watcher: Watcher) -> list[int]:
    return [change.revision for change in watcher.changes]


async def test_killed_and_started_again_it_is_resumed_where_it_was(agent: Any, clusters: Make, until: Any) -> None:
    cluster = clusters()
    async with agent(cluster.endpoints, prefix="/coreos.com/network") as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        await watcher.until(lambda w: lease.key in w.view, 5)
        keeping = asyncio.create_task(store.keep(lease, 60))
        cluster.kill()
        await until(lambda: store.unavailable)
        assert store.unavailable == f"{cluster.endpoints}: connection refused"
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await store.previous(host(1))
        cluster.start()
        await until(lambda: not store.unavailable)
        other = await store.acquire(Request(IPV4, host(2)))
        await watcher.until(lambda w: w.view == Standing(lease, other), 5)
        assert len(watcher.snapshots) == 1
        assert revisions(watcher) == sorted(set(revisions(watcher)))
        assert not keeping.done()
        keeping.cancel()


async def test_what_happens_while_the_connection_is_cut_is_heard_once(
    agent: Any, clusters: Make, raw: Any, proxies: Any, prefix: str, shared: EtcdCluster
) -> None:
    proxy = proxies(shared.endpoints)
    async with agent(proxy.url) as store, watching(store, 5) as watcher:
        raw.put(f"{prefix}/subnets/10.5.250.0-24".encode(), GO_LEASE)
        await watcher.until(lambda w: w.view, 5)
        for name in NAMES[:50]:
            if name in NAMES[::10]:
                proxy.cut()
            raw.put(f"{prefix}/subnets/{name}".encode(), GO_LEASE)
            proxy.restore()
        await watcher.until(lambda w: len(w.view) == 51, 10)
        assert [change.key for change in watcher.changes[1:]] == NAMES[:50]
        assert len(watcher.snapshots) == 1


async def test_a_start_while_a_leader_is_elected_waits_for_it(agent: Any, clusters: Make, raw_at: Any) -> None:
    """The members that are left first wait for the frozen one, and then refuse what they have not answered yet."""
    cluster = clusters(members=3)
    status = {member: raw_at(member.urls[0]).ask("maintenance/status") for member in cluster.members}
    (leader,) = (member for member, said in status.items() if said["header"]["member_id"] == said["leader"])
    rest = ",".join(member.urls[0] for member in cluster.members if member is not leader)
    leader.freeze()
    try:
        async with agent(rest, prefix="/coreos.com/network") as store:
            assert await store.acquire(Request(IPV4, host(1)))
    finally:
        leader.thaw()


async def test_a_member_that_is_frozen_is_left_for_another(agent: Any, clusters: Make) -> None:
    cluster = clusters(members=3)
    async with agent(cluster.endpoints, prefix="/coreos.com/network") as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        await watcher.until(lambda w: lease.key in w.view, 5)
        ours = store._client._connection.endpoint
        member = next(member for member in cluster.members if member.urls == (str(ours),))
        member.freeze()
        try:
            async with agent(cluster.endpoints, prefix="/coreos.com/network") as other:
                began = time.monotonic()
                second = await other.acquire(Request(IPV4, host(2)))
                assert time.monotonic() - began < 5
            await watcher.until(lambda w: w.view == Standing(lease, second), 20)
            assert (await store.announce(lease, host(3))).key == lease.key
            assert store._client._connection.endpoint != ours
            assert len(watcher.snapshots) == 1
            assert store.unavailable is None
        finally:
            member.thaw()


async def test_an_agent_that_starts_while_the_first_member_is_frozen_is_hardly_slower(
    agent: Any, clusters: Make
) -> None:
    cluster = clusters(members=3)
    cluster.members[0].freeze()
    try:
        for _ in range(5):  # members are tried in an order of chance
            async with agent(cluster.endpoints, prefix="/coreos.com/network") as store:
                began = time.monotonic()
                await store.acquire(Request(IPV4, host(1)))
                assert time.monotonic() - began < 3
    finally:
        cluster.members[0].thaw()


async def test_a_member_without_a_quorum_is_not_believed(agent: Any, clusters: Make, until: Any) -> None:
    cluster = clusters(members=3)
    async with agent(cluster.endpoints, prefix="/coreos.com/network") as store, watching(store, 5):
        lease = await store.acquire(Request(IPV4, host(1)))
        for member in cluster.members[1:]:
            member.kill()
        await until(lambda: store.unavailable)
        with pytest.raises(StoreUnavailable):
            await store.previous(host(1))
        cluster.start()
        await until(lambda: not store.unavailable)
        assert (await store.previous(host(1))).key == lease.key


async def test_a_connection_on_which_nothing_passes_any_more_is_noticed(
    agent: Any, raw: Any, proxies: Any, prefix: str, shared: EtcdCluster, until: Any
) -> None:
    proxy = proxies(shared.endpoints)
    async with agent(proxy.url) as store, watching(store, 5) as watcher:
        proxy.deafen()
        await until(lambda: store.unavailable)
        assert "does not answer" in store.unavailable
        raw.put(f"{prefix}/subnets/10.5.7.0-24".encode(), GO_LEASE)
        assert not any(isinstance(event, Alive) for event in watcher.events)
        proxy.restore()
        await watcher.until(lambda w: "10.5.7.0-24" in w.view, 10)


async def test_a_store_restored_from_an_older_state_is_a_new_snapshot(
    agent: Any, clusters: Make, tmp_path: Path
) -> None:
    cluster = clusters()
    async with agent(cluster.endpoints, prefix="/coreos.com/network") as store, watching(store, 5) as watcher:
        kept = await store.acquire(Request(IPV4, host(1)))
        cluster.save(tmp_path / "backup")
        gone = await store.acquire(Request(IPV4, host(2)))
        await watcher.until(lambda w: w.view == Standing(kept, gone), 5)
        keeping = [asyncio.create_task(store.keep(lease, 60)) for lease in (kept, gone)]
        cluster.restore(tmp_path / "backup")
        await watcher.until(lambda w: w.view == Standing(kept), 10)
        assert len(watcher.snapshots) == 2
        assert watcher.snapshots[1].revision < gone.revision
        lost = await asyncio.wait_for(keeping[1], 5)
        assert lost.holder is None
        assert not keeping[0].done()
        keeping[0].cancel()
        again = await store.acquire(Request(IPV4, host(2, previous_subnets=gone.subnets)))
        assert again.subnets == gone.subnets


async def test_a_restored_store_that_has_come_as_far_again_is_a_new_snapshot_too(
    agent: Any, clusters: Make, proxies: Any, tmp_path: Path
) -> None:
    """Even where another host has the subnet of one that is gone, from the same revision on."""
    two = net_conf(SubnetMin="10.5.1.0", SubnetMax="10.5.2.0")
    cluster = clusters()
    proxy = proxies(cluster.endpoints)
    async with agent(proxy.url, prefix="/coreos.com/network") as store, watching(store, 5) as watcher:
        kept = await store.acquire(Request(two, host(1)))
        cluster.save(tmp_path / "backup")
        gone = await store.acquire(Request(two, host(2)))
        await watcher.until(lambda w: w.view == Standing(kept, gone), 5)
        proxy.cut()
        cluster.restore(tmp_path / "backup")
        async with agent(cluster.endpoints, prefix="/coreos.com/network") as other:
            new = [await other.acquire(Request(*wanted)) for wanted in ((two, host(3)), (IPV4, host(4)))]
        assert new[0].subnets == gone.subnets
        assert new[-1].revision > gone.revision
        proxy.restore()
        await watcher.until(lambda w: w.view == Standing(kept, *new), 10)
        assert len(watcher.snapshots) == 2


async def test_another_cluster_at_the_same_address_is_a_new_snapshot(agent: Any, clusters: Make, proxies: Any) -> None:
    one, two = clusters(), clusters()
    proxy = proxies(one.endpoints)
    async with agent(proxy.url) as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        await watcher.until(lambda w: lease.key in w.view, 5)
        async with agent(two.endpoints) as there:
            others = [await there.acquire(Request(IPV4, host(number))) for number in range(2, 12)]
        proxy.turn_to(two.endpoints)
        await watcher.until(lambda w: w.view == Standing(*others), 10)
        assert len({snapshot.cluster for snapshot in watcher.snapshots}) == 2


async def test_a_lease_outlives_an_outage_longer_than_its_time_to_live(agent: Any, clusters: Make) -> None:
    cluster = clusters()
    async with agent(cluster.endpoints, lease_ttl=5) as store:  # longer than the client ever waits to try again
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 2))
        cluster.kill()
        await asyncio.sleep(6)
        cluster.start()
        await asyncio.sleep(6)
        assert not keeping.done()
        assert (await store.previous(host(1))).created == lease.created
        keeping.cancel()


@pytest.mark.parametrize("done", [True, False], ids=["it was done", "it was not done"])
@pytest.mark.parametrize("what", ["create", "announce"])
async def test_a_transaction_whose_answer_is_lost_is_read_back(
    agent: Any, raw: Any, prefix: str, monkeypatch: Any, what: str, done: bool
) -> None:
    call = Connection.call
    lost = 0

    async def call_and_lose_the_first_answer(self: Connection, method: Any, request: Any, **how: Any) -> Any:
        nonlocal lost
        if method is TXN and lost == 0:
            lost += 1
            if done:
                await call(self, method, request, **how)
            raise NoAnswer("the answer was lost")
        return await call(self, method, request, **how)

    async with agent() as store:
        if what == "announce":
            before = await store.acquire(Request(IPV4, host(1)))
        monkeypatch.setattr(Connection, "call", call_and_lose_the_first_answer)
        if what == "create":
            lease = await store.acquire(Request(IPV4, host(1)))
        else:
            lease = await store.announce(before, host(2))
            assert (lease.key, lease.created) == (before.key, before.created)
        assert lost == 1
        (record,) = raw.kvs(f"{prefix}/subnets/".encode())
        assert int(record["mod_revision"]) == lease.revision
        assert raw.ask("lease/timetolive", ID=record["lease"])["TTL"] is not None


async def test_a_create_that_is_done_only_after_it_was_given_up_leaves_no_second_lease(
    agent: Any, raw: Any, prefix: str, monkeypatch: Any
) -> None:
    call = Connection.call
    late: list[Any] = []

    async def call_and_hold_the_first_back(self: Connection, method: Any, request: Any, **how: Any) -> Any:
        if method is TXN and not late:
            late.append(request)
            raise NoAnswer("the answer was lost")
        return await call(self, method, request, **how)

    async with agent() as store:
        monkeypatch.setattr(Connection, "call", call_and_hold_the_first_back)
        lease = await store.acquire(Request(IPV4, host(1)))
        with pytest.raises(StoreUnavailable, match="lease not found"):
            await store._client.call(TXN, late[0])
        assert list(raw.get(f"{prefix}/subnets/".encode())) == [f"{prefix}/subnets/{lease.key}".encode()]


@pytest.mark.drawn(1)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_waiting_for_etcd_costs_next_to_nothing(agent: Any, scheme: str) -> None:
    endpoints = ",".join(f"{scheme}://127.0.0.1:{port}" for port in (1, 2, 3))
    async with agent(endpoints) as store:
        waiting = [asyncio.create_task(anext(aiter(each))) for each in (store.leases(), store.config())]
        await asyncio.sleep(0.5)
        before, began = time.process_time(), time.monotonic()
        await asyncio.sleep(2.5)
        assert (time.process_time() - before) / (time.monotonic() - began) < 0.05
        assert not any(task.done() for task in waiting)


async def test_a_closed_store_ends_what_waits(agent: Any) -> None:
    async with agent("http://127.0.0.1:1") as store:
        waiting = [asyncio.create_task(anext(aiter(each), None)) for each in (store.leases(), store.config())]
        await asyncio.sleep(0.1)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [None, None]


async def test_a_compaction_behind_a_watch_that_is_up_to_date_is_not_noticed(agent: Any, raw: Any, prefix: str) -> None:
    async with agent() as store, watching(store, 5) as watcher:
        raw.put(f"{prefix}/subnets/{NAMES[0]}".encode(), GO_LEASE)
        await watcher.until(lambda w: w.view, 5)
        for name in NAMES[1:5]:
            raw.put(f"{prefix}/subnets/{name}".encode(), GO_LEASE)
            raw.compact()
        await watcher.until(lambda w: len(w.view) == 5, 5)
        assert len(watcher.snapshots) == 1


@pytest.mark.drawn(1)
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_cut_and_compacted_nothing_is_lost_or_heard_twice(
    agent: Any, raw: Any, proxies: Any, prefix: str, shared: EtcdCluster, seed: int
) -> None:
    rng = random.Random(seed)
    proxy = proxies(shared.endpoints)

    def disturb() -> None:
        match rng.randrange(8):
            case 0:
                proxy.cut()
            case 1:
                raw.put(f"{prefix}/other".encode(), b"")  # a revision can be compacted once
                raw.compact()
            case 2 | 3:
                proxy.restore()
            case 4:
                raw.delete(f"{prefix}/subnets/{rng.choice(NAMES)}".encode())
            case _:
                raw.put(f"{prefix}/subnets/{rng.choice(NAMES)}".encode(), GO_LEASE)

    async with agent(proxy.url) as store, watching(store, 5) as watcher:
        for _ in range(300):
            await asyncio.to_thread(disturb)
            await asyncio.sleep(rng.choice((0, 0, 0.01)))
        proxy.restore()
        raw.put(f"{prefix}/subnets/10.5.255.0-24".encode(), GO_LEASE)
        await watcher.until(lambda w: "10.5.255.0-24" in w.view, 10)
        stands = {kv["key"]: int(kv["mod_revision"]) for kv in raw.kvs(f"{prefix}/subnets/".encode())}
        told = {f"{prefix}/subnets/{name}".encode(): entry.revision for name, entry in watcher.view.items()}
        assert told == {base64.b64decode(key): revision for key, revision in stands.items()}
        heard = 0
        for event in watcher.events:
            if isinstance(event, Snapshot):
                heard = max(heard, event.revision)
            elif isinstance(event, Change):
                assert event.revision > heard
                heard = event.revision
