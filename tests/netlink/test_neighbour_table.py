"""What fills the kernel's neighbour table, and what does not: kernel-settings.md rests on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Neighbour
from flannel_core.target import Put


def limit(family: int) -> int:
    """gc_thresh3, which only the first network namespace shows."""
    return int(Path(f"/proc/sys/net/ipv{family}/neigh/default/gc_thresh3").read_text())


@pytest.mark.parametrize(("family", "network"), [(4, "10.5"), (6, "fc00:5:")], ids=["IPv4", "IPv6"])
def test_permanent_neighbours_need_no_room_in_the_table(host: Any, family: int, network: str) -> None:
    host.ip("link add flannel.1 type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472")
    host.ip("link set flannel.1 up")
    count = 3 * limit(family)

    def address(number: int) -> str:
        return f"{network}.{number >> 8}.{number & 255}" if family == 4 else f"{network}:{number:x}"

    async def write() -> list[Any]:
        target = KernelTarget()
        await target.open()
        puts = [Put(Neighbour("flannel.1", address(number), "02:00:00:00:00:02")) for number in range(1, count + 1)]
        failures = await target.write(puts, [])
        await target.close()
        return list(failures)

    assert host.run(write()) == []
    assert len(host.ip(f"-{family} neighbour show dev flannel.1 nud permanent").splitlines()) >= count
