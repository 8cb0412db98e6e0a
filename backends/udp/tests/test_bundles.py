"""What is received as one bundle, and what is written of it: as a kernel would cut it up again, it is what came."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from struct import Struct, pack, unpack

import pytest

from flannel_backend_udp.forwarder.bundles import AS_IT_IS, Bundles, Write
from flannel_backend_udp.forwarder.headers import sum_of
from flannel_backend_udp.forwarder.peer_table import PeerTable

PACKETS = int(os.environ.get("FLANNEL_FUZZ", "20000"))
"""How many the random cases have in all; `make fuzz` has a million."""
SEED = os.environ["FLANNEL_TEST_SEED"]

PEER, POD = "192.0.2.2", "10.5.2.7"
"""Who sends, in most cases, and from where."""
OTHER_PEER, OTHER_POD = "192.0.2.3", "10.5.3.7"
HERE = "10.5.1.9"
TCP, UDP, ICMP = 6, 17, 1
VNET = Struct("=BBHHHH")
"""struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""


# --- packets --------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(
    protocol: int,
    payload: bytes,
    *,
    source: str = POD,
    target: str = HERE,
    ttl: int = 63,
    fragment: int = 0x4000,
    identification: int = 1,
    tos: int = 0,
    options: bytes = b"",
) -> bytes:
    length = 20 + len(options)
    total = length + len(payload)
    head = bytearray(pack("!BBHHHBBH", 0x40 | length // 4, tos, total, identification, fragment, ttl, protocol, 0))
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + payload


def with_checksum(protocol: int, segment: bytes, source: str, target: str) -> bytes:
    at = 16 if protocol == TCP else 6
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + pack("!BBH", 0, protocol, len(segment))
    plain = segment[:at] + b"\0\0" + segment[at + 2 :]
    return segment[:at] + checksum(pseudo + plain).to_bytes(2, "big") + segment[at + 2 :]


def tcp(
    sequence: int,
    payload: bytes,
    *,
    source: str = POD,
    flags: int = 0x10,
    window: int = 500,
    ack: int = 7,
    options: bytes = bytes(12),
    **of_ip: object,
) -> bytes:
    head = pack("!HHIIBBHHH", 4000, 80, sequence, ack, (20 + len(options)) // 4 << 4, flags, window, 0, 0)
    segment = with_checksum(TCP, head + options + payload, source, HERE)
    return ipv4(TCP, segment, source=source, **of_ip)  # type: ignore[arg-type]


def udp(payload: bytes, *, source: str = POD, port: int = 53, **of_ip: object) -> bytes:
    segment = with_checksum(UDP, pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload, source, HERE)
    return ipv4(UDP, segment, source=source, **of_ip)  # type: ignore[arg-type]


def one_hop_less(packet: bytes) -> bytes:
    """With a checksum that stays as right or wrong as it was."""
    changed = bytearray(packet)
    changed[8] -= 1
    folded = int.from_bytes(packet[10:12], "big") + 0x100
    changed[10:12] = (folded if folded < 0xFFFF else folded - 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


# --- what is written ------------------------------------------------------------------------------------------------


class Bench:
    """Bundles of two peers, and how many of their packets were dropped."""

    def __init__(self, *, merges_udp: bool = True) -> None:
        self.table = PeerTable()
        self.table.put("10.5.2.0/24", PEER)
        self.table.put("10.5.3.0/24", OTHER_PEER)
        self.dropped = 0
        self.bundles = Bundles(self.table.find, self._drop, merges_udp=merges_udp)

    def _drop(self) -> None:
        self.dropped += 1

    def write(self, datagrams: list[bytes], sender: str = PEER) -> list[bytes]:
        """All but the last are of one length, and the last is no longer."""
        data = b"".join(datagrams)
        self.bundles.buffer[: len(data)] = data
        segment = len(datagrams[0])
        assert all(len(datagram) == segment for datagram in datagrams[:-1])
        assert len(datagrams[-1]) <= segment
        return [flat(write) for write in self.bundles.writes(len(data), segment, sender)]


def flat(write: Write) -> bytes:
    return b"".join(write)


def cut_up(written: bytes) -> Iterator[bytes]:
    """What a kernel makes of it (net/ipv4/tcp_offload.c, udp_offload.c)."""
    flags, kind, header, size, start, offset = VNET.unpack_from(written)
    packet = written[VNET.size :]
    if kind == 0:
        assert written.startswith(AS_IT_IS)
        yield packet
        return
    protocol = packet[9]
    assert (flags, start) == (1, 20)
    assert (kind, offset) == {TCP: (1, 16), UDP: (5, 6)}[protocol]
    assert int.from_bytes(packet[2:4], "big") == len(packet)
    assert checksum(packet[:20]) == 0
    pseudo = sum_of(packet[12:20]) + protocol + len(packet) - 20
    assert int.from_bytes(packet[20 + offset : 22 + offset], "big") == pseudo % 0xFFFF
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    payload = packet[header:]
    assert len(payload) > size, "one packet needs not be cut up"
    for number, at in enumerate(range(0, len(payload), size)):
        piece = payload[at : at + size]
        head = bytearray(packet[20:header])
        if protocol == TCP:
            sequence = int.from_bytes(head[4:8], "big") + at & 0xFFFFFFFF
            head[4:8] = sequence.to_bytes(4, "big")
            if at + size < len(payload):
                head[13] &= ~0x09 & 0xFF  # FIN and PSH are of the last
        else:
            head[4:6] = (8 + len(piece)).to_bytes(2, "big")
        segment = with_checksum(protocol, bytes(head) + piece, source, target)
        identification = int.from_bytes(packet[4:6], "big") + number & 0xFFFF
        of_ip = {"source": source, "target": target, "ttl": packet[8], "tos": packet[1]}
        yield ipv4(protocol, segment, identification=identification, **of_ip)  # type: ignore[arg-type]


def delivered(written: list[bytes]) -> list[bytes]:
    return [packet for one in written for packet in cut_up(one)]


def without_identification(packet: bytes) -> bytes:
    """Which nobody looks at where fragments are forbidden (RFC 6864)."""
    if packet[6] != 0x40:
        return packet
    return packet[:4] + packet[6:10] + packet[12:]


# --- one by one -----------------------------------------------------------------------------------------------------

STREAM = [tcp(1000 + 100 * number, bytes([number]) * 100, identification=number) for number in range(10)]


def test_neighbours_of_a_tcp_flow_are_written_as_one() -> None:
    bench = Bench()
    written = bench.write(STREAM)
    assert len(written) == 1
    expected = [one_hop_less(packet) for packet in STREAM]
    assert list(map(without_identification, delivered(written))) == list(map(without_identification, expected))


def test_a_shorter_last_one_and_its_push_belong_to_it() -> None:
    last = tcp(2000, b"the end", flags=0x18)
    written = Bench().write([*STREAM, last])
    assert len(written) == 1
    assert without_identification(delivered(written)[-1]) == without_identification(one_hop_less(last))


def test_a_sequence_number_begins_again_behind_its_largest() -> None:
    stream = [tcp(2**32 - 250 + 100 * number & 0xFFFFFFFF, bytes(100)) for number in range(5)]
    written = Bench().write(stream)
    assert len(written) == 1
    assert delivered(written)[3][24:28] == (50).to_bytes(4, "big")


def test_neighbours_of_a_udp_flow_are_written_as_one_where_the_kernel_cuts_up_udp() -> None:
    datagrams = [*(udp(bytes([number]) * 64) for number in range(64)), udp(b"short")]
    expected = [without_identification(one_hop_less(packet)) for packet in datagrams]
    for merges, count in ((True, 1), (False, 65)):
        written = Bench(merges_udp=merges).write(datagrams)
        assert len(written) == count
        assert list(map(without_identification, delivered(written))) == expected


@pytest.mark.parametrize(
    "odd_one",
    [
        tcp(1500, bytes(100)),
        tcp(1400, bytes(100), window=501),
        tcp(1400, bytes(100), ack=8),
        tcp(1400, bytes(100), flags=0x11),
        tcp(1400, bytes(100), options=b"\1" * 12),
        tcp(1400, bytes(100), ttl=62),
        tcp(1400, bytes(100), tos=3),
        tcp(1400, bytes(100), fragment=0),
        tcp(1400, bytes(100), fragment=0x2000),
        tcp(1400, bytes(100), fragment=0x4001),
        tcp(1400, bytes(100), source="10.5.2.8"),
        udp(bytes(124)),
        ipv4(ICMP, b"\x08" + bytes(131)),
        tcp(1400, bytes(96), options=b"", source=POD)[:20] + bytes(132),
    ],
    ids=lambda packet: "",
)
def test_what_differs_in_anything_stays_apart_and_is_written_as_it_came(odd_one: bytes) -> None:
    datagrams = [*STREAM[:4], odd_one, *STREAM[5:]]
    assert len({len(datagram) for datagram in datagrams}) == 1
    bench = Bench()
    written = bench.write(datagrams)
    assert len(written) == 3
    assert written[1] == AS_IT_IS + one_hop_less(odd_one)
    expected = [without_identification(one_hop_less(packet)) for packet in datagrams]
    assert list(map(without_identification, delivered(written))) == expected


def test_a_header_with_a_wrong_checksum_is_not_made_right() -> None:
    wrong = bytearray(STREAM[4])
    wrong[10] ^= 1
    written = Bench().write([*STREAM[:4], bytes(wrong), *STREAM[5:]])
    assert len(written) == 3
    assert checksum(written[1][10:30]) != 0
    all_wrong = [packet[:10] + bytes([packet[10] ^ 1]) + packet[11:] for packet in STREAM]
    assert Bench().write(all_wrong) == [AS_IT_IS + one_hop_less(packet) for packet in all_wrong]


@pytest.mark.parametrize("fragment", [0, 0x2000, 0x4001], ids=["may be fragmented", "a first fragment", "a later one"])
def test_what_is_a_fragment_or_may_become_some_is_left_as_it_is(fragment: int) -> None:
    stream = [tcp(1000 + 100 * number, bytes(100), fragment=fragment) for number in range(3)]
    assert Bench().write(stream) == [AS_IT_IS + one_hop_less(packet) for packet in stream]


def test_udp_without_a_checksum_is_given_none() -> None:
    plain = [ipv4(UDP, pack("!HHHH", 4000, 53, 72, 0) + bytes(64)) for _ in range(3)]
    assert Bench().write(plain) == [AS_IT_IS + one_hop_less(packet) for packet in plain]


@pytest.mark.parametrize(
    "refused",
    [
        b"",
        b"E",
        bytes(20),
        tcp(1, b"")[:39],
        b"\x65" + tcp(1, b"")[1:],
        b"\x44" + tcp(1, b"")[1:],
        tcp(1, b"x", ttl=1),
        tcp(1, b"x", ttl=0),
        tcp(1, b"x", source=OTHER_POD),
        tcp(1, b"x", source=HERE),
        tcp(1, b"x", source="192.0.2.2"),
    ],
    ids=["empty", "one byte", "zeros", "cut", "IPv6", "too short a header", "last hop", "no hop", "another peer's pod",
         "our own pod", "no pod"],
)  # fmt: skip
def test_what_is_no_packet_or_not_of_the_senders_subnet_is_dropped(refused: bytes) -> None:
    bench = Bench()
    if refused:
        assert bench.write([refused]) == []
        assert bench.dropped == 1
        assert bench.write([refused] * 3) == []
        assert bench.dropped == 4
    else:
        assert list(bench.bundles.writes(0, 0, PEER)) == []


def test_a_stranger_delivers_nothing() -> None:
    bench = Bench()
    assert bench.write(STREAM, sender="192.0.2.99") == []
    assert bench.dropped == len(STREAM)


def test_bytes_behind_a_packet_are_the_kernels_to_cut_off() -> None:
    padded = tcp(1, b"x") + bytes(6)
    assert Bench().write([padded]) == [AS_IT_IS + one_hop_less(padded)]


# --- at random ------------------------------------------------------------------------------------------------------


def random_bundle(rng: random.Random) -> list[bytes]:
    """Mostly flows, some of whose packets were tampered with."""
    size = rng.choice([rng.randrange(1, 60), rng.randrange(41, 200), 1472])
    count = rng.randrange(1, min(64, 65000 // size) + 1)
    kind = rng.choice([TCP, TCP, UDP, 0])
    sequence, options = rng.getrandbits(32), bytes(rng.choice([0, 0, 4, 12]))
    datagrams: list[bytes] = []
    for number in range(count):
        length = rng.randrange(1, size + 1) if number == count - 1 and rng.random() < 0.5 else size
        common = {
            "source": OTHER_POD if rng.random() < 0.02 else POD,
            "ttl": 1 if rng.random() < 0.02 else 63,
            "fragment": rng.choice([0, 0x2000, 0x4000]) if rng.random() < 0.02 else 0x4000,
            "identification": rng.getrandbits(16),
        }
        if kind == TCP and length >= 40 + len(options):
            payload = rng.randbytes(length - 40 - len(options))
            flags = rng.choice([0x18, 0x11, 0x02]) if rng.random() < 0.05 else 0x10
            packet = tcp(sequence, payload, flags=flags, options=options, **common)  # type: ignore[arg-type]
            sequence = sequence + len(payload) + (rng.random() < 0.02) & 0xFFFFFFFF
        elif kind == UDP and length >= 28:
            packet = udp(rng.randbytes(length - 28), port=53 + (rng.random() < 0.02), **common)  # type: ignore[arg-type]
        else:
            packet = rng.randbytes(length)
        if rng.random() < 0.03:
            changed = bytearray(packet)
            changed[rng.randrange(min(40, len(changed)))] = rng.getrandbits(8)
            packet = bytes(changed)
        datagrams.append(packet)
    return datagrams


def passes(packet: bytes) -> bool:
    """The rules once more, in other words."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    header, total = packet[0] % 16 * 4, packet[2] * 256 + packet[3]
    return 20 <= header <= total <= len(packet) and packet[8] > 1 and packet[12:15] == bytes([10, 5, 2])


def same(packet: bytes, came: bytes) -> bool:
    """Whether ``packet`` is what ``came``, one hop further: byte for byte, or cut out of a merged one, where the
    checksum of TCP and UDP is that of the content whatever it was before."""
    expected = one_hop_less(came)
    if packet == expected:
        return True
    at = 36 if came[9] == TCP else 26
    mine, other = (
        without_identification(one[:at] + b"\0\0" + one[at + 2 :]) for one in (packet, expected)
    )  # fmt: skip
    return came[6:8] == b"\x40\0" and mine == other and checksum(came[:20]) == 0


def test_of_random_bundles_every_packet_arrives_once_in_order_as_it_was_or_not_at_all() -> None:
    print(f"FLANNEL_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    bench = Bench()
    seen = merged = 0
    while seen < PACKETS:
        bench.dropped = 0
        datagrams = random_bundle(rng)
        written = bench.write(datagrams)
        expected = [datagram for datagram in datagrams if passes(datagram)]
        arrived = delivered(written)
        assert len(arrived) == len(expected)
        assert all(map(same, arrived, expected))
        assert bench.dropped == len(datagrams) - len(expected)
        seen += len(datagrams)
        merged += len(arrived) - len(written)
    assert merged > PACKETS // 10, "most flows were to be merged"
