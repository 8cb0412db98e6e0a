"""The loop of the forwarder: packets both ways, and the agent's questions in between."""

from __future__ import annotations

import fcntl
import os
import select
import socket
from array import array
from collections.abc import Callable

import msgspec

from ..messages import (
    MOST_BYTES,
    VERSION,
    AnyRequest,
    Change,
    Done,
    Look,
    Release,
    Request,
    Settings,
    State,
    Take,
    Watch,
)
from .peer_table import PeerTable
from .receiving import Receiving
from .sending import Sending
from .traffic import Counters, DeviceGone

TUNSETOFFLOAD = 0x400454D0
"""linux/if_tun.h, as the features."""
TUN_F_CSUM, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x20, 0x40
READ_BYTES = 1 << 16
DESCRIPTORS = 2

_decoder = msgspec.json.Decoder(AnyRequest)


class Forwarder:
    """Serves every connection to ``listening``. Ends when it is told to, and when nobody is connected who could give it
    something to forward."""

    def __init__(self, listening: socket.socket) -> None:
        self.table = PeerTable()
        self.counters = Counters()
        self.settings: Settings | None = None
        self._listening = listening
        self._held: tuple[int, socket.socket] | None = None
        self._watching: dict[Connection, str] = {}
        self._connections: set[Connection] = set()
        self._epoll = select.epoll()
        self._work: dict[int, Callable[[], None]] = {}
        self._ends = False
        listening.setblocking(False)
        self._listen_to(listening.fileno(), self._accept)

    def run(self) -> None:
        """Until it ends."""
        poll, work = self._epoll.poll, self._work
        while not self._ends:
            for descriptor, _ in poll():
                act = work.get(descriptor)
                if act is None:
                    continue  # closed by what came before it
                try:
                    act()
                except DeviceGone:
                    self._release()
                    self._tell_all_but("")
                    self._end_if_idle()

    # --- what is forwarded ---------------------------------------------------------------------------------------

    def take(self, settings: Settings, tun: int, udp: int) -> None:
        """Forward between duplicates of these, in place of what was forwarded before. Raises OSError."""
        merges_udp = _cuts_up_udp(tun)
        self._release()
        device, outside = os.dup(tun), socket.fromfd(udp, socket.AF_INET, socket.SOCK_DGRAM)
        os.set_blocking(device, False)
        outside.setblocking(False)
        sending = Sending(device, outside, settings.port, settings.mtu, self.table, self.counters)
        receiving = Receiving(device, outside, self.table, self.counters, merges_udp=merges_udp)
        self._held = device, outside
        self.settings = settings
        self._listen_to(device, sending.work)
        self._listen_to(outside.fileno(), receiving.work)

    def _release(self) -> None:
        self.settings = None
        if self._held is not None:
            device, outside = self._held
            self._held = None
            self._forget(device)
            self._forget(outside.fileno())
            os.close(device)
            outside.close()

    # --- the agent -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except OSError:  # it has gone already
            return
        connection = Connection(accepted, self)
        self._connections.add(connection)
        self._listen_to(accepted.fileno(), connection.work)

    def answer(self, request: Request, descriptors: list[int], connection: Connection) -> Done | State | None:
        """None: there is nobody to answer any more. ``descriptors`` stay the caller's."""
        if isinstance(request, Look):
            counters = msgspec.structs.asdict(self.counters)
            return State(VERSION, os.getpid(), self.settings, self.table.peers, counters)
        if isinstance(request, Watch):
            self._watching[connection] = request.by
        elif isinstance(request, Take):
            if len(descriptors) != DESCRIPTORS:
                return Done(f"{len(descriptors)} descriptors came with it, not {DESCRIPTORS}")
            try:
                self.take(request.settings, *descriptors)
            except OSError as error:
                return Done(f"{request.settings.device}: {error.strerror}")
            self._tell_all_but(request.by)
        elif isinstance(request, Release):
            self._release()
            self._tell_all_but(request.by)
        elif isinstance(request, Change):
            return self._change(request)
        else:
            self._ends = True
            return None
        return Done()

    def _change(self, request: Change) -> Done:
        errors = []
        for subnet in request.remove:
            self.table.remove(subnet)
        for subnet, address in request.put.items():
            try:
                self.table.put(subnet, address)
            except ValueError as error:
                errors.append(f"{subnet} at {address}: {error}")
        self._tell_all_but(request.by)
        return Done("; ".join(errors))

    def _tell_all_but(self, by: str) -> None:
        for connection, name in self._watching.items():
            if name != by:
                connection.say(Done())

    def left(self, connection: Connection) -> None:
        """Its connection has ended."""
        self._forget(connection.descriptor)
        self._connections.discard(connection)
        self._watching.pop(connection, None)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if not self._connections and self.settings is None:
            self._ends = True

    # --- descriptors ---------------------------------------------------------------------------------------------

    def _listen_to(self, descriptor: int, work: Callable[[], None]) -> None:
        self._work[descriptor] = work
        self._epoll.register(descriptor, select.EPOLLIN)

    def _forget(self, descriptor: int) -> None:
        del self._work[descriptor]
        self._epoll.unregister(descriptor)

    def waits_for_room(self, descriptor: int, *, waits: bool) -> None:
        """Whether to call the work of ``descriptor`` when it can be written to, in place of read."""
        self._epoll.modify(descriptor, select.EPOLLOUT if waits else select.EPOLLIN)


