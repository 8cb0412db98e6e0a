"""The promises that every backend makes, as far as values go; test_program.py and tests/vm apply them."""

from __future__ import annotations

import base64

from flannel_backend_wireguard.wireguard import WireguardBackend, WireguardData
from flannel_core.conformance.backends import BackendConformance


class TestSeparate(BackendConformance):
    backend = WireguardBackend
    config = {"Type": "wireguard"}  # noqa: RUF012
    untrusted = (b"{}", b'{"PublicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}', b'{"PublicKey":"c2hvcnQ="}')

    def data(self, number: int) -> WireguardData:
        return WireguardData(base64.b64encode(bytes([number]) * 32).decode(), 51820)


class TestShared(TestSeparate):
    config = {"Type": "wireguard", "Mode": "auto"}  # noqa: RUF012
