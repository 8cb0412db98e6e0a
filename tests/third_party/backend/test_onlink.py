from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from flannel_backend_onlink import OnlinkBackend
from msgspec.structs import replace

from flannel_core.backend import Unreachable
from flannel_core.conformance.kernel import KernelBackendConformance


class TestOnlink(KernelBackendConformance):
    backend = OnlinkBackend
    config = {"Type": "onlink"}  # noqa: RUF012

    def test_a_peer_with_a_public_address_is_named(self, tmp_path: Path) -> None:
        backend, lease = self.make_backend(tmp_path), self.lease(1)
        lease = replace(lease, ipv4=replace(lease.ipv4, public_ip=IPv4Address("8.8.8.8")))
        over_ipv4, over_ipv6 = backend.peer(self.node(backend), lease)
        assert isinstance(over_ipv4, Unreachable)
        assert "8.8.8.8 is a public address" in over_ipv4.reason
        assert not isinstance(over_ipv6, Unreachable)
