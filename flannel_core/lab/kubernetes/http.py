"""HTTP/1.1 as the lab's API server needs it: requests whole, answers whole or as a stream, connections kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11

READ_BYTES = 65_536
WRITE_BYTES = 262_144
"""Of an answer at a time: a list of thousands takes a while, in which others are answered as well."""


@dataclass(frozen=True)
class Request:
    """``query`` has the last value of each parameter, ``headers`` their names in lower case; ``certificate`` is the
    client's, None if it showed none."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    certificate: Mapping[str, Any] | None


@dataclass(frozen=True)
class Response:
    """``content`` bytes are sent with their length; an iterator is sent chunk by chunk, each as soon as it is there."""

    content: bytes | AsyncIterator[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Hands each request to ``handler``."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._streams: set[asyncio.StreamWriter] = set()

    async def listen(self, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None) -> int:
        """On one port of all ``addresses``, a free one for 0. Returns it. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, list(addresses), port, ssl=tls, reuse_address=True)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        """Take no more connections and break those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._connections):
            writer.transport.abort()

    def cut_streams(self) -> int:
        """Break every connection that is sending a stream. Returns how many."""
        streams = list(self._streams)
        for writer in streams:
            writer.transport.abort()
        return len(streams)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            await _Connection(self._handler, reader, writer, self._streams).run()
        except (h11.ProtocolError, OSError):
            pass  # the client went away or does not speak HTTP: there is nobody to tell
        finally:
            self._connections.discard(writer)
            writer.close()


class _Connection:
    """One connection and the requests that come over it, one after the other."""

    def __init__(
        self,
        handler: Handler,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        streams: set[asyncio.StreamWriter],
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._writer = writer
        self._streams = streams
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=READ_BYTES)
        ssl_object = writer.get_extra_info("ssl_object")
        self._certificate: Mapping[str, Any] | None = ssl_object.getpeercert() if ssl_object else None

    async def run(self) -> None:
        while (request := await self._next_request()) is not None:
            await self._answer(await self._handler(request))
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Request | None:
        """None once the client has closed."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return self._request(head, bytes(body))
            else:
                return None

    def _request(self, head: h11.Request, body: bytes) -> Request:
        url = urlsplit(head.target.decode("ascii", "replace"))
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode(), url.path, query, headers, body, self._certificate)

    async def _answer(self, response: Response) -> None:
        headers = {"Cache-Control": "no-cache, private", "Content-Type": response.content_type, **response.headers}
        if isinstance(response.content, bytes):
            headers["Content-Length"] = str(len(response.content))
            self._send(h11.Response(status_code=response.status, headers=list(headers.items())))
            for start in range(0, len(response.content), WRITE_BYTES):
                self._send(h11.Data(response.content[start : start + WRITE_BYTES]))
                await self._writer.drain()
        else:
            headers["Transfer-Encoding"] = "chunked"
            self._send(h11.Response(status_code=response.status, headers=list(headers.items())))
            if not await self._stream(response.content):
                return
        self._send(h11.EndOfMessage())
        await self._writer.drain()

    async def _stream(self, chunks: AsyncIterator[bytes]) -> bool:
        """Whether it came to its end; it does not if the client closes."""
        sending = asyncio.create_task(self._send_all(chunks))
        closed = asyncio.create_task(self._reader.read(READ_BYTES))
        self._streams.add(self._writer)
        try:
            await asyncio.wait((sending, closed), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                return False
            sending.result()
            if closed.done():
                self._http.receive_data(closed.result())
            return True
        finally:
            self._streams.discard(self._writer)
            for task in (sending, closed):
                task.cancel()
            await asyncio.gather(sending, closed, return_exceptions=True)

    async def _send_all(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            self._send(h11.Data(chunk))
            await self._writer.drain()

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
