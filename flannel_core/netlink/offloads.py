"""What a device does in place of the kernel, as a target: the features that ``ethtool -k`` lists.

By ioctl and not by ethtool's netlink family, which came with Linux 5.6: the kernels whose checksum offload is broken
are older. Structures and numbers are those of linux/ethtool.h, linux/sockios.h and linux/if.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..objects import Object, Offload
from ..target import Actual, Failure, Put, Scope, Target, TargetUnavailable
from .reasons import explain
from .socket import NetlinkError

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSSET_INFO = 0x37
ETHTOOL_GFEATURES = 0x3A
ETHTOOL_SFEATURES = 0x3B
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32

_IFREQ = struct.Struct("=16sQ16x" if struct.calcsize("P") == 8 else "=16sL12x")  # ifr_name, ifr_data
_SET_INFO = struct.Struct("=IIQI")  # cmd, reserved, sset_mask, data[1]
_HEAD = struct.Struct("=II")  # cmd, size in blocks of 32 features
_STRINGS = struct.Struct("=III")  # cmd, string_set, len
_FEATURES = struct.Struct("=IIII")  # available, requested, active, never_changed
_CHANGE = struct.Struct("=II")  # valid, requested


class OffloadTarget(Target):
    """Reads and writes the offloads that are wanted, in the network namespace that the calling thread is in.

    It neither watches nor polls: the kernel tells of a changed feature as of any change of a link, and whoever hears of
    a device reads again all that is wanted on it. None is ever removed.
    """

    name: ClassVar[str] = "offloads"
    stages: ClassVar[Mapping[type[Object], int]] = {Offload: 10}

    async def read(self, scope: Scope) -> list[Actual]:
        """Those in ``scope.wanted``; what the device, or this kernel, does not have is left out. Raises
        TargetUnavailable."""
        self.scope = scope
        found = []
        for _, device, feature in scope.wanted:
            if scope.only is None or device in scope.only:
                active = _active(str(device), str(feature))
                if active is not None:
                    found.append(Actual(Offload(str(device), str(feature), active)))
        return found

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        return [Failure(put.object, reason) for put in puts if (reason := _switch(put.object))]


def _active(device: str, feature: str) -> bool | None:
    """None: there is no such device or feature. Raises TargetUnavailable."""
    try:
        with _socket() as asked:
            return _Features(asked, device).active(feature)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise TargetUnavailable(f"the offloads of {device} cannot be read: {error.strerror}") from error


def _switch(wanted: Object) -> str | None:
    """Why it could not be switched; None if it was."""
    if not isinstance(wanted, Offload):
        return f"the target of offloads has no {wanted.kind}"
    try:
        with _socket() as asked:
            features = _Features(asked, wanted.device)
            features.request(wanted.feature, wanted.on)
            if features.active(wanted.feature) == wanted.on:
                return None
        return (
            f"{wanted.device} has no {wanted.feature} that could be switched: `ethtool -k {wanted.device}` lists them"
        )
    except OSError as error:
        return explain(wanted, NetlinkError(error.errno or 0))


def _socket() -> socket.socket:
    """Any socket of the namespace will do; AF_NETLINK is the family that a sandboxed agent has for sure."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


class _Features:
    """The features of one device. Everything raises OSError: ENODEV without such a device."""

    def __init__(self, asked: socket.socket, device: str) -> None:
        self._asked = asked
        self._device = device
        size = _SET_INFO.unpack(self._ask(_SET_INFO.pack(ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0)))[3]
        self._blocks = (size + 31) // 32
        strings = self._ask(_STRINGS.pack(ETHTOOL_GSTRINGS, ETH_SS_FEATURES, size) + bytes(ETH_GSTRING_LEN * size))
        names = struct.unpack_from(f"{ETH_GSTRING_LEN}s" * size, strings, _STRINGS.size)
        self._numbers = {name.rstrip(b"\0").decode(errors="replace"): number for number, name in enumerate(names)}

    def active(self, feature: str) -> bool | None:
        """Whether it is on; None if the kernel knows no such feature."""
        number = self._numbers.get(feature)
        if number is None:
            return None
        answer = self._ask(_HEAD.pack(ETHTOOL_GFEATURES, self._blocks) + bytes(_FEATURES.size * self._blocks))
        block = _FEATURES.unpack_from(answer, _HEAD.size + number // 32 * _FEATURES.size)
        return bool(block[2] >> number % 32 & 1)

    def request(self, feature: str, on: bool) -> None:
        """The kernel passes over what the device cannot change."""
        number = self._numbers.get(feature)
        if number is None:
            return
        blocks = bytearray(_CHANGE.size * self._blocks)
        bit = 1 << number % 32
        _CHANGE.pack_into(blocks, number // 32 * _CHANGE.size, bit, bit if on else 0)
        self._ask(_HEAD.pack(ETHTOOL_SFEATURES, self._blocks) + blocks)

    def _ask(self, request: bytes) -> bytes:
        memory = array.array("B", request)  # the kernel writes its answer over the request
        name = self._device.encode()
        if len(name) > 15:  # IFNAMSIZ less its NUL
            raise OSError(errno.ENODEV, "Device name too long")
        fcntl.ioctl(self._asked, SIOCETHTOOL, _IFREQ.pack(name, memory.buffer_info()[0]))
        return memory.tobytes()
