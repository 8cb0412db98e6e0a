"""The backend ``gce`` of flannel. Imported when it is chosen; the class itself only when the hook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flannel_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from .gce import GceBackend


@hookimpl
def flannel_backend() -> type[GceBackend]:
    from .gce import GceBackend

    return GceBackend
