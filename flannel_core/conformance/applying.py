"""Which checks apply to a plugin. What it says that it cannot do is not asked of it.

Instead of ``test_a_released_subnet_is_free_again`` pytest then lists
``test_a_released_subnet_is_free_again__does_not_apply_without_release``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

CheckT = TypeVar("CheckT", bound=Callable[..., Any])


def needs(*features: str) -> Callable[[CheckT], CheckT]:
    """Marks a check that applies only to plugins that have all of these."""

    def mark(check: CheckT) -> CheckT:
        check.needs = frozenset(features)  # type: ignore[attr-defined]
        return check

    return mark


def _says_so(self: Any) -> None:
    """Nothing to check: the name says what the plugin does not have."""


class Conformance:
    """A class of checks."""

    @classmethod
    def features(cls) -> frozenset[str] | None:
        """What the plugin under test has; None for a class that names no plugin yet."""
        return None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        features = cls.features()
        if features is None:
            return
        for name in dir(cls):
            needed: frozenset[str] = getattr(getattr(cls, name), "needs", frozenset())
            missing = needed - features
            if missing:
                setattr(cls, name, None)
                setattr(cls, f"{name}__does_not_apply_without_{'_and_'.join(sorted(missing))}", _says_so)
