"""Requests to an API server: the transport and credentials of the package ``kubernetes``, bytes as the answers.

Everything here blocks and is called in threads of its own; nothing waits for more than a time that it is given.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from urllib3 import exceptions

from flannel_core import __version__
from flannel_core.store import StoreError, StoreUnavailable

from . import client_package
from .credentials import Access
from .diagnosis import ApiStatus, no_kubernetes, refused, unreachable

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""How long an API server may be silent once it was asked."""
MOST_BYTES = 4 << 20
"""Of an answer that is kept whole. A node is some kilobytes, at most etcd's 1.5 MB."""
UNAUTHORIZED = 401

Verb = Literal["get", "list", "watch", "patch", "create"]
_STRATEGIC = "application/strategic-merge-patch+json"
_METHODS: dict[Verb, str] = {"patch": "PATCH", "create": "POST"}


class Call(NamedTuple):
    """``verb`` and ``resource`` as a ClusterRole names them. ``query`` without what is None."""

    verb: Verb
    resource: str
    path: str
    query: dict[str, str]
    body: bytes | None = None


def get_node(name: str) -> Call:
    return Call("get", "nodes", f"/api/v1/nodes/{quote(name, safe='')}", {})


def get_pod(namespace: str, name: str) -> Call:
    return Call("get", "pods", f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}", {})


def patch_node(name: str, patch: Any) -> Call:
    """Through its status, which is all that an agent may write: annotations go with it (a strategic merge)."""
    path = f"/api/v1/nodes/{quote(name, safe='')}/status"
    return Call("patch", "nodes/status", path, {}, msgspec.json.encode(patch))


def create_event(namespace: str, event: Any) -> Call:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
    return Call("create", "events", path, {}, msgspec.json.encode(event))


class NoAnswer(StoreUnavailable):
    """The server is not reached, or its answer broke off."""


class Refused(StoreUnavailable):
    """It answers, and not with what was asked for. ``retry_after``: seconds that it wants to be left alone for."""

    def __init__(self, text: str, status: int, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class _Session(NamedTuple):
    """Credentials as they were read, and the connections that were made with them. ``url`` is kept apart: refreshing
    a token sets that of ``configuration`` back to the kubeconfig's."""

    url: str
    configuration: Any
    pool: urllib3.PoolManager

    def authorization(self) -> dict[str, str]:
        """Its token, as fresh as the package ``kubernetes`` keeps it. Raises whatever that trips over."""
        settings = self.configuration.auth_settings().values()
        return {setting["key"]: setting["value"].strip() for setting in settings}


class ApiServer:
    """Any number of threads may ask at once. Credentials are read again when they are refused."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def place(self) -> str:
        """Which API server it is, for messages."""
        return self._access.place

    def load(self) -> None:
        """Read the credentials. Raises StoreError."""
        self._loaded()

    def close(self) -> None:
        """Idle connections only."""
        with self._lock:
            if self._session is not None:
                self._session.pool.clear()

    def answer(self, call: Call) -> bytes:
        """The whole answer. Raises NoAnswer, Refused."""
        response = self.stream(call, ANSWER_SECONDS)
        try:
            return response.read(MOST_BYTES)
        except (exceptions.HTTPError, OSError) as error:
            raise NoAnswer(f"{self.place} {unreachable(error)}") from None
        finally:
            response.close()  # one that was read to its end leaves a connection to be used again

    def stream(self, call: Call, silent_seconds: float) -> urllib3.BaseHTTPResponse:
        """The answer, still to be read; reading raises urllib3's errors once it is silent for so long. Raises
        NoAnswer, Refused."""
        try:
            session = self._loaded()
            shown = session.authorization()
            response = self._send(session, call, shown, silent_seconds)
            if response.status == UNAUTHORIZED:
                anew = self._loaded(other_than=session)
                if (renewed := anew.authorization()) != shown:  # the token was rotated
                    self._rest(response)
                    session = anew
                    response = self._send(session, call, renewed, silent_seconds)
        except Exception as error:
            # Besides urllib3's: a kubeconfig that is none any more, a token with a line end in it, an exec plugin.
            text = str(error) if isinstance(error, StoreError) else f"{self.place} {unreachable(error)}"
            raise NoAnswer(text) from None
        if response.status >= 300:
            raise self._refused(session, call, response)
        content_type = response.headers.get("Content-Type", "")
        if not content_type.startswith("application/json"):
            text = no_kubernetes(content_type, self._rest(response))
            raise Refused(f"{self.place} {text}", response.status)
        return response

    def _loaded(self, other_than: _Session | None = None) -> _Session:
        """Raises StoreError."""
        with self._lock:
            if self._session is None or self._session is other_than:
                configuration = self._access.configuration()
                if not configuration.verify_ssl:  # the operator's own wish, in the kubeconfig
                    urllib3.disable_warnings(exceptions.InsecureRequestWarning)
                try:
                    pool = client_package.submodule("client.rest").RESTClientObject(configuration).pool_manager
                except Exception as error:  # a proxy that is no URL, or needs a package
                    raise StoreError(f"{self.place}: {unreachable(error)}") from None
                self._session = _Session(configuration.host.rstrip("/"), configuration, pool)
            return self._session

    def _send(
        self, session: _Session, call: Call, authorization: dict[str, str], silent_seconds: float
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": f"flanneld/{__version__}", **authorization}
        if call.body is not None:
            headers["Content-Type"] = _STRATEGIC if call.verb == "patch" else "application/json"
        query = f"?{urlencode(call.query)}" if call.query else ""
        return session.pool.request(
            _METHODS.get(call.verb, "GET"),
            f"{session.url}{call.path}{query}",
            body=call.body,
            headers=headers,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silent_seconds),
            preload_content=False,
            redirect=False,
            retries=False,
        )

    def _refused(self, session: _Session, call: Call, response: urllib3.BaseHTTPResponse) -> Refused:
        text = self._rest(response)
        try:
            status = msgspec.json.decode(text, type=ApiStatus)
        except ValueError:
            status = None
        shown = self._access.shown(session.configuration)
        words = refused(call.verb, call.resource, response.status, status, text, shown)
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else 0.0
        if status is not None and status.details is not None:
            seconds = max(seconds, status.details.retry_after_seconds)
        return Refused(f"{self.place} {words}", response.status, seconds)

    def _rest(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read(65536)
        except (exceptions.HTTPError, OSError):
            return b""
        finally:
            response.close()
