"""Netlink sockets in the network namespace of the calling thread: asking, writing in bulk, and listening.

The kernel handles what is sent before ``send`` returns, so no answer is ever waited for; only notifications are.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from ..errors import FlannelError
from .message import (
    BYTE_ORDER,
    HEADER_BYTES,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    MalformedMessage,
    Message,
    Request,
    attributes,
    messages,
    pack,
    text,
)

# linux/netlink.h; Python's socket module has none of them.
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLMSGERR_ATTR_MSG = 1
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

# linux/rtnetlink.h: enum rtnetlink_groups
RTNLGRP_LINK = 1
RTNLGRP_NEIGH = 3
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV6_IFADDR = 9
RTNLGRP_IPV6_ROUTE = 11

BATCH = 200
"""Requests per ``send``. The answers of a batch in which all fail (about 1 KiB of socket memory each) still fit into
the receive buffer that an unprivileged process may have."""
RECEIVE_BYTES = 65536
"""More than the kernel ever puts into one datagram of a dump (32 KiB)."""
RECEIVE_BUFFER_BYTES = 4 << 20
NOTIFICATION_BUFFER_BYTES = 16 << 20
"""The kernel counts some 0.8 KiB for each notification, and twice this: what 10,000 peers cause at a start fits in.
Nothing is set aside for it."""
DUMP_ATTEMPTS = 10


class NetlinkError(FlannelError):
    """The kernel refused. ``number`` is the errno, ``text`` what it says besides (extended ACK), often ""."""

    def __init__(self, number: int, text: str = "") -> None:
        self.number = number
        self.text = text
        super().__init__(f"{os.strerror(number)} ({text})" if text else os.strerror(number))


class NotificationsLost(Exception):
    """The kernel had more to say than the socket could hold, or what it said does not parse: read everything again."""


def _open(receive_buffer: int, protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """Raises FlannelError where the system lets nobody talk to its network stack."""
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise FlannelError(
            f"no netlink socket can be opened: {error.strerror}; the sandbox (seccomp, systemd's"
            " RestrictAddressFamilies) has to allow AF_NETLINK"
        ) from None
    try:
        try:
            opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:  # no CAP_NET_ADMIN in the first user namespace: rmem_max is the limit
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                opened.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # before Linux 4.20: answers say less, dumps hold more, and both are understood
                pass
        opened.bind((0, 0))
    except BaseException:
        opened.close()
        raise
    return opened


class NetlinkSocket:
    """Asks and writes. One thread at a time may use it."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        """``protocol``: NETLINK_* of linux/netlink.h."""
        self._socket = _open(RECEIVE_BUFFER_BYTES, protocol)
        self._sequence = 0
        self.port: int = self._socket.getsockname()[0]
        """Names this socket in the notifications that its requests cause."""

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def dump(self, request: Request) -> list[Message]:
        """All that the kernel has for ``request``, read again while it changes under the reading.

        A table that never stands still is returned as it was last seen: whoever keeps in step listens to its
        notifications besides. Raises NetlinkError and MalformedMessage.
        """
        for _ in range(DUMP_ATTEMPTS):
            whole, found = self._dump_once(request)
            if whole:
                break
        return found

    def _dump_once(self, request: Request) -> tuple[bool, list[Message]]:
        sequence = self._send([request], NLM_F_REQUEST | NLM_F_DUMP)
        whole = True
        found: list[Message] = []
        while True:
            for message in messages(self._receive()):
                if message.sequence != sequence:
                    continue
                if message.flags & NLM_F_DUMP_INTR:
                    whole = False
                if message.type == NLMSG_DONE or message.type == NLMSG_ERROR:
                    error = _error(message)
                    if error is not None:
                        raise error
                    return whole, found
                found.append(message)

    def get(self, request: Request) -> Message:
        """The one message that answers ``request``. Raises NetlinkError and MalformedMessage."""
        sequence = self._send([request], NLM_F_REQUEST)
        while True:
            for message in messages(self._receive()):
                if message.sequence != sequence:
                    continue
                if message.type == NLMSG_ERROR:
                    raise _error(message) or NetlinkError(errno.ENODATA)
                return message

    def request(self, request: Request) -> None:
        """Write one. Raises NetlinkError."""
        for error in self.write([request]).values():
            raise error

    def write(self, requests: Sequence[Request]) -> dict[int, NetlinkError]:
        """Write some, at most BATCH, with one ``send``. Returns what failed, by place."""
        if not requests:
            return {}
        # Only the last asks for an answer; a failure is answered in any case.
        first = self._send(requests, NLM_F_REQUEST, last_flags=NLM_F_REQUEST | NLM_F_ACK)
        last = len(requests) - 1
        failed: dict[int, NetlinkError] = {}
        answered = False
        while not answered:
            try:
                datagram = self._receive()
            except NetlinkError as lost:
                return {place: failed.get(place, lost) for place in range(len(requests))}
            for message in messages(datagram):
                place = (message.sequence - first) & 0xFFFFFFFF
                if message.type != NLMSG_ERROR or place > last:
                    continue
                error = _error(message)
                if error is not None:
                    failed[place] = error
                answered = answered or place == last
        return failed

    def _send(self, requests: Sequence[Request], flags: int, last_flags: int | None = None) -> int:
        """Returns the sequence number of the first; the others follow it."""
        first = sequence = (self._sequence + 1) & 0x7FFFFFFF
        parts = []
        for request in requests:
            parts.append(pack(request, sequence, flags))
            sequence += 1
        if last_flags is not None:
            parts[-1] = pack(requests[-1], sequence - 1, last_flags)
        self._sequence = sequence - 1
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO) from None
        return first

    def _receive(self) -> bytes:
        """The next answer, which is there already. Raises NetlinkError (ENOBUFS) if it was dropped."""
        while True:
            try:
                return self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise NetlinkError(errno.ENOBUFS, "an answer was lost, the outcome is unknown") from None
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # which comes ahead of the answers that did fit
                    raise NetlinkError(error.errno or errno.EIO) from None


class NotificationSocket:
    """Hears what changes in the groups (RTNLGRP_*), from the moment it is made."""

    def __init__(self, groups: Iterable[int], receive_buffer: int = NOTIFICATION_BUFFER_BYTES) -> None:
        self._socket = _open(receive_buffer)
        self._socket.setblocking(False)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def close(self) -> None:
        self._socket.close()

    async def receive(self, limit: int = 256) -> list[Message]:
        """Wait for something, then take what is there, about ``limit`` messages at most. Raises NotificationsLost."""
        loop = asyncio.get_running_loop()
        found: list[Message] = []
        try:
            datagram, sender = await loop.sock_recvfrom(self._socket, RECEIVE_BYTES)
            while True:
                if sender[0] == 0:  # the kernel; any privileged process may send us messages too
                    found += messages(datagram)
                if len(found) >= limit:
                    return found
                try:
                    datagram, sender = self._socket.recvfrom(RECEIVE_BYTES)
                except BlockingIOError:
                    return found
        except MalformedMessage as error:
            self._forget()
            raise NotificationsLost(str(error)) from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._forget()
            raise NotificationsLost("the kernel dropped notifications") from None

    def _forget(self) -> None:
        """Drop what still waits: it is older than the gap, and would be taken for newer than what is read now."""
        while True:
            try:
                self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _error(message: Message) -> NetlinkError | None:
    """What an NLMSG_ERROR or NLMSG_DONE says; None: success."""
    body = message.body
    if len(body) < 4:
        if message.type == NLMSG_DONE:
            return None
        raise MalformedMessage("an answer without an error number")
    number = -int.from_bytes(body[:4], BYTE_ORDER, signed=True)
    if number == 0:
        return None
    said = b""
    if message.flags & NLM_F_ACK_TLVS:
        start = 4
        if message.type == NLMSG_ERROR:
            start += HEADER_BYTES
            if not message.flags & NLM_F_CAPPED:
                start += max(0, int.from_bytes(body[4:8], BYTE_ORDER) - HEADER_BYTES)
                start = (start + 3) & ~3
        said = attributes(body, start).get(NLMSGERR_ATTR_MSG, b"")
    return NetlinkError(number if 0 < number < 4096 else errno.EIO, text(said))
