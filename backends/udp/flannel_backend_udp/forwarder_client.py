"""The agent's end of the forwarder's socket, and how a forwarder is started where nobody else has."""

from __future__ import annotations

import asyncio
import socket
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from flannel_core.process import run
from flannel_core.target import TargetUnavailable

from .messages import Done, Request, State

PROGRAM = ("-P", "-m", "flannel_backend_udp.forwarder.main")
"""What Python runs; -P: the directory that the agent was started in is no place to import from."""
START_SECONDS = 10.0
ANSWER_SECONDS = 3.0
"""Repairs of the kernel wait for as long."""
READ_BYTES = 1 << 16

T = TypeVar("T", Done, State)


class ForwarderEnded(TargetUnavailable):
    """Another one may listen by now."""


class Connection:
    """Asks one question at a time. Raises TargetUnavailable, after which it is of no use."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = bytearray()

    def close(self) -> None:
        self._socket.close()

    async def ask(self, request: Request, answer: type[T], descriptors: Sequence[int] = ()) -> T:
        """``descriptors`` go along."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(msgspec.json.encode(request) + b"\n", descriptors)
                return await self.hear(answer)
        except TimeoutError:
            raise TargetUnavailable(f"the forwarder does not answer within {ANSWER_SECONDS:.0f} s") from None

    async def hear(self, answer: type[T]) -> T:
        """The next thing that the forwarder says, whenever that is."""
        loop = asyncio.get_running_loop()
        try:
            while b"\n" not in self._received:
                data = await loop.sock_recv(self._socket, READ_BYTES)
                if not data:
                    raise ForwarderEnded("the forwarder has ended")
                self._received += data
            line, _, self._received = self._received.partition(b"\n")
            return msgspec.json.decode(line, type=answer)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ForwarderEnded(f"the forwarder does not answer: {error}") from error

    async def _send(self, line: bytes, descriptors: Sequence[int]) -> None:
        try:
            if descriptors:
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
                line = line[self._socket.sendmsg([line], passed) :]
            await asyncio.get_running_loop().sock_sendall(self._socket, line)
        except OSError as error:
            raise ForwarderEnded(f"the forwarder does not listen: {error.strerror}") from error


def connect(path: Path) -> Connection | None:
    """To a forwarder that listens there; None: there is none. Raises TargetUnavailable."""
    connected = socket.socket(socket.AF_UNIX)
    connected.setblocking(False)
    try:
        connected.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    except OSError as error:
        connected.close()
        raise TargetUnavailable(f"{path}: the forwarder cannot be reached: {error.strerror}") from error
    return Connection(connected)


async def start(path: Path) -> Connection:
    """A forwarder in a process group of its own, which stays when this process ends. Raises TargetUnavailable."""
    try:
        ended = await run(sys.executable, *PROGRAM, "--detach", str(path), seconds=START_SECONDS)
        said = ended.errors.decode(errors="replace").strip()
    except (OSError, TimeoutError) as error:
        said = str(error) or f"it took longer than {START_SECONDS:.0f} s"
    connection = connect(path)
    if connection is None:
        raise TargetUnavailable(
            f"no forwarder listens at {path}, and none could be started ({said}): under systemd, enable"
            " flannel-udp-forwarder.socket"
        )
    return connection
