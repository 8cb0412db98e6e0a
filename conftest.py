"""What holds for every test of the tree."""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict

import pytest

SEED = os.environ.setdefault("FLANNEL_TEST_SEED", str(random.randrange(100_000)))
"""Of all that is drawn by chance here; the same number draws the same."""
THINNED = "CI" in os.environ
"""Set by ``.ci/run``: of the cases of a test that is marked ``drawn`` so many run; ``make test`` runs all."""

# A shell's background job ignores Ctrl-C and hands that down to every program it starts, and then nothing that a test
# interrupts would end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "drawn(n, across=None): of its parameters' cases CI runs n, drawn from FLANNEL_TEST_SEED; of those of all tests"
        " of its name that say the same for across",
    )


def pytest_report_header() -> str:
    return f"FLANNEL_TEST_SEED={SEED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not THINNED:
        return
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("drawn"):
            name = item.nodeid.partition("[")[0]
            across = mark.kwargs.get("across")
            cases[f"{across} {name.rpartition('::')[2]}" if across else name].append(item)
    kept: set[pytest.Item] = set()
    for name, of_one in cases.items():
        mark = of_one[0].get_closest_marker("drawn")
        assert mark is not None
        kept.update(random.Random(f"{SEED} {name}").sample(of_one, min(mark.args[0], len(of_one))))
    left_out = [item for of_one in cases.values() for item in of_one if item not in kept]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
