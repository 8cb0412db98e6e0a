"""The fake compute API's HTTP: each request is held against the discovery document that google-api-python-client ships,
and so is each answer, which keeps the fake itself honest."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from .discovery import Discovery
from .project import Cloud, Refused

ANY = "*"
MESSAGES = {
    "forbidden": "Required '{}' permission for 'projects/flannel-lab'",
    "rateLimitExceeded": "Rate Limit Exceeded",
    "accessNotConfigured": "Compute Engine API has not been used in project 1 before or it is disabled.",
    "authError": "Request had invalid authentication credentials.",
    "backendError": "Internal error. Please try again or contact Google Support.",
}


class Asked(msgspec.Struct, frozen=True):
    """One request: who asked (an instance's name), for which method, with what parameters; the answer's status, and
    what was not as the discovery document has it."""

    user: str
    method: str
    parameters: dict[str, str]
    status: int
    faults: list[str] = []
    is_write: bool = False


class Fault(msgspec.Struct):
    """``times`` requests of ``method`` are refused with ``reason``; None: all of them."""

    method: str
    reason: str
    status: int
    times: int | None = None


class Api:
    """``user_of`` tells whose an access token is, "" for nobody's."""

    def __init__(self, cloud: Cloud, discovery: Discovery, user_of: Callable[[str], str]) -> None:
        self.log: list[Asked] = []
        self.faults: list[Fault] = []
        self._cloud = cloud
        self._discovery = discovery
        self._user_of = user_of
        self._lock = threading.Lock()

    def answer(self, verb: str, url: str, token: str, text: bytes) -> tuple[int, Any]:
        """HTTP's status and the JSON."""
        address = urlsplit(url)
        query = parse_qs(address.query, keep_blank_values=True)
        found = self._discovery.find(verb, unquote(address.path.removeprefix(self._discovery.service_path)))
        if found is None or not address.path.startswith(self._discovery.service_path):
            return self._logged("", f"{verb} {address.path}", {}, _error(404, "notFound", "Not Found"), ["no method"])
        method, path = found
        parameters = path | {name: texts[-1] for name, texts in query.items()}
        user = self._user_of(token)
        try:
            body = json.loads(text) if text else None
            faults = self._discovery.request_faults(method, path, query, body)
        except ValueError as error:
            body, faults = None, [f"body: {error}"]
        result: tuple[int, Any]
        if faults:
            result = _error(400, "badRequest", "; ".join(faults))
        elif not user:
            result = _error(401, "authError", MESSAGES["authError"])
        elif fault := self._fault(method.name):
            message = MESSAGES.get(fault.reason, "the lab says so").format(f"compute.{method.name}")
            result = _error(fault.status, fault.reason, message)
        else:
            try:
                result = 200, self._cloud.call(method.name, parameters, body, user)
                faults = self._discovery.answer_faults(method, result[1])
            except Refused as error:
                result = _error(error.status, error.reason, str(error))
        return self._logged(user, method.name, parameters, result, faults, is_write=method.is_write)

    def _logged(
        self,
        user: str,
        method: str,
        parameters: Mapping[str, str],
        result: tuple[int, Any],
        faults: list[str],
        *,
        is_write: bool = False,
    ) -> tuple[int, Any]:
        with self._lock:
            self.log.append(Asked(user, method, dict(parameters), result[0], faults, is_write))
        return result

    def _fault(self, method: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method in (method, ANY) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


def _error(status: int, reason: str, message: str) -> tuple[int, Any]:
    error = {"message": message, "domain": "global", "reason": reason}
    return status, {"error": {"code": status, "message": message, "errors": [error]}}


def api_server(api: Api, host: str, port: int) -> ThreadingHTTPServer:
    """Listening; ``serve_forever`` is the caller's."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # httplib2 keeps connections

        def _serve(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = api.answer(self.command, self.path, token, text)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: ``Api.log`` has it."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def __init__(self) -> None:
            super().__init__((host, port), Handler)
            self._connections: set[Any] = set()

        def process_request(self, request: Any, client_address: Any) -> None:
            self._connections.add(request)
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            self._connections.discard(request)
            super().shutdown_request(request)

        def server_close(self) -> None:
            """No connection outlives it."""
            super().server_close()
            for connection in list(self._connections):
                self.shutdown_request(connection)

    return Server()
