"""Generic netlink: the families that the kernel numbers as it loads them, such as WireGuard's and FOU's.

Messages are a genlmsghdr and attributes (linux/genetlink.h); ``nlctrl``, the one family with a fixed number, tells the
others' by name.
"""

from __future__ import annotations

import errno
from struct import Struct
from types import TracebackType
from typing import Self

from ..errors import FlannelError
from .message import Request, attribute_text, attributes, u16
from .socket import NetlinkError, NetlinkSocket

NETLINK_GENERIC = 16  # linux/netlink.h
GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

_GENLMSGHDR = Struct("=BBxx")  # cmd, version


class NoFamily(FlannelError):
    """This kernel has no such family: its module is not loaded, or not there."""


class GenericSocket:
    """Asks and writes one family, in the network namespace of the thread that made it. What ``NetlinkSocket`` says of
    threads and errors holds here too."""

    def __init__(self, family: str, version: int = 1) -> None:
        """Raises NoFamily. Many a module, ``wireguard`` among them, is loaded by the question; ``fou`` is not."""
        self._socket = NetlinkSocket(NETLINK_GENERIC)
        self._version = version
        try:
            self._number = self._ask_number(family)
        except BaseException:
            self.close()
            raise

    def _ask_number(self, family: str) -> int:
        question = _GENLMSGHDR.pack(CTRL_CMD_GETFAMILY, 1) + attribute_text(CTRL_ATTR_FAMILY_NAME, family)
        try:
            answer = self._socket.get(Request(GENL_ID_CTRL, 0, question))
        except NetlinkError as error:
            if error.number != errno.ENOENT:
                raise
            raise NoFamily(f"this kernel has no {family}: `modprobe {family}`") from None
        return u16(attributes(answer.body, _GENLMSGHDR.size)[CTRL_ATTR_FAMILY_ID])

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def request(self, command: int, body: bytes) -> None:
        """Write one: ``command`` of the family with the attributes in ``body``. Raises NetlinkError."""
        self._socket.request(self._request(command, body))

    def dump(self, command: int, body: bytes = b"") -> list[dict[int, bytes]]:
        """The attributes of each message that answers. Raises NetlinkError and MalformedMessage."""
        answers = self._socket.dump(self._request(command, body))
        return [attributes(answer.body, _GENLMSGHDR.size) for answer in answers]

    def _request(self, command: int, body: bytes) -> Request:
        return Request(self._number, 0, _GENLMSGHDR.pack(command, self._version) + body)
