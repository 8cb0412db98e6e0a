"""The promises that every backend makes, held to by host-gw."""

from __future__ import annotations

from flannel_backend_host_gw.host_gw import HostGwBackend
from flannel_core.conformance.kernel import KernelBackendConformance


class TestHostGw(KernelBackendConformance):
    backend = HostGwBackend
    config = {"Type": "host-gw"}  # noqa: RUF012
