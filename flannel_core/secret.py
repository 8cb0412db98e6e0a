"""What must never be seen: private and preshared keys."""

from __future__ import annotations

import hmac
from typing import Final


class Secret:
    """Bytes that show as ``***`` wherever they end up: log, status, plan, journal, an exception's text. JSON refuses
    them. Only ``reveal`` gives them away, and only a target's ``write`` has a reason to call it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value: Final = value

    def reveal(self) -> bytes:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
