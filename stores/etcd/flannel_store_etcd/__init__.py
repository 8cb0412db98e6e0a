"""The store ``etcd`` of flannel. Imported when it is chosen; the class itself only when the hook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flannel_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from .etcd import EtcdStore


@hookimpl
def flannel_store() -> type[EtcdStore]:
    from .etcd import EtcdStore

    return EtcdStore
