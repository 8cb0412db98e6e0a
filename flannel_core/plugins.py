"""Find and load ONE plugin by name; list all, and say why one is broken.

Only the distributions' ``entry_points.txt`` are read for that, and only the module that is asked for is imported.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec
import pluggy

from . import hookspecs
from .backend import Backend
from .entry_points import EntryPoint, entry_points
from .errors import FlannelError
from .printable import printable
from .store import SubnetStore

Kind: TypeAlias = Literal["backend", "store"]

log = logging.getLogger(__name__)

CORE = "flannel-core"
_GROUPS: dict[Kind, str] = {"backend": hookspecs.BACKENDS, "store": hookspecs.STORES}
_HOOKS: dict[Kind, str] = {"backend": "flannel_backend", "store": "flannel_store"}
_BASES: dict[Kind, type[Any]] = {"backend": Backend, "store": SubnetStore}


class PluginMissing(FlannelError):
    """No installed distribution brings this plugin. ``extra`` names the extra of flannel-core that does, if any."""

    def __init__(self, message: str, extra: str | None = None) -> None:
        super().__init__(message)
        self.extra = extra


class PluginBroken(FlannelError):
    """The plugin is there and cannot be used: it does not import, keeps to no contract, or its name is taken twice."""


class PluginInfo(msgspec.Struct, frozen=True):
    """An installed plugin. ``error`` says why it cannot be used, None: it can."""

    kind: Kind
    name: str
    version: str
    distribution: str
    error: str | None = None


def load_backend(name: str) -> type[Backend[Any, Any]]:
    """The backend ``name`` (lower case, as ``Backend.Type`` is compared). Raises PluginMissing, PluginBroken."""
    backend: type[Backend[Any, Any]] = _load("backend", name)
    return backend


def load_store(name: str) -> type[SubnetStore[Any]]:
    """The store ``name``, the value of ``--store``. Raises PluginMissing, PluginBroken."""
    store: type[SubnetStore[Any]] = _load("store", name)
    return store


def names(kind: Kind) -> list[str]:
    """The names of the installed plugins of a kind, broken ones too. Imports none of them."""
    return sorted({entry.name for entry in entry_points(_GROUPS[kind])})


def list_plugins() -> list[PluginInfo]:
    """Every installed plugin, by kind and name. Each is imported to find out whether it can be used."""
    return [info for kind in _GROUPS for info in sorted(_inspect(kind), key=lambda i: (i.name, i.distribution))]


def _inspect(kind: Kind) -> Iterator[PluginInfo]:
    entries = list(entry_points(_GROUPS[kind]))
    for entry in entries:
        try:
            _class_of(kind, entry.name, [e for e in entries if e.name == entry.name])
            error = None
        except PluginBroken as broken:
            error = str(broken)
        yield PluginInfo(kind, entry.name, entry.version, entry.distribution, error)


def _load(kind: Kind, name: str) -> type[Any]:
    entries = [entry for entry in entry_points(_GROUPS[kind]) if entry.name == name]
    if not entries:
        raise _missing(kind, name)
    return _class_of(kind, name, entries)


def _class_of(kind: Kind, name: str, entries: list[EntryPoint]) -> type[Any]:
    """Import the module of the one entry and ask its hook. Raises PluginBroken."""
    if len(entries) > 1:
        holders = " and ".join(sorted({entry.distribution for entry in entries}))
        raise PluginBroken(
            f"the {kind} {_shown(name)} is brought by {len(entries)} entry points, of {holders}; uninstall all but one"
        )
    entry = entries[0]

    def broken(reason: str) -> PluginBroken:
        return PluginBroken(
            f"the {kind} {_shown(name)} of {entry.distribution} {entry.version} (entry point "
            f"{entry.group}: {entry.name} = {entry.value}) cannot be used: {reason}"
        )

    try:
        module = entry.load()
    except (Exception, SystemExit) as error:
        log.debug("importing %s failed", entry.value, exc_info=True)
        raise broken(f"importing it fails with {_said(error)}") from None

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
    except pluggy.PluginValidationError as error:
        log.debug("registering %s failed", entry.value, exc_info=True)
        raise broken(
            f"its hook does not fit version {hookspecs.CONTRACT_VERSION} of the contract, a newer {CORE} may be needed "
            f"({_said(error)})"
        ) from None
    hook = getattr(manager.hook, _HOOKS[kind])
    if not hook.get_hookimpls():
        raise broken(f"it has no function {_HOOKS[kind]}() marked with flannel_core.hookspecs.hookimpl")
    try:
        found = hook(contract=hookspecs.CONTRACT_VERSION)
    except (Exception, SystemExit) as error:
        log.debug("%s of %s failed", _HOOKS[kind], entry.value, exc_info=True)
        raise broken(f"{_HOOKS[kind]}() fails with {_said(error)}") from None
    if found is None:
        raise broken(
            f"{_HOOKS[kind]}() has nothing for version {hookspecs.CONTRACT_VERSION} of the contract; "
            f"install a release of it that was made for this {CORE}"
        )
    base = _BASES[kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise broken(
            f"{_HOOKS[kind]}() returned {printable(repr(found), 200)}, which is no subclass of {base.__name__}"
        )
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise broken(f"its class {found.__name__} lacks {lacking}")
    return found


def _missing(kind: Kind, name: str) -> PluginMissing:
    import difflib  # only this message needs it

    installed, extras = names(kind), _extras(kind)
    near = difflib.get_close_matches(name, [*installed, *extras], n=1)
    parts = [f"the {kind} {_shown(name)} is not installed"]
    if name in extras:
        parts.append(f"get it with: pip install '{CORE}[{name}]'")
    elif near:
        parts.append(f"did you mean {near[0]}?")
    parts.append(f"installed are: {', '.join(installed) or 'none'}")
    if kind == "store" and installed:
        parts.append("--store NAME chooses one")
    return PluginMissing("; ".join(parts), name if name in extras else None)


def _extras(kind: Kind) -> list[str]:
    """The extras of flannel-core that bring a plugin of this kind."""
    import importlib.metadata  # only a message needs it

    try:
        requirements = importlib.metadata.requires(CORE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pattern = re.compile(rf"flannel-{kind}-[^;]*;\s*extra == ['\"]([^'\"]+)")
    return [match[1] for requirement in requirements if (match := pattern.match(requirement))]


def _shown(name: str) -> str:
    """A name may come from a store."""
    return f"'{printable(name, 60)}'"


def _said(error: BaseException) -> str:
    """What went wrong in someone else's code, on one line of bearable length."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), 300)
