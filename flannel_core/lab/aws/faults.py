"""What stands between an agent and EC2: a log of who asked for what, and refusals on demand."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgspec

ANY = "*"
OWNER = "lab"
"""The access key's id of the account's owner, to whom nothing is refused."""
MESSAGES = {  # of the codes that can be asked for
    "UnauthorizedOperation": "You are not authorized to perform this operation. "
    "Encoded authorization failure message: bGFi",
    "RequestLimitExceeded": "Request limit exceeded.",
    "RequestExpired": "Request has expired.",
    "AuthFailure": "AWS was not able to validate the provided access credentials",
}


class Asked(msgspec.Struct, frozen=True):
    """One request: the access key's id, the API's action and its parameters, and the status of the answer."""

    key: str
    action: str
    parameters: dict[str, str]
    status: int

    @property
    def is_write(self) -> bool:
        return not self.action.startswith("Describe")


class Fault(msgspec.Struct):
    """``times`` requests of ``action`` are refused with ``code``, one of MESSAGES; None: all of them."""

    action: str
    code: str
    status: int = 400
    times: int | None = None


class Front:
    """A WSGI application in front of moto's. ``on_write`` is called after each request that may have changed anything,
    before it is answered."""

    def __init__(self, application: WSGIApplication, on_write: Callable[[], None]) -> None:
        self.log: list[Asked] = []
        self.faults: list[Fault] = []
        self._application = application
        self._on_write = on_write
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        parameters = dict(parse_qsl(body.decode()))
        action = parameters.pop("Action", "")
        found = re.search(r"Credential=(\w+)", environ.get("HTTP_AUTHORIZATION", ""))
        key = found[1] if found else ""
        fault = self._fault(action) if key != OWNER else None
        if fault:
            said = MESSAGES[fault.code]
            answer, status = _error(fault.code, said).encode(), f"{fault.status} {fault.code}"
            headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))]
        else:
            environ["wsgi.input"] = io.BytesIO(body)
            told: list[Any] = []
            answer = b"".join(self._application(environ, lambda *said: told.append(said)))  # type: ignore[arg-type]
            status, headers = told[0][:2]
        asked = Asked(key, action, parameters, int(status.split()[0]))
        with self._lock:
            self.log.append(asked)
            if asked.is_write:
                self._on_write()
        start_response(status, headers)
        return [answer]

    def _fault(self, action: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.action in (action, ANY) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


def _error(code: str, message: str) -> str:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<?xml version='1.0'?><Response><Errors>{error}</Errors><RequestID>lab</RequestID></Response>"
