"""The backend ``host-gw`` of flannel. Imported when it is chosen; the class itself only when the hook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flannel_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from .host_gw import HostGwBackend


@hookimpl
def flannel_backend() -> type[HostGwBackend]:
    from .host_gw import HostGwBackend

    return HostGwBackend
