"""The store does what every store has to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flannel_core.conformance.stores import StoreConformance
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import StoreContext
from flannel_store_etcd.etcd import EtcdOptions, EtcdStore


class Place:
    """A prefix of the shared etcd. Stores reach it through a proxy, what is done behind their backs goes past it."""

    def __init__(self, prefix: str, raw: Any, proxy: Any) -> None:
        self.prefix = prefix
        self.raw = raw
        self.proxy = proxy


class TestConformance(StoreConformance):
    store_class = EtcdStore
    shortest_ttl = 1

    @pytest.fixture
    def place(self, shared: EtcdCluster, prefix: str, raw: Any, proxies: Callable[[str], Any]) -> Place:
        return Place(prefix, raw, proxies(shared.endpoints))

    def make_store(self, place: Place, *, lease_ttl: int = 86_400, dry_run: bool = False) -> EtcdStore:
        options = EtcdOptions(place.proxy.url, place.prefix, lease_ttl=lease_ttl)
        return EtcdStore(options, StoreContext(Path("/nonexistent"), dry_run=dry_run))

    async def write_raw(self, place: Place, key: str, value: bytes) -> None:
        place.raw.put(f"{place.prefix}/subnets/{key}".encode(), value)

    async def write_unheard(self, place: Place, key: str, value: bytes) -> None:
        place.proxy.cut()
        place.raw.put(f"{place.prefix}/subnets/10.5.98.0-24".encode(), value)
        place.raw.delete(f"{place.prefix}/subnets/10.5.98.0-24".encode())
        await self.write_raw(place, key, value)
        place.raw.compact()
        place.proxy.restore()

    async def everything(self, place: Place) -> object:
        return place.raw.kvs(place.prefix.encode())
