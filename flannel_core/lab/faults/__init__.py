"""Everything that an operator, a crash or a bug breaks, and what has to become of it: one :class:`Case` each.

``tests/lab/test_faults.py`` has each happen once in some combination, ``benchmarks/faults.py`` all of them in all.
"""

from __future__ import annotations

from . import agent, firewall, go, host, kernel, kubernetes, store
from .scene import BACKENDS, COMBINATIONS, FIREWALLS, STORES, Case, Combination, Outcome, Scene, Stage

CASES: tuple[Case, ...] = (
    *kernel.CASES,
    *firewall.CASES,
    *host.CASES,
    *agent.CASES,
    *store.CASES,
    *kubernetes.CASES,
    *go.CASES,
)

__all__ = [
    "BACKENDS",
    "CASES",
    "COMBINATIONS",
    "FIREWALLS",
    "STORES",
    "Case",
    "Combination",
    "Outcome",
    "Scene",
    "Stage",
]
