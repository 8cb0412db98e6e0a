"""Many leases: a start is a constant number of requests, and nothing is too long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from flannel_core.conformance.stores import host, net_conf
from flannel_core.conformance.watching import watching
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import Request
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