class Connection:
    """One of the agent's. It never holds up packets: what it does not read waits here."""

    def __init__(self, socket: socket.socket, forwarder: Forwarder) -> None:
        self._socket = socket
        self._forwarder = forwarder
        self._received = bytearray()
        self._descriptors: list[int] = []
        self._unsent = bytearray()
        self.descriptor = socket.fileno()
        socket.setblocking(False)

    def work(self) -> None:
        """Send what could not be sent yet; only then take in what was said next, and answer it."""
        try:
            self._flush()
            if not self._unsent and not self._receive():
                self._close()
                return
            self._answer()
        except BlockingIOError:
            pass
        except OSError:
            self._close()

    def _receive(self) -> bool:
        """False at the end. Raises OSError."""
        ancillary = socket.CMSG_SPACE(DESCRIPTORS * array("i").itemsize)
        data, control, _, _ = self._socket.recvmsg(READ_BYTES, ancillary, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors += array("i", content)
        self._received += data
        return bool(data) and len(self._received) <= MOST_BYTES

    def _answer(self) -> None:
        """One line after the other, unless an answer has to wait."""
        while not self._unsent and b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            try:
                answer = self._forwarder.answer(_decoder.decode(line), self._descriptors, self)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                answer = Done(str(error))
            while self._descriptors:
                os.close(self._descriptors.pop())
            if answer is not None:
                self.say(answer)

    def say(self, answer: Done | State) -> None:
        self._unsent += msgspec.json.encode(answer) + b"\n"
        try:
            self._flush()
        except OSError:  # the end of the connection is heard next
            self._unsent.clear()

    def _flush(self) -> None:
        """Raises OSError."""
        had = bool(self._unsent)
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        if had:
            self._forwarder.waits_for_room(self.descriptor, waits=bool(self._unsent))

    def _close(self) -> None:
        self._forwarder.left(self)
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _cuts_up_udp(device: int) -> bool:
    """Whether the kernel takes UDP that is to be cut up (since Linux 6.2). The device offers none of it to the kernel:
    what is read from it is cut up already. Raises OSError for what is no TUN device."""
    fcntl.ioctl(device, TUNSETOFFLOAD, 0)
    try:
        fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
    except OSError:
        return False
    fcntl.ioctl(device, TUNSETOFFLOAD, 0)
    return True
