"""The promises that every backend makes, as far as values go: how they are found is told in test_finding.py."""

from __future__ import annotations

from flannel_backend_gce.gce import Found, GceBackend
from flannel_core.conformance.backends import BackendConformance
from flannel_core.host import Host


class OnAnInstance(GceBackend):
    async def _find(self, host: Host) -> Found:
        return Found("projects/p/zones/z/instances/i", "p", "projects/p/global/networks/default", 9001)


class TestGce(BackendConformance):
    backend = OnAnInstance
    config = {"Type": "gce"}  # noqa: RUF012
    forwards = False
