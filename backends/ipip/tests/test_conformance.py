"""The promises that every backend makes, held to by ipip. Those on a kernel: tests/vm, where there is one with ipip."""

from __future__ import annotations

from flannel_backend_ipip.ipip import IpipBackend
from flannel_core.conformance.backends import BackendConformance


class TestIpip(BackendConformance):
    backend = IpipBackend
    config = {"Type": "ipip"}  # noqa: RUF012
    families = (4,)


class TestIpipWithDirectRouting(TestIpip):
    config = {"Type": "ipip", "DirectRouting": True}  # noqa: RUF012
