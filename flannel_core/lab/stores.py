"""The store that the agents of a lab share, and the server behind it where one is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from flannel_core.lease import IPNetwork, Lease
from flannel_core.plugins import load_store
from flannel_core.store import Snapshot, StoreContext, SubnetStore

from .etcd import EtcdCluster
from .network import UNDERLAY4, UNDERLAY6, LabError, inside

T = TypeVar("T")


class LabStore:
    """``options`` are the fields of the store's Options; as options of flanneld they are named ``--NAME-FIELD``."""

    def __init__(self, name: str, options: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.options = options
        self._directory = directory

    @property
    def arguments(self) -> Mapping[str, str | bool]:
        """What flanneld and flannelctl are given to use this store."""
        return {"store": self.name} | {f"{self.name}-{field}": value for field, value in self.options.items()}

    def join(self, host: str) -> dict[str, str]:
        """Make ready for a host of this name. Returns the variables that its agent is started with."""
        return {}

    def set_config(self, text: bytes) -> None:
        """Write net-conf.json, whatever it says."""
        self._ask(lambda store: store.set_config(text))

    def release(self, subnet: IPNetwork) -> None:
        """Give back a host's subnet, as when the host is gone for good."""
        self._ask(lambda store: store.release(subnet))

    def reserve(self, lease: Lease) -> None:
        """Make a lease that never expires."""
        self._ask(lambda store: store.reserve(lease))

    def leases(self) -> Snapshot:
        """All leases there are."""
        return self._ask(lambda store: store.list())

    def _ask(self, question: Callable[[SubnetStore[Any]], Coroutine[Any, Any, T]]) -> T:
        store_class = load_store(self.name)
        options = msgspec.convert(dict(self.options), store_class.Options, strict=False)

        async def ask() -> T:
            store = store_class(options, StoreContext(self._directory))
            await store.open()
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(ask())


class EtcdLabStore(LabStore):
    """An etcd of its own in the underlay's namespace, at the address of the bridge. ``cluster`` has its members, to be
    killed and frozen."""

    def __init__(self, directory: Path, namespace: str, environment: Mapping[str, str], members: int) -> None:
        self.cluster = EtcdCluster(
            directory,
            members=members,
            addresses=(str(UNDERLAY4[1]), f"[{UNDERLAY6[1]}]"),
            namespace=namespace,
            environment=environment,
            options=("--unsafe-no-fsync",),  # nobody needs a lab's leases after a power cut
        )
        super().__init__("etcd", {"endpoints": self.cluster.endpoints}, directory)
        self._namespace = namespace
        self.cluster.start()

    def _ask(self, question: Callable[[SubnetStore[Any]], Coroutine[Any, Any, T]]) -> T:
        return inside(self._namespace, lambda: super(EtcdLabStore, self)._ask(question))


def lab_store(
    name: str,
    directory: Path,
    namespace: str,
    environment: Mapping[str, str],
    networks: Sequence[str],
    *,
    members: int = 1,
) -> LabStore:
    """A new, empty store in ``directory``. A server runs in ``namespace`` with ``environment``: etcd, of so many
    ``members``, or a Kubernetes API server, whose nodes have their podCIDRs out of ``networks``. Any other store is
    given its option ``file``. Raises LabError for one that has none."""
    if name == "etcd":
        return EtcdLabStore(directory, namespace, environment, members)
    if name == "kubernetes":
        from .kubernetes.lab_store import KubernetesLabStore  # which is a LabStore

        return KubernetesLabStore(directory, namespace, environment, networks)
    if any(field.name == "file" for field in msgspec.structs.fields(load_store(name).Options)):
        return LabStore(name, {"file": str(directory / f"flannel.{name}")}, directory)
    raise LabError(
        f"the lab cannot start a store {name!r}: it starts etcd and a Kubernetes API server, and uses any store that "
        f"has an option --{name}-file"
    )
