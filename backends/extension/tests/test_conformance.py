"""The promises of a backend that can be checked without running a command; test_commands.py runs them."""

from __future__ import annotations

from flannel_backend_extension.extension import ExtensionBackend
from flannel_core.conformance.backends import BackendConformance


class TestExtension(BackendConformance):
    backend = ExtensionBackend
    config = {"Type": "extension", **ExtensionBackend.example}  # noqa: RUF012
    untrusted = (b'{"no": "string"}', b"3")

    def data(self, number: int) -> str:
        return f"printed by {number}"
