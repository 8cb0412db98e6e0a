"""Packets on their way out: which leave together, to whom, and which do not."""

from __future__ import annotations

import os
import random
import socket
from struct import pack

from flannel_backend_udp.forwarder.headers import sum_of
from flannel_backend_udp.forwarder.peer_table import PeerTable
from flannel_backend_udp.forwarder.runs import MOST_BYTES, MOST_PACKETS, Run, runs

PACKETS = int(os.environ.get("FLANNEL_FUZZ", "20000"))
SEED = os.environ["FLANNEL_TEST_SEED"]

A, B = "192.0.2.2", "192.0.2.3"
TO_A, TO_B, TO_NOBODY = "10.5.2.9", "10.5.3.9", "10.5.4.9"


def packet(target: str, size: int = 100, ttl: int = 64) -> bytes:
    head = bytearray(pack("!BBHHHBBH4s", 0x45, 0, size, 1, 0x4000, ttl, 17, 0, bytes([10, 5, 1, 9])))
    head += socket.inet_aton(target)
    head[10:12] = (0xFFFF - sum_of(head)).to_bytes(2, "big")
    return bytes(head) + bytes(size - 20)


class Bench:
    def __init__(self) -> None:
        self.table = PeerTable()
        self.table.put("10.5.2.0/24", A)
        self.table.put("10.5.3.0/24", B)
        self.strayed = 0
        self.buffer = bytearray()

    def _stray(self) -> None:
        self.strayed += 1

    def runs(self, *packets: bytes, stride: int = 1472) -> list[Run]:
        self.buffer = bytearray(b"".join(one.ljust(stride, b"\xee") for one in packets))
        return list(runs(self.buffer, stride, [len(one) for one in packets], self.table.find, self._stray))


def test_neighbours_for_one_peer_leave_together() -> None:
    assert Bench().runs(*[packet(TO_A)] * 5, *[packet(TO_B)] * 2, packet(TO_A)) == [(A, 0, 5), (B, 5, 7), (A, 7, 8)]


def test_a_shorter_one_is_the_last_of_its_run_and_a_longer_one_begins_another() -> None:
    sizes = (100, 100, 60, 100, 101, 101)
    assert Bench().runs(*(packet(TO_A, size) for size in sizes)) == [(A, 0, 3), (A, 3, 4), (A, 4, 6)]


def test_no_run_is_more_than_the_kernel_takes() -> None:
    assert Bench().runs(*[packet(TO_A)] * 100) == [(A, 0, MOST_PACKETS), (A, MOST_PACKETS, 100)]
    found = Bench().runs(*[packet(TO_A, 1472)] * 64)
    assert found == [(A, 0, MOST_BYTES // 1472), (A, MOST_BYTES // 1472, 64)]


def test_a_hop_is_taken_and_the_checksum_stays_right() -> None:
    bench = Bench()
    for ttl in range(2, 256):
        (_,) = bench.runs(packet(TO_A, ttl=ttl))
        assert bench.buffer[8] == ttl - 1
        assert sum_of(bench.buffer[:20]) == 0


def test_what_has_no_peer_or_no_hop_left_or_is_no_ipv4_strays_and_parts_its_neighbours() -> None:
    for odd in (packet(TO_NOBODY), packet(TO_A, ttl=1), packet(TO_A, ttl=0), b"\x60" + bytes(99), b"", b"E"):
        bench = Bench()
        assert bench.runs(packet(TO_A), packet(TO_A), odd, packet(TO_A)) == [(A, 0, 2), (A, 3, 4)]
        assert bench.strayed == 1


def test_nothing_is_no_run() -> None:
    assert Bench().runs() == []


def test_of_random_packets_each_goes_to_its_peer_once_or_strays() -> None:
    print(f"FLANNEL_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    bench = Bench()
    seen = 0
    while seen < PACKETS:
        packets: list[bytes] = []
        while len(packets) < MOST_PACKETS:
            one = packet(
                rng.choice([TO_A, TO_A, TO_B, TO_NOBODY]), rng.choice([40, 100, 1472]), rng.choice([1, 64, 64])
            )
            if rng.random() < 0.05:
                changed = bytearray(one)
                changed[rng.randrange(20)] = rng.getrandbits(8)
                one = bytes(changed)[: rng.randrange(len(changed) + 1)]
            packets += [one] * rng.choice([1, 1, 5])
        bench.strayed = 0
        found = bench.runs(*packets)
        assert [first for _, first, _ in found] == sorted(first for _, first, _ in found)
        covered = [index for _, first, end in found for index in range(first, end)]
        assert len(covered) + bench.strayed == len(packets)
        for peer, first, end in found:
            sizes = [len(one) for one in packets[first:end]]
            assert end - first <= MOST_PACKETS
            assert sum(sizes) <= MOST_BYTES
            assert all(size == sizes[0] for size in sizes[:-1])
            assert sizes[-1] <= sizes[0]
            for index in range(first, end):
                there, came = bench.buffer[index * 1472 :][: sizes[index - first]], packets[index]
                assert bench.table.find(came[16:20]) == peer
                assert there[8] == came[8] - 1
                assert there[:8] + there[9:10] + there[12:] == came[:8] + came[9:10] + came[12:]
                assert sum_of(there[:20]) == sum_of(came[:20])
        seen += len(packets)
