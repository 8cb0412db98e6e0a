"""A client of an API server for the lab and its tests: plain requests, of which none is tried again."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from .endpoint import ApiServer
from .requests import STRATEGIC_MERGE

NODES = "/api/v1/nodes"


class Answer(NamedTuple):
    """``value`` is the body as JSON, or as text where it is none."""

    code: int
    value: Any
    headers: dict[str, str]


class Client:
    """Plain requests over one connection that is kept."""

    def __init__(self, server: ApiServer, token: str | None, **files: str) -> None:
        url = urlsplit(server.url)
        self.server = server
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if server.ca is None:
            self.connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
        else:
            context = ssl.create_default_context(cafile=str(server.ca))
            if files:
                context.load_cert_chain(**files)
            self.connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=20, context=context)

    def ask(
        self,
        path: str,
        method: str = "GET",
        value: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: Any,
    ) -> Answer:
        """``query`` is what follows the ``?``."""
        headers = {**self._headers, "Content-Type": content_type, "Accept": accept}
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        response = self._response(method, f"{path}?{urlencode(query)}" if query else path, body, headers)
        text = response.read()
        return Answer(response.status, as_json(text), dict(response.getheaders()))

    def _response(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Over a new connection where the server has closed the one that was kept."""
        for attempt in ("kept", "new"):
            try:
                self.connection.request(method, path, body, headers)
                return self.connection.getresponse()
            except OSError as error:  # RemoteDisconnected is one
                self.connection.close()
                if attempt == "new" or not isinstance(error, ConnectionError):
                    raise
        raise AssertionError("unreachable")

    def create(self, value: Any, path: str = NODES) -> Any:
        answer = self.ask(path, "POST", value)
        assert answer.code == 201, answer
        return answer.value

    def patch(self, name: str, value: Any, content_type: str = STRATEGIC_MERGE, subresource: str = "") -> Answer:
        path = f"/api/v1/nodes/{name}{subresource and '/'}{subresource}"
        return self.ask(path, "PATCH", value, content_type)

    def node(self, name: str) -> Any:
        return self.ask(f"/api/v1/nodes/{name}").value

    def watch(self, seconds: int = 1, path: str = NODES, **query: Any) -> list[Any]:
        """Every event of a watch that lasts so long."""
        words = urlencode({"watch": "true", "timeoutSeconds": seconds, **query})
        response = self._response("GET", f"{path}?{words}", None, self._headers)
        text = response.read()
        assert response.status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    @contextmanager
    def watching(self, **query: Any) -> Iterator[Iterator[Any]]:
        """The events of a watch, one by one, as they come."""
        words = urlencode({"watch": "true", **query})
        response = self._response("GET", f"{NODES}?{words}", None, self._headers)
        assert response.status == 200
        try:
            yield (json.loads(line) for line in response)
        finally:
            self.connection.close()


def as_json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()
