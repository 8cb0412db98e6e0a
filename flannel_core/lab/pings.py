"""ICMP echo out of network namespaces: many at once, in one thread, without a ``ping`` process."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from .network import inside
from .patience import PATIENCE

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
UNREACHABLE = {4: 3, 6: 1}
"""ICMP types of RFC 792 and RFC 4443."""
CODES = {
    (4, 0): "network unreachable",
    (4, 1): "host unreachable",
    (4, 4): "packet too big",
    (6, 0): "no route to destination",
    (6, 3): "address unreachable",
}
IP_HEADER = {4: 20, 6: 40}
SMALL = 84
"""What `ping` sends: 56 bytes of data, 8 of ICMP, 20 of IPv4."""
TRY_AGAIN_SECONDS = 0.2
NO_ANSWER = "no answer"


@dataclass
class Probe:
    """One echo request: when it left and when its answer came (monotonic seconds), or why none will come."""

    namespace: str
    destination: str
    sent: float
    answered: float | None = None
    reason: str = NO_ANSWER

    @property
    def milliseconds(self) -> float | None:
        return None if self.answered is None else (self.answered - self.sent) * 1000


class Echoes:
    """Sends echo requests and matches what comes back. One raw socket per namespace and family, made when needed."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._identifier = int.from_bytes(os.urandom(2))
        self._sequence = 0
        self._waiting: dict[tuple[str, int, int], Probe] = {}

    def close(self) -> None:
        self._selector.close()
        for opened in self._sockets.values():
            opened.close()

    def __enter__(self) -> Echoes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, namespace: str, destination: str, size: int = SMALL) -> Probe:
        """Send one request, ``size`` bytes with its IP header. A send that the kernel refuses is a probe with that
        reason, never an exception."""
        family = 6 if ":" in destination else 4
        self._sequence = (self._sequence + 1) & 0xFFFF
        packet = _packet(family, self._identifier, self._sequence, size)
        opened = self._socket(namespace, family)
        probe = Probe(namespace, destination, time.monotonic())
        try:
            opened.sendto(packet, (destination, 0))
        except OSError as error:
            probe.reason = (error.strerror or str(error)).lower()
        else:
            self._waiting[namespace, family, self._sequence] = probe
        return probe

    def receive(self, until: float) -> None:
        """Take in what arrives before ``until`` (monotonic seconds); returns early once nothing is awaited."""
        while self._waiting and (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                namespace, family = key.data
                assert isinstance(key.fileobj, socket.socket)
                self._take(namespace, family, *key.fileobj.recvfrom(2048))

    def _take(self, namespace: str, family: int, packet: bytes, sender: tuple[str, int]) -> None:
        now = time.monotonic()
        message = packet[(packet[0] & 15) * 4 :] if family == 4 else packet
        kind, code = message[0], message[1]
        if kind == UNREACHABLE[family]:
            refused = message[8:]
            inner = refused[(refused[0] & 15) * 4 :] if family == 4 else refused[IP_HEADER[6] :]
            if len(inner) >= 8 and (probe := self._waiting.get((namespace, family, self._number(inner)))):
                probe.reason = f"{sender[0]} says: {CODES.get((family, code), f'unreachable, code {code}')}"
        elif kind == ECHO_REPLY[family] and (
            probe := self._waiting.pop((namespace, family, self._number(message)), None)
        ):
            probe.answered = now

    def _number(self, message: bytes) -> int:
        """The sequence number of an echo message, -1 if it is not one of ours."""
        identifier, sequence = struct.unpack_from("!HH", message, 4)
        return sequence if identifier == self._identifier else -1

    def _socket(self, namespace: str, family: int) -> socket.socket:
        if (namespace, family) not in self._sockets:
            kind, protocol = (
                (socket.AF_INET, socket.IPPROTO_ICMP) if family == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
            )
            opened = inside(namespace, lambda: socket.socket(kind, socket.SOCK_RAW, protocol))
            self._sockets[namespace, family] = opened
            self._selector.register(opened, selectors.EVENT_READ, (namespace, family))
        return self._sockets[namespace, family]


def _packet(family: int, identifier: int, sequence: int, size: int) -> bytes:
    """An echo request that is ``size`` bytes long with its IP header. The kernel fills in ICMPv6's checksum itself."""
    kind = ECHO_REQUEST[family]
    body = struct.pack("!HH", identifier, sequence) + bytes(size - IP_HEADER[family] - 8)
    # The one's complement sum of RFC 792; the rest of the packet is zero.
    total = (kind << 8) + identifier + sequence
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF if family == 4 else 0
    return struct.pack("!BBH", kind, 0, checksum) + body


def ping_all(flows: Sequence[tuple[str, str]], within: float) -> list[Probe]:
    """Ping every (namespace, destination) at once, again each 0.2 s where no answer came, for at most ``within``
    seconds. Returns the probe of each flow that was answered, else its last one that names a reason."""
    deadline = time.monotonic() + within * PATIENCE
    tried: list[list[Probe]] = [[] for _ in flows]
    with Echoes() as echoes:
        while True:
            for flow, probes in zip(flows, tried, strict=True):
                if not any(probe.answered for probe in probes):
                    probes.append(echoes.send(*flow))
            try_again = min(deadline, time.monotonic() + TRY_AGAIN_SECONDS)
            echoes.receive(try_again)
            results = [_best(probes) for probes in tried]
            if time.monotonic() >= deadline or all(probe.answered for probe in results):
                return results
            time.sleep(max(0.0, try_again - time.monotonic()))


def ping(namespace: str, destination: str, within: float) -> Probe:
    """Ping once, alone, so that the time does not hold the sending of others."""
    with Echoes() as echoes:
        probe = echoes.send(namespace, destination)
        echoes.receive(probe.sent + within * PATIENCE)
    return probe


def _best(probes: Sequence[Probe]) -> Probe:
    answered = (probe for probe in probes if probe.answered)
    explained = (probe for probe in reversed(probes) if probe.reason != NO_ANSWER)
    return next(answered, None) or next(explained, probes[-1])


class Pinging:
    """Pings some flows all the time while the ``with`` block runs, in a thread of its own.

    ``interval`` in seconds between two requests of a flow, ``size`` in bytes with the IP header. Read ``sent``,
    ``lost`` and ``outage`` after the block; answers have a second to arrive when it ends.
    """

    GRACE_SECONDS = 1.0 * PATIENCE

    def __init__(self, flows: Iterable[tuple[str, str]], interval: float = 0.02, size: int = SMALL) -> None:
        self.size = size
        self.flows = tuple(flows)
        self.interval = interval
        self.probes: list[list[Probe]] = [[] for _ in self.flows]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pinging")

    def __enter__(self) -> Pinging:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with Echoes() as echoes:
            tick = time.monotonic()
            while not self._end.is_set():
                for flow, probes in zip(self.flows, self.probes, strict=True):
                    probes.append(echoes.send(*flow, self.size))
                tick = max(tick + self.interval, time.monotonic())
                echoes.receive(tick)
                self._end.wait(tick - time.monotonic())
            echoes.receive(time.monotonic() + self.GRACE_SECONDS)

    @property
    def sent(self) -> int:
        return sum(len(probes) for probes in self.probes)

    @property
    def lost(self) -> int:
        """How many requests were never answered, over all flows."""
        return sum(probe.answered is None for probes in self.probes for probe in probes)

    @property
    def reasons(self) -> set[str]:
        """Why, for those that were lost."""
        return {probe.reason for probes in self.probes for probe in probes if probe.answered is None}

    @property
    def outage(self) -> float:
        """The longest time in seconds that one flow was without an answer: from the sending of the first request
        that was lost to that of the next one answered (or of the last, if none was)."""
        longest = 0.0
        for probes in self.probes:
            began: float | None = None
            for probe in probes:
                if probe.answered is not None:
                    began = None
                elif began is None:
                    began = probe.sent
                if began is not None:
                    longest = max(longest, probe.sent - began + self.interval)
        return longest
