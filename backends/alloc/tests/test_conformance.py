"""The promises that every backend makes, held to by alloc."""

from __future__ import annotations

from flannel_backend_alloc.alloc import AllocBackend
from flannel_core.conformance.kernel import KernelBackendConformance


class TestAlloc(KernelBackendConformance):
    backend = AllocBackend
    config = {"Type": "alloc"}  # noqa: RUF012
    forwards = False
