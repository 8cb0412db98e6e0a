"""The promises that every backend makes, held to by vxlan."""

from __future__ import annotations

from flannel_backend_vxlan.vxlan import VxlanBackend, VxlanData
from flannel_core.conformance.kernel import KernelBackendConformance


class TestVxlan(KernelBackendConformance):
    backend = VxlanBackend
    config = {"Type": "vxlan"}  # noqa: RUF012
    untrusted = (
        b"{}",
        b'{"VNI":1}',
        b'{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}',
        b'{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}',
        b'{"VNI":1,"VtepMAC":"02:00:00:00:00"}',
    )

    def data(self, number: int) -> VxlanData:
        return VxlanData(1, f"02:00:00:00:00:{number:02x}")


class TestVxlanWithDirectRouting(TestVxlan):
    config = {"Type": "vxlan", "VNI": 7, "Port": 4789, "DirectRouting": True}  # noqa: RUF012
