"""What is wrong with a net-conf.json, in words that name the place and the cure."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from .errors import FlannelError
from .printable import printable

_SECRET = re.compile("psk|secret|password|private|token", re.IGNORECASE)


class ConfigError(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    ``source`` is the file or the store's key, ``key`` the JSON key as a path (``Backend.VNI``; "" for the text as a
    whole), ``value`` what stands there as JSON, escaped and cut ("" where nothing does), ``reason`` Go flannel's own
    sentence where it has one, ``cure`` what would be right.
    """

    source: str
    key: str
    value: str
    reason: str
    cure: str

    def __str__(self) -> str:
        if not self.key:
            return f"{self.source}: {self.reason}; {self.cure}"
        return f"{self.source}: {self.key} is {self.value or 'missing'}: {self.reason}; {self.cure}"


class ConfigInvalid(FlannelError):
    """This net-conf.json cannot be used. ``errors`` is everything that is wrong with it, at least one."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        super().__init__(" | ".join(map(str, errors)))
        self.errors = errors


def shown(key: str, value: Any, limit: int = 60) -> str:
    """``value`` as JSON, escaped and cut, for a message; ``***`` where ``key`` names a secret."""
    if _SECRET.search(key):
        return "***"
    try:
        return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":")), limit)
    except RecursionError:
        return "nested too deep"


def json_kind(value: Any) -> str:
    """The JSON type of a decoded value, in the words of Go's errors."""
    if value is None:
        return "null"
    kinds = ((bool, "bool"), (str, "string"), (list, "array"), (dict, "object"))
    return next((kind for python_type, kind in kinds if isinstance(value, python_type)), "number")
