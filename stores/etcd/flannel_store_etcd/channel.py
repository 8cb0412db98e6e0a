"""grpclib's channel, made to connect once, to tell why it was lost, and to end at once."""

from __future__ import annotations

import asyncio
import ssl

from grpclib.client import Channel, Handler
from grpclib.protocol import H2Protocol

SETTINGS_FRAME = 4
"""The type of the first frame that an HTTP/2 server sends (RFC 9113, 3.4)."""
_TYPE_AT = 3
"""Where a frame has its type (RFC 9113, 4.1)."""


class _Protocol(H2Protocol):
    """Notes what grpclib does not keep."""

    heard = 0.0
    first = b""
    lost_by: Exception | None = None
    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        self.first = self.first or data[: _TYPE_AT + 1]
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[override]
        self.lost_by = exc
        super().connection_lost(exc)


class EtcdChannel(Channel):
    """A channel that connects in :meth:`open` and never again."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, ssl=context)
        self._h2 = _Protocol(Handler(), self._config, self._h2_config)
        self._opened = False

    async def open(self) -> None:
        """Raises OSError (of which ssl.SSLError is one)."""
        await self.__connect__()

    async def _create_connection(self) -> H2Protocol:
        if self._opened:
            raise ConnectionError("the connection was lost")
        self._opened = True
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._h2, self._host, self._port, ssl=self._ssl)
        return self._h2

    @property
    def alive(self) -> bool:
        return self._connected

    @property
    def speaks_http2(self) -> bool:
        """False also where nothing was heard."""
        return self._h2.first[_TYPE_AT:] == bytes([SETTINGS_FRAME])

    @property
    def heard(self) -> float:
        """The event loop's time at which the last byte arrived."""
        return self._h2.heard

    @property
    def lost_by(self) -> Exception | None:
        """What the transport gave as the reason, a TLS alert for instance."""
        return self._h2.lost_by

    def abort(self) -> None:
        """End it without waiting for the other side, which may be frozen; whoever waits for an answer hears of it."""
        transport = self._h2.transport
        if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():  # a TLS one would stumble
            transport.abort()
        self.close()
