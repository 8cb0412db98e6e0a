"""FOU ports on a kernel without FOU, and what one of ours is told by. On a kernel with it: tests/vm."""

from __future__ import annotations

import asyncio

import pytest

from flannel_backend_udp.fou import FouPort, FouTarget, decode
from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.target import Put, Scope, TargetUnavailable

PORT = FouPort(8285, "192.0.2.1")
OURS = {1: (8285).to_bytes(2), 2: b"\2", 3: b"\4", 4: b"\1", 6: bytes([192, 0, 2, 1])}
"""FOU_ATTR_PORT, AF, IPPROTO, TYPE, LOCAL_V4, as the kernel tells them."""


def test_a_port_is_read_back_as_it_was_wanted() -> None:
    assert decode(OURS) == PORT


@pytest.mark.parametrize(
    "changes",
    [{3: b"\x2f"}, {4: b"\2"}, {6: bytes(4)}, {6: bytes(16)}, {1: None}, {6: None}, {3: None}],
    ids=["GRE", "GUE", "any address", "IPv6", "no port", "no address", "no protocol"],
)
def test_a_port_for_something_else_is_not_ours(changes: dict[int, bytes | None]) -> None:
    assert decode({number: value for number, value in {**OURS, **changes}.items() if value is not None}) is None


def test_without_fou_there_are_no_ports_and_the_reason_names_the_module() -> None:
    try:
        GenericSocket("fou").close()
    except NoFamily:
        assert asyncio.run(FouTarget().read(Scope())) == []
        with pytest.raises(TargetUnavailable, match="this kernel has no fou: `modprobe fou`"):
            asyncio.run(FouTarget().write([Put(PORT)], []))
