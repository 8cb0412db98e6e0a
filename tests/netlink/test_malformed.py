"""Whatever bytes come in, the decoders answer or raise MalformedMessage; they never raise anything else nor hang."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.netlink import addresses, devices, links, neighbours, routes
from flannel_core.netlink.message import MalformedMessage, Message, attributes, messages
from flannel_core.netlink.ours import Ours
from flannel_core.netlink.socket import NetlinkSocket
from flannel_core.netlink.watcher import translate
from flannel_core.target import Scope

NAMES = {1: "lo", 2: "eth0", 3: "flannel.1"}
OURS = Ours(
    Scope(devices=frozenset({"flannel.1"}), external=frozenset({"eth0"}), networks=("10.5.0.0/16", "fc00::/48"))
)

DECODERS: dict[str, Callable[[Message], object]] = {
    "link": lambda message: links.decode(message, NAMES),
    "link name": links.decode_name,
    "address": addresses.decode,
    "neighbour": lambda message: neighbours.decode(message, NAMES),
    "route": lambda message: routes.decode(message, NAMES),
    "lookup": lambda message: routes.decode(message, NAMES, clones=True),
}
TYPES = [16, 17, 20, 21, 24, 25, 28, 29]


def survives(decode: Callable[[Any], object], argument: Any) -> None:
    try:
        decode(argument)
    except MalformedMessage:
        pass


def decode_all(datagram: bytes) -> None:
    """Everything that is done with what a socket receives."""
    for message in messages(datagram):
        for decode in DECODERS.values():
            survives(decode, message)
        survives(lambda one: list(translate([one], OURS, dict(NAMES), 4711, str)), message)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())
@given(kind=st.sampled_from(TYPES), flags=st.integers(0, 0xFFFF), body=st.binary(max_size=200))
def test_random_bodies_are_read_or_refused(
    decode: Callable[[Message], object], kind: int, flags: int, body: bytes
) -> None:
    survives(decode, Message(kind, flags, 1, 0, body))


@given(st.binary(max_size=400))
def test_random_datagrams_are_read_or_refused(datagram: bytes) -> None:
    survives(decode_all, datagram)


@given(
    st.sampled_from(TYPES),
    st.binary(min_size=12, max_size=16),
    st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=40)), max_size=8),
)
def test_well_framed_nonsense_is_read_or_refused(kind: int, head: bytes, found: list[tuple[int, bytes]]) -> None:
    body = head + b"".join(
        struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4) for number, value in found
    )
    survives(decode_all, struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body)


@pytest.mark.parametrize("length", [0, 1, 3, 9, 0xFFFF])
def test_an_attribute_that_lies_about_its_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessage):
        attributes(struct.pack("=HHI", length, 1, 0))


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_that_lies_about_its_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessage):
        list(messages(struct.pack("=IHHII", length, 24, 0, 1, 0) + bytes(4)))


@pytest.mark.parametrize("left", [1, 3, 15])
def test_bytes_that_are_left_over_are_refused(left: int) -> None:
    with pytest.raises(MalformedMessage):
        list(messages(struct.pack("=IHHII", 16, 24, 0, 1, 0) + bytes(left)))
    if left < 4:
        with pytest.raises(MalformedMessage):
            attributes(struct.pack("=HHI", 8, 1, 0) + bytes(left))


def test_dumps_of_a_real_kernel_with_bytes_changed_and_cut_are_read_or_refused(host: Any) -> None:
    host.ip("link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning")
    host.ip("link set flannel.1 up")
    host.ip("address add 10.5.1.0/32 dev flannel.1")
    host.ip("route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink mtu 1400")
    host.ip("route add 10.5.3.0/24 nexthop via 192.0.2.8 dev eth0 nexthop via 192.0.2.9 dev eth0")
    host.ip("-6 route add fc00:0:0:3::/64 nexthop via 2001:db8::8 dev eth0 nexthop via 2001:db8::9 dev eth0")
    host.ip("neighbour add 10.5.2.0 lladdr 8a:00:00:00:00:02 dev flannel.1 nud permanent")
    host.command("bridge fdb append 8a:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 self permanent")

    def dump_everything() -> list[Message]:
        with NetlinkSocket() as kernel:
            index = {name: number for number, name in devices.link_names(kernel.dump(links.dump())).items()}[
                "flannel.1"
            ]
            requests = [
                links.dump(),
                addresses.dump(),
                routes.dump(4),
                routes.dump(6),
                neighbours.dump_neighbours(index),
                neighbours.dump_fdb(index),
            ]
            return [message for request in requests for message in kernel.dump(request)]

    dumped = host.call(dump_everything)
    assert {message.type for message in dumped} == {16, 20, 24, 28}
    chance = random.Random(4711)
    for message in dumped:
        for _ in range(150):
            body = bytearray(message.body)
            for _ in range(chance.randint(1, 3)):
                body[chance.randrange(len(body))] = chance.choice([0, 1, 3, 4, 8, 255, chance.randrange(256)])
            cut = bytes(body[: chance.randint(0, len(body))] if chance.random() < 0.3 else body)
            datagram = struct.pack("=IHHII", 16 + len(cut), message.type, 0, 1, 0) + cut
            survives(decode_all, datagram)
