"""The agent's two small HTTP servers: health and metrics on TCP, the rest on a Unix socket that only root may open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import msgspec

from .errors import FlannelError
from .journal import Journal, lines
from .netconf import MAX_CONFIG_BYTES
from .task_groups import unless

if TYPE_CHECKING:
    from .agent import Agent

log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""How long a client may take to send its request, and to take in each part of the answer: a stalled one must not hold
a connection for ever."""
JSON_LINES = "application/x-ndjson"
LARGEST_BODY = MAX_CONFIG_BYTES
"""Bytes of a request: what is sent is a network configuration."""


class Reply(msgspec.Struct, frozen=True):
    """What a route answers: ``body``, and then whatever ``more`` yields, for as long as the client stays."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    more: AsyncGenerator[bytes] | None = None


Route = Callable[[], Awaitable[Reply]]
Form = Callable[[bytes], Awaitable[Reply]]
"""Answers a POST; gets its body."""


def json_reply(value: object) -> Reply:
    """``value``, a msgspec struct or built-in, as JSON."""
    return Reply(msgspec.json.encode(value), content_type="application/json")


class HttpServer:
    """Answers GET and HEAD of a fixed set of paths, POST of some; 404 and 405 to anything else."""

    def __init__(self, routes: Mapping[str, Route], forms: Mapping[str, Form] = {}) -> None:
        self._routes = routes
        self._forms = forms
        self._server: asyncio.Server | None = None

    async def listen_tcp(self, address: str, port: int) -> None:
        """Raises FlannelError naming the option to change if the port cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, address, port)
        except OSError as error:
            raise FlannelError(
                f"--healthz-ip {address} --healthz-port {port}: {os.strerror(error.errno) if error.errno else error}; "
                "choose another port, or 0 for none"
            ) from error

    async def listen_unix(self, path: Path) -> None:
        """A socket that only root may open. The caller holds the state directory's lock, so one that is there is
        stale. Raises FlannelError."""
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - one call, at the start
            umask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, path)
            finally:
                os.umask(umask)
        except OSError as error:
            raise FlannelError(f"{path}: the agent's socket cannot be made: {error.strerror or error}") from error

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(h11.Connection(h11.SERVER), reader, writer)
        except (h11.ProtocolError, OSError, TimeoutError):
            pass  # the client went away or does not speak HTTP; there is nobody to tell
        finally:
            writer.close()

    async def _answer(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(REQUEST_SECONDS):
            received = await _request(connection, reader)
            if received is None:
                return
            request, body = received
            reply = await self._reply(request, body)
            headers = [("Content-Type", reply.content_type), ("Connection", "close")]
            if reply.more is None:
                headers.append(("Content-Length", str(len(reply.body))))
            writer.write(connection.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
            has_body = request.method != b"HEAD"
            if has_body:
                writer.write(connection.send(h11.Data(reply.body)) or b"")
            await writer.drain()
        if reply.more is not None and has_body:
            async with contextlib.aclosing(reply.more) as more:
                await unless(reader.read(1), _pour(connection, writer, more))
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    async def _reply(self, request: h11.Request, body: bytes) -> Reply:
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        route, form = self._routes.get(path), self._forms.get(path)
        if route is None and form is None:
            return Reply(b"404 page not found\n", 404)
        try:
            if route is not None and request.method in (b"GET", b"HEAD"):
                return await route()
            if form is not None and request.method == b"POST":
                return await form(body)
            return Reply(b"405 method not allowed\n", 405)
        except FlannelError as error:  # what was asked for cannot be done, and why
            return Reply(f"{error}\n".encode(), 422)
        except Exception:
            log.exception("Answering %s failed", path)
            return Reply(b"500 see the agent's log\n", 500)


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes] | None:
    """The whole of a request with its body; None if the client is done, or sends too much. Raises h11.ProtocolError."""
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return None if request is None else (request, body)
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return None


async def _pour(connection: h11.Connection, writer: asyncio.StreamWriter, more: AsyncIterator[bytes]) -> None:
    async for part in more:
        writer.write(connection.send(h11.Data(part)) or b"")
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.drain()


async def _news(journal: Journal, position: int) -> AsyncGenerator[bytes]:
    """What is added to the journal after ``position``, as lines. Never ends."""
    while True:
        entries = await journal.after(position)
        position = journal.added
        yield lines(entries)


@contextlib.asynccontextmanager
async def serving(agent: Agent) -> AsyncIterator[None]:
    """The agent's servers, as long as the block runs. Raises FlannelError if a socket or port cannot be had."""

    async def healthz() -> Reply:
        return Reply(b"flanneld is running")

    async def readyz() -> Reply:
        return Reply(b"flanneld is ready") if agent.ready_now else Reply(b"flanneld is not ready yet", 503)

    async def status() -> Reply:
        from .status_report import status_of  # paid for by whoever asks first, not by the start

        return json_reply(status_of(agent))

    async def plan() -> Reply:
        from .status_report import plan_of

        return json_reply(await plan_of(agent))

    async def restart_plan(text: bytes) -> Reply:
        from .rehearsal import rehearse

        return json_reply(await rehearse(agent, text))

    async def events() -> Reply:
        return Reply(agent.journal.text(), content_type=JSON_LINES)

    async def follow() -> Reply:
        news = _news(agent.journal, agent.journal.added)
        return Reply(agent.journal.text(), content_type=JSON_LINES, more=news)

    health: dict[str, Route] = {"/healthz": healthz, "/readyz": readyz}
    async with contextlib.AsyncExitStack() as stack:
        control = HttpServer(
            {**health, "/status": status, "/plan": plan, "/events": events, "/events/follow": follow},
            {"/plan": restart_plan},
        )
        await control.listen_unix(agent.directory / "flanneld.sock")
        stack.callback(control.close)
        if agent.options.healthz_port:
            server = HttpServer({**health, **_metrics(agent)})
            await server.listen_tcp(agent.options.healthz_ip, agent.options.healthz_port)
            stack.callback(server.close)
        yield


def _metrics(agent: Agent) -> dict[str, Route]:
    """The route of the metrics, if they are switched on."""
    if not agent.options.metrics:
        return {}
    from .metrics import Metrics  # paid for by those who want them

    metrics = Metrics(agent)

    async def page() -> Reply:
        return Reply(metrics.page(), content_type=metrics.content_type)

    return {"/metrics": page}
