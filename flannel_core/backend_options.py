"""The keys of "Backend" in net-conf.json -> the Options of the backend that Backend.Type names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from .config_errors import ConfigError, ConfigInvalid, shown
from .printable import printable

if TYPE_CHECKING:
    from .backend import Backend
    from .netconf import NetworkConfig

_NAMED_IN_ERRORS = frozenset({"vxlan", "udp", "ipip", "ipsec"})
"""The backends whose name is part of Go's "error decoding VXLAN backend config"."""


def decode_options(config: NetworkConfig, backend_class: type[Backend[Any, Any]], source: str) -> msgspec.Struct:
    """An instance of ``backend_class.Options``; ``source`` names the configuration in errors.

    Keys are matched without regard to case at every level, null keeps the default, keys that the backend does not have
    are left alone (see ``unknown_options``). Raises ConfigInvalid with every key that is wrong.
    """
    name = f"{config.backend_type.upper()} " if config.backend_type in _NAMED_IN_ERRORS else ""
    prefix = f"error decoding {name}backend config: "
    given = _folded(config.backend)
    values: dict[str, Any] = {}
    errors = []
    for field in msgspec.structs.fields(backend_class.Options):
        key = f"Backend.{field.encode_name}"
        value = given.get(field.encode_name.casefold())
        cure = f"write {wanted(field.type)}{'' if field.required else ', or leave it out'}"
        if value is None:
            if field.required:
                errors.append(ConfigError(source, key, "", f"{prefix}it has no default", cure))
            continue
        try:
            values[field.name] = msgspec.convert(_spelled(value, field.type), field.type)
        except (msgspec.ValidationError, RecursionError) as error:
            errors.append(ConfigError(source, key, shown(key, value), prefix + _reason(error), cure))
    if not errors:
        try:
            return backend_class.Options(**values)
        except ValueError as error:  # of its __post_init__: keys that do not go together
            errors.append(
                ConfigError(source, "Backend", "{…}", f"{prefix}{error}", "change or leave out one of these keys")
            )
    raise ConfigInvalid(tuple(errors))


def unknown_options(config: NetworkConfig, backend_class: type[Backend[Any, Any]]) -> tuple[str, ...]:
    """The keys of "Backend", escaped, that the backend does not have: ignored as by Go, but worth a line in the log."""
    known = {field.encode_name.casefold() for field in msgspec.structs.fields(backend_class.Options)}
    return tuple(printable(key, 40) for key in config.backend if key.casefold() not in known)


def _folded(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key.casefold(): value for key, value in keys.items()}


def _spelled(value: Any, kind: Any) -> Any:
    """``value`` with the keys of nested structs as their fields spell them, and without their nulls."""
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        given = _folded(value)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        found = {name: given.get(name.casefold()) for name in fields}
        return {name: _spelled(item, fields[name].type) for name, item in found.items() if item is not None}
    if isinstance(value, list) and get_origin(kind) in (list, tuple, frozenset, set):
        return [_spelled(item, get_args(kind)[0]) for item in value]
    if isinstance(value, dict) and get_origin(kind) is dict:
        return {key: _spelled(item, get_args(kind)[1]) for key, item in value.items()}
    for choice in _choices(kind):
        value = _spelled(value, choice)
    return value


def _choices(kind: Any) -> tuple[Any, ...]:
    """The members of a union; the bare type of an annotated one."""
    if get_origin(kind) is Annotated:
        return get_args(kind)[:1]
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


_WORDS = {
    int: "an integer",
    bool: "true or false",
    str: "a string",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}


def wanted(kind: Any) -> str:
    """What a value of this type looks like in JSON, for a person: ``an integer from 1 to 16777215``."""
    if get_origin(kind) is Annotated:
        return wanted(get_args(kind)[0]) + _bounds(
            next((m for m in get_args(kind) if isinstance(m, msgspec.Meta)), None)
        )
    if choices := _choices(kind):
        return " or ".join(wanted(choice) for choice in choices if choice is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(shown("", choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(shown("", member.value) for member in kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "an object with " + ", ".join(kind.__struct_encode_fields__)
    if get_origin(kind) in (list, tuple, set, frozenset):
        return f"a list, each item {wanted(get_args(kind)[0])}"
    return _WORDS.get(get_origin(kind) or kind, "a value that fits")


def _bounds(meta: msgspec.Meta | None) -> str:
    if meta is None or (meta.ge is None and meta.le is None):
        return ""
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    return f" of at least {meta.ge}" if meta.ge is not None else f" of at most {meta.le}"


_JSON_NAMES = {"int": "integer", "str": "string", "bool": "boolean"}


def _reason(error: Exception) -> str:
    """msgspec's complaint in the words of JSON: it holds the path inside the key, and no more of the value than a
    wrong choice among fixed words."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    text = re.sub(r" - at `\$(.*)`$", r" at \1", str(error))
    names = re.compile(r"\b(int|str|bool)\b")
    text = re.sub("`([^`]*)`", lambda quoted: names.sub(lambda name: _JSON_NAMES[name[0]], quoted[1]), text)
    return printable(text, 120)
