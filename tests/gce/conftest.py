"""A lab for the tests that change more than they can put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flannel_core.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab
