"""Hosts in a lab whose packets a forwarder moves. They lease their subnets from the store sqlite: where it is not
installed, as in tox's environment for this distribution alone, the tests with hosts are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flannel_core import plugins
from flannel_core.lab import Lab

STORE = "sqlite"
WITH_HOSTS = "test_lab.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).with_name(WITH_HOSTS)
    left_out = [item for item in items if item.path == here] if STORE not in plugins.names("store") else []
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab
