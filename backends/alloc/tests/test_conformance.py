"""The promises that every backend makes, held to by alloc."""

from __future__ import annotations

from flannel_backend_alloc.alloc import AllocBackend
from flannel_core.conformance.backends import BackendConformance


class TestAlloc(BackendConformance):
    backend = AllocBackend
    config = {"Type": "alloc"}  # noqa: RUF012
