"""The forwarder process as a target: what it forwards, and to which peers."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import ClassVar

import msgspec

from flannel_core.objects import Object
from flannel_core.target import Actual, Changed, Failure, Put, Scope, Target, TargetUnavailable, Unknown

from .forwarder_client import Connection, ForwarderEnded, connect, start
from .messages import VERSION, Change, Done, Look, Release, Settings, State, Stop, Take, Watch

SOCKET = "udp-forwarder.sock"
"""The file, in the state directory."""

SOCKET_BUFFER = 4 << 20
"""Bytes: what arrives while packets go the other way. Twice the largest window of a TCP connection fits."""
UDP_GRO = 104  # linux/udp.h
DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_IFREQ = Struct("=16sH22x")  # struct ifreq of linux/if.h: ifr_name, ifr_flags
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h


class ForwarderSettings(Object, frozen=True, gc=False):
    """What the forwarder works with: the TUN ``device`` and its ``mtu``, the address and port of the UDP socket."""

    kind: ClassVar[str] = "forwarder"

    device: str
    mtu: int
    local: str
    port: int

    @property
    def identity(self) -> tuple[object, ...]:
        return ("forwarder",)

    @property
    def on_device(self) -> str | None:
        return self.device

    @property
    def record(self) -> str | None:
        return self.device

    def describe(self) -> str:
        return f"forwarder dev {self.device} mtu {self.mtu} local {self.local} port {self.port}"


class ForwarderPeer(Object, frozen=True, gc=False):
    """A subnet, and the address of the host that has it."""

    kind: ClassVar[str] = "forwarder peer"

    subnet: str
    address: str

    @property
    def identity(self) -> tuple[object, ...]:
        return ("forwarder peer", self.subnet)

    def describe(self) -> str:
        return f"forwarder peer {self.subnet} at {self.address}"


class ForwarderTarget(Target):
    """Finds the forwarder by its socket, and starts one where there is something to forward and nobody listens. It
    outlives this process; removing the settings ends it."""

    name = "forwarder"
    stages: ClassVar[Mapping[type[Object], int]] = {ForwarderSettings: 25, ForwarderPeer: 30}

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / SOCKET
        self._name = secrets.token_hex(8)
        self._connection: Connection | None = None
        self._started = asyncio.Event()

    async def close(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, scope: Scope) -> Iterable[Actual]:
        """Nothing where no forwarder listens."""
        try:
            state = await self._state()
        except TargetUnavailable:
            self._disconnect()
            raise
        if state is None:
            return []
        found = [Actual(ForwarderPeer(subnet, address)) for subnet, address in state.peers.items()]
        if state.settings is not None:
            settings = ForwarderSettings(**msgspec.structs.asdict(state.settings))
            found.append(Actual(settings, {"forwarder": state.pid, **state.counters}))
        return found

    async def _state(self) -> State | None:
        try:
            return await self._look()
        except ForwarderEnded:  # long ago, or just now that its device is gone: there is another, or none
            self._disconnect()
            return await self._look()

    async def _look(self) -> State | None:
        """None where there is no forwarder. One that does not understand all that is to be said to it is ended."""
        if self._connection is None:
            self._connection = connect(self.path)
        if self._connection is None:
            return None
        state = await self._connection.ask(Look(by=self._name), State)
        if state.version == VERSION:
            return state
        await self._stop()
        return None

    async def watch(self, scope: Scope) -> AsyncIterator[Changed | Unknown]:
        """Says so when the forwarder has ended or lost its device, and when somebody else has changed something."""
        while True:
            self._started.clear()
            watching = connect(self.path)
            if watching is None:
                await self._started.wait()
                continue
            try:
                await watching.ask(Watch(by=self._name), Done)
                while True:
                    yield Unknown(None, "something may have changed at the forwarder")
                    await watching.hear(Done)
            except ForwarderEnded as error:
                yield Unknown(None, str(error))
            finally:
                watching.close()

    # --- writing -------------------------------------------------------------------------------------------------

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        try:
            return await self._write(puts, removes)
        except TargetUnavailable:
            self._disconnect()
            raise

    async def _write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        failures: list[Failure] = []
        if any(isinstance(item, ForwarderSettings) for item in removes):
            await self._stop()
            return failures
        settings = [put.object for put in puts if isinstance(put.object, ForwarderSettings)]
        put = {put.object.subnet: put.object.address for put in puts if isinstance(put.object, ForwarderPeer)}
        remove = tuple(item.subnet for item in removes if isinstance(item, ForwarderPeer))
        for item in settings:
            reason = await self._give(item)
            if reason is not None:
                failures.append(Failure(item, reason))
        if put or remove:
            connection = await self._connected()
            done = await connection.ask(Change(put, remove, by=self._name), Done)
            if done.error:
                failures += [Failure(item.object, done.error) for item in puts if item.object not in settings]
        return failures

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self.path) or await start(self.path)
            self._started.set()
        return self._connection

    async def _stop(self) -> None:
        connection = self._connection or connect(self.path)
        if connection is not None:
            try:
                await connection.ask(Stop(by=self._name), Done)
            except ForwarderEnded:
                pass  # as it was told to
        self._disconnect()

    async def _give(self, wanted: ForwarderSettings) -> str | None:
        """Why the forwarder cannot have what it is to work with."""
        connection = await self._connected()
        await connection.ask(Release(by=self._name), Done)  # neither the device nor the port can be had twice
        try:
            device = _attached(wanted.device)
        except OSError as error:
            return _explain_device(wanted.device, error)
        try:
            with _bound(wanted.local, wanted.port) as outside:
                settings = Settings(wanted.device, wanted.mtu, wanted.local, wanted.port)
                done = await connection.ask(Take(settings, by=self._name), Done, [device, outside.fileno()])
                return done.error or None
        except OSError as error:
            return _explain_port(wanted, error)
        finally:
            os.close(device)


def _attached(name: str) -> int:
    """A descriptor of the TUN device. Raises OSError."""
    socket.if_nametoindex(name)  # attaching to what is not there would make it
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    except BaseException:
        os.close(device)
        raise
    return device


def _bound(local: str, port: int) -> socket.socket:
    """Raises OSError."""
    outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        outside.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        outside.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER)
        try:
            outside.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        except OSError:  # before Linux 5.0: each datagram is received by itself
            pass
        outside.bind((local, port))
    except BaseException:
        outside.close()
        raise
    return outside


def _explain_device(name: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"another process holds {name}: `grep -l {name} /proc/*/fdinfo/*` names it"
    return f"the forwarder cannot have {name}: {error.strerror or error}"


def _explain_port(wanted: ForwarderSettings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {wanted.port} of {wanted.local} is in use by another program (`ss -lunp` names it), or by the"
            " kernel's own FOU (`ip fou show`)"
        )
    return f"UDP port {wanted.port} of {wanted.local} cannot be had: {error.strerror}"
