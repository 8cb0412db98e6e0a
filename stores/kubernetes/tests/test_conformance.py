"""The store does what every store has to do that does not choose its subnets itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flannel_core.conformance.stores import StoreConformance
from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lease_json import MAX_VALUE_BYTES
from flannel_core.store import StoreContext
from flannel_store_kubernetes.kubernetes import KubernetesOptions, KubernetesStore

PREFIX = "flannel.alpha.coreos.com"


class Place:
    """A cluster and the state directory of the one host in it."""

    def __init__(self, cluster: KubernetesServer, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.net_conf = directory / "net-conf.json"


class TestConformance(StoreConformance):
    store_class = KubernetesStore
    allocates = False

    @pytest.fixture
    def place(self, cluster: KubernetesServer, tmp_path: Path) -> Place:
        cluster.faults(bookmark_seconds=1)
        return Place(cluster, tmp_path)

    def make_store(self, place: Place, *, lease_ttl: int = 86_400, dry_run: bool = False) -> KubernetesStore:
        options = KubernetesOptions(kubeconfig=str(place.cluster.write_kubeconfig(place.directory / "kubeconfig")))
        return KubernetesStore(options, StoreContext(place.directory, place.net_conf, dry_run=dry_run))

    async def write_raw(self, place: Place, key: str, value: bytes) -> None:
        """``value``, which is for stores that keep leases as JSON, as the annotations of a node."""
        pod_cidr = "/".join(key.rsplit("-", 1))
        place.cluster.put_nodes([node(key, [pod_cidr], annotations=said_by(value))])

    async def write_unheard(self, place: Place, key: str, value: bytes) -> None:
        place.cluster.down()
        await self.write_raw(place, key, value)
        place.cluster.compact()
        place.cluster.up()

    async def write_config(self, place: Place, text: bytes) -> None:
        new = place.net_conf.with_suffix(".new")
        new.write_bytes(text)
        new.replace(place.net_conf)

    async def everything(self, place: Place) -> object:
        return place.cluster.objects("nodes") + place.cluster.objects("events")


def said_by(value: bytes) -> dict[str, str]:
    said: dict[str, Any] = {"public-ip": value.decode("ascii", "replace")[:MAX_VALUE_BYTES]}
    try:
        lease = json.loads(value)
        said = {"public-ip": lease["PublicIP"], "backend-type": lease.get("BackendType", "")}
        said["backend-data"] = json.dumps(lease.get("BackendData"), separators=(",", ":"))
    except (ValueError, RecursionError, TypeError):
        pass  # nobody could take it for an address, either
    return {f"{PREFIX}/{name}": text for name, text in {"kube-subnet-manager": "true", **said}.items()}
