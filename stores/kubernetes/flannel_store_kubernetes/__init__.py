"""The store ``kubernetes`` of flannel. Imported when it is chosen; the class itself only when the hook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flannel_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from .kubernetes import KubernetesStore


@hookimpl
def flannel_store() -> type[KubernetesStore]:
    from .kubernetes import KubernetesStore

    return KubernetesStore
