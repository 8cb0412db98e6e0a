"""Many leases and many agents: a start is a constant number of requests, nothing is too long, nobody lists anew."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from typing import Any

from flannel_core.conformance.stores import GO_LEASE, host, net_conf
from flannel_core.conformance.watching import watching
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import Change, Request, Snapshot
from flannel_store_etcd.etcd import EtcdStore

WIDE = net_conf(Network="10.0.0.0/8")
VALUE = (
    b'{"PublicIP":"172.16.%d.%d","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:%02x:%02x"}}'
)


def leases(count: int) -> dict[str, bytes]:
    pairs = [divmod(number, 250) for number in range(count)]
    return {f"10.{high}.{low}.0-24": VALUE % (high, low, high, low) for high, low in pairs}


async def started(store: EtcdStore, number: int) -> None:
    """All that an agent asks of its store until it runs."""
    await anext(aiter(store.config()))
    await store.previous(host(number))
    lease = await store.acquire(Request(WIDE, host(number)))
    keeping = asyncio.create_task(store.keep(lease, 60))
    async with watching(store, 30) as watcher:
        other = await store.announce(lease, host(number + 1))
        await watcher.until(lambda w: w.view[lease.key].revision == other.revision, 5)
    keeping.cancel()


async def test_a_start_is_a_constant_number_of_requests(
    agent: Any, clusters: Callable[..., EtcdCluster], raw_at: Any
) -> None:
    cluster = clusters()
    raw = raw_at(cluster.endpoints)

    async def counted(number: int) -> Counter[str]:
        before = raw.requests()
        async with agent(cluster.endpoints, prefix="/coreos.com/network") as store:
            await started(store, number)
        return raw.requests() - before

    await counted(1)
    few = await counted(101)
    raw.put_leases("/coreos.com/network", leases(3000))
    many = await counted(201)
    assert many["LeaseTimeToLive"] == 0
    assert many.pop("Watch") <= 3  # etcd counts one when it has taken it up: the first count may have missed some
    del few["Watch"]
    assert sum(many.values()) <= sum(few.values()) <= 17


async def test_25_000_leases_are_listed_and_watched(agent: Any, raw: Any, prefix: str) -> None:
    raw.put_leases(prefix, leases(25_000))
    async with agent() as store:
        began = time.monotonic()
        async with watching(store, 30) as watcher:
            assert time.monotonic() - began < 10
            assert len(watcher.view) == 25_000
            lease = await store.acquire(Request(WIDE, host(1, public_ipv4=IPv4Address("203.0.113.1"))))
            await watcher.until(lambda w: lease.key in w.view, 5)
            assert store.unavailable is None
    raw.ask("kv/deleterange", key=f"{prefix}/".encode(), range_end=f"{prefix}0".encode())


AGENTS = 120
RECORDED = 2000


class Heard:
    """What one of many agents hears."""

    def __init__(self, store: EtcdStore) -> None:
        self.store = store
        self.snapshots = 0
        self.newest = ""
        self.back: float | None = None
        """When it had a connection again."""

    async def listen(self) -> None:
        async for event in self.store.leases():
            self.snapshots += isinstance(event, Snapshot)
            if isinstance(event, Change):
                self.newest = event.key

    async def come_back(self) -> None:
        while self.store.unavailable:  # noqa: ASYNC110 - an attribute has no event
            await asyncio.sleep(0.01)
        self.back = time.monotonic()


def sent_bytes(cluster: EtcdCluster) -> float:
    """What the member has sent to its clients since it was started."""
    with urllib.request.urlopen(f"{cluster.endpoints}/metrics", timeout=10) as answer:
        found = re.search(r"^etcd_network_client_grpc_sent_bytes_total (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


async def test_many_agents_come_back_spread_over_time_and_resume_without_a_list(
    agent: Any, clusters: Callable[..., EtcdCluster], raw_at: Any, until: Any
) -> None:
    cluster = clusters()
    raw = raw_at(cluster.endpoints)
    raw.put_leases("/coreos.com/network", leases(RECORDED))
    async with AsyncExitStack() as stack:
        agents = [
            Heard(await stack.enter_async_context(agent(cluster.endpoints, prefix="/coreos.com/network")))
            for _ in range(AGENTS)
        ]
        tasks = [asyncio.create_task(each.listen()) for each in agents]
        own = await agents[0].store.acquire(Request(WIDE, host(1)))
        tasks.append(asyncio.create_task(agents[0].store.keep(own, 60)))
        await until(lambda: all(each.snapshots for each in agents), 60)
        one_list = sent_bytes(cluster) / AGENTS
        cluster.kill()
        await until(lambda: all(each.store.unavailable for each in agents), 20)
        await asyncio.sleep(3)  # an outage, in which their pauses grow
        coming = [asyncio.create_task(each.come_back()) for each in agents]
        await asyncio.to_thread(cluster.start)
        await asyncio.gather(*coming)
        raw.put(b"/coreos.com/network/subnets/10.200.0.0-24", GO_LEASE)
        await until(lambda: all(each.newest == "10.200.0.0-24" for each in agents), 20)
        assert [each.snapshots for each in agents] == [1] * AGENTS
        assert sent_bytes(cluster) < 5 * one_list, "all of them together, and none has listed everything"
        assert raw.requests()["Range"] < 6 * AGENTS
        moments = sorted(each.back for each in agents if each.back is not None)
        busiest = max(sum(at <= other < at + 0.5 for other in moments) for at in moments)
        assert busiest < AGENTS * 0.7, [round(at - moments[0], 2) for at in moments]
        for task in tasks:
            task.cancel()
