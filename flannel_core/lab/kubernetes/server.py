"""The process of the lab's API server: ``python -m flannel_core.lab.kubernetes.server SETTINGS.json``.

Clients speak to it over TCP, the lab over a Unix socket: one JSON array ``[name, {arguments}]`` a connection, answered
with ``{"result": ...}`` or ``{"error": "..."}``. ``process.KubernetesServer`` is the other end.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from .access import ADMIN, server_context
from .api import Api, Faults
from .http import HttpServer
from .objects import Json, Key
from .resources import RESOURCES, completed


class Settings(msgspec.Struct, frozen=True):
    """``certificate``, ``key`` and ``client_ca`` are files in PEM, "" for plain HTTP; ``port`` 0: a free one."""

    socket: str
    admin_token: str
    addresses: tuple[str, ...] = ("127.0.0.1",)
    port: int = 0
    certificate: str = ""
    key: str = ""
    client_ca: str = ""


class _Identity(msgspec.Struct):
    uid: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    creationTimestamp: str = msgspec.field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


class _Identified(msgspec.Struct):
    metadata: _Identity


class Controls:
    """What the lab may have the server do; each public method is one call over the socket."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._port = settings.port
        self._api = Api()
        self._api.access.tokens[settings.admin_token] = ADMIN
        self._server = HttpServer(self._api.answer)
        self._cutting: asyncio.Task[None] | None = None
        tls = settings.certificate and server_context(settings.certificate, settings.key, settings.client_ca or None)
        self._tls = tls or None

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """One call. Raises whatever it raises."""
        return await getattr(self, name)(**arguments)

    async def up(self) -> int:
        """Listen, on the port of last time. Returns it."""
        self._port = await self._server.listen(self._settings.addresses, self._port, self._tls)
        return self._port

    async def down(self) -> None:
        """Refuse connections and break those that there are; what is stored stays."""
        self._server.close()

    async def port(self) -> int:
        return self._port

    async def put(self, resource: str, objects: list[Json], namespace: str = "") -> None:
        """Write objects as they are given, whatever they hold: nothing is checked. One that is there is replaced and
        keeps its identity."""
        for value in objects:
            key = Key(resource, namespace, value["metadata"]["name"])
            before = self._api.objects.get(key)
            identity = msgspec.json.decode(before, type=_Identified).metadata if before else _Identity()
            metadata = {
                **msgspec.structs.asdict(identity),
                **({"namespace": namespace} if namespace else {}),
                **value["metadata"],
            }
            self._api.objects.put(key, completed(RESOURCES[resource], {**value, "metadata": metadata}))
        self._api.wake()

    async def get(self, resource: str, name: str, namespace: str = "") -> Json | None:
        body = self._api.objects.get(Key(resource, namespace, name))
        return None if body is None else msgspec.json.decode(body, type=dict[str, Any])

    async def all(self, resource: str) -> list[Json]:
        return [msgspec.json.decode(body) for _, body in self._api.objects.all(resource)]

    async def delete(self, resource: str, name: str, namespace: str = "") -> None:
        self._api.objects.delete(Key(resource, namespace, name))
        self._api.wake()

    async def compact(self) -> None:
        self._api.objects.compact()

    async def cut_watches(self) -> int:
        return self._server.cut_streams()

    async def faults(self, changes: dict[str, Any]) -> None:
        self._api.faults = msgspec.convert({**msgspec.structs.asdict(self._api.faults), **changes}, Faults)
        if self._cutting is not None:
            self._cutting.cancel()
        self._cutting = asyncio.create_task(self._keep_cutting()) if self._api.faults.cut_watches_every else None

    async def _keep_cutting(self) -> None:
        while True:
            await asyncio.sleep(self._api.faults.cut_watches_every)
            self._server.cut_streams()

    async def set_token(self, user: str, token: str) -> None:
        tokens = self._api.access.tokens
        for old in [known for known, of in tokens.items() if of == user]:
            del tokens[old]
        tokens[token] = user

    async def allow(self, user: str, verb: str, resource: str) -> None:
        self._api.access.rights.setdefault(user, set()).add((verb, resource))

    async def deny(self, user: str, verb: str, resource: str) -> None:
        self._api.access.rights.get(user, set()).discard((verb, resource))

    async def log(self, since: int) -> list[Any]:
        return list(self._api.log[since:])


async def serve(settings: Settings) -> None:
    """Until the process is ended. Raises OSError."""
    controls = Controls(settings)
    await controls.up()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, arguments = msgspec.json.decode(await reader.read())
        try:
            answer: dict[str, Any] = {"result": await controls.call(name, arguments)}
        except Exception as error:  # goes to whoever called
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(msgspec.json.encode(answer))
        writer.write_eof()
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(control, settings.socket)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)))
