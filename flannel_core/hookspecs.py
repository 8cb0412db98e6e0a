"""The whole contract between flannel and its plugins.

A plugin is a distribution with an entry point in the group ``flannel.backends`` or ``flannel.stores``. The entry's
name is what the user writes (``Backend.Type`` of net-conf.json, ``--store`` of flanneld), its value the module that
holds one of the hooks below::

    [project.entry-points."flannel.backends"]
    host-gw = "flannel_backend_host_gw"

    from flannel_core.hookspecs import hookimpl

    @hookimpl
    def flannel_backend():
        from .host_gw import HostGwBackend
        return HostGwBackend

Only the plugin that is needed is imported. An implementation may leave out arguments that it has no use for; new
arguments may be added to a hook, and none is removed without a release that warns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .backend import Backend
    from .store import SubnetStore

CONTRACT_VERSION = 1
"""Grows when a plugin written for the version before would no longer work. Hooks get it as ``contract``."""

PROJECT = "flannel"
BACKENDS = "flannel.backends"
STORES = "flannel.stores"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def flannel_backend(contract: int) -> type[Backend[Any, Any]]:
    """The class of the backend that this plugin brings: how packets move between hosts."""
    raise NotImplementedError


@hookspec(firstresult=True)
def flannel_store(contract: int) -> type[SubnetStore[Any]]:
    """The class of the store that this plugin brings: where the leases live."""
    raise NotImplementedError
