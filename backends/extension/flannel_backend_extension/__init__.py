"""The backend ``extension`` of flannel. Imported when it is chosen; the class itself only when the hook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flannel_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from .extension import ExtensionBackend


@hookimpl
def flannel_backend() -> type[ExtensionBackend]:
    from .extension import ExtensionBackend

    return ExtensionBackend
