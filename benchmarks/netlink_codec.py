"""How long our netlink codec takes for one object, beside pyroute2's: ``python benchmarks/netlink_codec.py``.

Compare the ratios, not the microseconds. Needs no privilege: nothing is sent.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from pyroute2.netlink.rtnl.ndmsg import ndmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

from flannel_core.netlink import neighbours, routes
from flannel_core.netlink.message import messages, pack
from flannel_core.objects import FdbEntry, Neighbour, Object, Route

COUNT = 10_000
THEIR_COUNT = 1_000
INDEX = 7
NAMES = {INDEX: "flannel.1"}

ROUTES4 = [
    Route(f"10.{n >> 8}.{n & 255}.0/24", "flannel.1", gateway=f"10.{n >> 8}.{n & 255}.0", onlink=True)
    for n in range(COUNT)
]
ROUTES6 = [
    Route(f"fc00:0:0:{n:x}::/64", "flannel.1", gateway=f"fc00:0:0:{n:x}::", onlink=True) for n in range(1, COUNT + 1)
]
MACS = [f"8a:00:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(COUNT)]
NEIGHBOURS = [Neighbour("flannel.1", route.destination[:-3], mac) for route, mac in zip(ROUTES4, MACS, strict=True)]
FORWARDING = [FdbEntry("flannel.1", mac, "192.0.2.2") for mac in MACS]


def microseconds(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Per item, the best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for item in items:
            work(item)
        best = min(best, time.perf_counter() - started)
    return best / len(items) * 1e6


def pack_ours(item: Object) -> bytes:
    if isinstance(item, Route):
        return pack(routes.create(item, INDEX), 1, 5)
    assert isinstance(item, Neighbour | FdbEntry)
    return pack(neighbours.create(item, INDEX), 1, 5)


def pack_theirs(item: Object) -> bytes:
    packed: Any
    if isinstance(item, Route):
        network, _, length = item.destination.partition("/")
        packed = rtmsg()
        packed["family"] = socket.AF_INET6 if ":" in network else socket.AF_INET
        packed["dst_len"], packed["table"], packed["proto"], packed["type"], packed["flags"] = (
            int(length),
            254,
            76,
            1,
            4,
        )
        packed["attrs"] = [("RTA_DST", network), ("RTA_GATEWAY", item.gateway), ("RTA_OIF", INDEX)]
    else:
        assert isinstance(item, Neighbour | FdbEntry)
        address = item.remote if isinstance(item, FdbEntry) else item.address
        packed = ndmsg()
        packed["family"] = neighbours.AF_BRIDGE if isinstance(item, FdbEntry) else socket.AF_INET
        packed["ifindex"], packed["state"] = INDEX, 0x80
        packed["flags"] = 2 if isinstance(item, FdbEntry) else 0
        packed["attrs"] = [("NDA_DST", address), ("NDA_LLADDR", item.mac)]
    packed.encode()
    return bytes(packed.data)


def parse_ours(datagram: bytes) -> object:
    (message,) = messages(datagram)
    if message.type == routes.RTM_NEWROUTE:
        return routes.decode(message, NAMES)
    return neighbours.decode(message, NAMES)


def parse_theirs(datagram: bytes) -> object:
    kind = rtmsg if int.from_bytes(datagram[4:6], "little") == routes.RTM_NEWROUTE else ndmsg
    parsed = kind(datagram)
    parsed.decode()
    return parsed


def main() -> None:
    print(f"{'':18}{'pack µs':>9}{'pyroute2':>10}{'ratio':>7}   {'parse µs':>9}{'pyroute2':>10}{'ratio':>7}")
    for name, items in (
        ("IPv4 route", ROUTES4),
        ("IPv6 route", ROUTES6),
        ("neighbour", NEIGHBOURS),
        ("forwarding entry", FORWARDING),
    ):
        packed = [pack_ours(item) for item in items]
        ours, theirs = microseconds(pack_ours, items), microseconds(pack_theirs, items[:THEIR_COUNT])
        read, their_read = microseconds(parse_ours, packed), microseconds(parse_theirs, packed[:THEIR_COUNT])
        print(
            f"{name:18}{ours:9.2f}{theirs:10.1f}{theirs / ours:7.0f}"
            f"   {read:9.2f}{their_read:10.1f}{their_read / read:7.0f}"
        )


if __name__ == "__main__":
    main()
