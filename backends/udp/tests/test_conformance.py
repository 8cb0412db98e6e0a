"""The promises that every backend makes, held to by udp in userspace. By the kernel: tests/vm, where there is FOU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from flannel_backend_udp.forwarder_target import ForwarderSettings, ForwarderTarget
from flannel_backend_udp.udp import UdpBackend
from flannel_core.conformance.kernel import KernelBackendConformance


class TestUserspace(KernelBackendConformance):
    backend = UdpBackend
    config = {"Type": "udp", "Mode": "userspace"}  # noqa: RUF012
    families = (4,)

    @pytest.fixture(autouse=True)
    def _end_the_forwarder(self, tmp_path: Path) -> Iterator[None]:
        """It outlives the agents of a test, and their namespace with it."""
        yield
        target = ForwarderTarget(tmp_path)
        asyncio.run(_remove(target))
        target.path.unlink(missing_ok=True)


async def _remove(target: ForwarderTarget) -> None:
    await target.write([], [ForwarderSettings("flannel0", 1472, "198.51.100.200", 8285)])
    await target.close()
