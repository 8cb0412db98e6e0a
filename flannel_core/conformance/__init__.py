"""The checks that every store and every backend has to pass, ours and yours: subclass one class in your tests.

``stores`` has :class:`~flannel_core.conformance.stores.StoreConformance`, ``backends`` and ``kernel`` those for
backends. All need pytest; the agent imports none.
"""

import pytest

CHECKS = ("all_leases", "backends", "kernel", "own_lease", "store_kit", "watching")

# So that a check that fails shows what it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in CHECKS))
