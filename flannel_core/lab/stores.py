"""The store that the agents of a lab share, and the server behind it where one is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from flannel_core.lease import IPNetwork
from flannel_core.plugins import load_store
from flannel_core.store import Snapshot, StoreContext, SubnetStore

from .network import LabError

T = TypeVar("T")


class LabStore:
    """``options`` are the fields of the store's Options; as options of flanneld they are named ``--NAME-FIELD``."""

    def __init__(self, name: str, options: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.options = options
        self._directory = directory

    @property
    def arguments(self) -> dict[str, str]:
        """What flanneld and flannelctl are given to use this store."""
        return {"store": self.name} | {f"{self.name}-{field}": value for field, value in self.options.items()}

    def set_config(self, text: bytes) -> None:
        """Write net-conf.json, whatever it says."""
        self._ask(lambda store: store.set_config(text))

    def release(self, subnet: IPNetwork) -> None:
        """Give back a host's subnet, as when the host is gone for good."""
        self._ask(lambda store: store.release(subnet))

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


def lab_store(name: str, directory: Path) -> LabStore:
    """A new, empty store in ``directory``. Raises LabError for one that the lab cannot start."""
    if name == "sqlite":
        return LabStore(name, {"file": str(directory / "flannel.sqlite")}, directory)
    raise LabError(f"the lab cannot start a store {name!r}; it can: sqlite")
