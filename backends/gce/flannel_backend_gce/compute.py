"""The compute API, as far as routes need it: google-api-python-client in threads, from the discovery document that it
ships, its errors in words. Nothing of it is imported before the first call.

Methods: https://cloud.google.com/compute/docs/reference/rest/v1/routes, errors:
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-errors
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flannel_core import threads
from flannel_core.errors import FlannelError
from flannel_core.printable import printable

from .gce_objects import GceRoute
from .options import GceOptions

T = TypeVar("T")

READ_SECONDS = 10.0
RETRIES = 3
"""Of the SDK: throttling, 5xx and lost connections are tried again with backoff and jitter, for 14 s at most."""
OPERATION_SECONDS = 100.0
"""How long an operation is waited for, as Go flannel."""
POLL_SECONDS = 1.0
"""Between two looks at it; half of that after the first, since most are done by then."""
SCOPE = "https://www.googleapis.com/auth/compute"
PERMISSIONS = (
    "compute.globalOperations.get",
    "compute.instances.get",
    "compute.networks.get",
    "compute.networks.updatePolicy",
    "compute.routes.create",
    "compute.routes.delete",
    "compute.routes.get",
    "compute.routes.list",
)
"""What the instance's service account has to be allowed: all in the network's project, the second in the instance's."""
GRANT = (
    f"give the instance's service account a role with {', '.join(PERMISSIONS)}, and the instance the access scope "
    f"{SCOPE}"
)


class ComputeError(FlannelError):
    """A call that failed: ``status`` is HTTP's, 0 where the call never got there. ``str(error)`` says what to do."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Compute:
    """The API. Every call raises ComputeError."""

    def __init__(self, options: GceOptions) -> None:
        self._options = options
        self._service: Any = None
        self._lock = threading.Lock()  # httplib2 is for one thread at a time

    async def instance(self, project: str, zone: str, name: str) -> dict[str, Any]:
        return await self._ask(
            "instances.get", lambda api: api.instances().get(project=project, zone=zone, instance=name)
        )

    async def network(self, project: str, name: str) -> dict[str, Any]:
        return await self._ask("networks.get", lambda api: api.networks().get(project=project, network=name))

    async def routes(self, project: str) -> list[dict[str, Any]]:
        """All of them, whatever their number."""

        def work(api: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            request = api.routes().list(project=project)
            while request is not None:
                page = request.execute(num_retries=RETRIES)
                found += page.get("items", ())
                request = api.routes().list_next(request, page)
            return found

        return await self._in_a_thread("routes.list", work)

    async def route(self, project: str, name: str) -> dict[str, Any] | None:
        """None: there is none of this name."""
        try:
            return await self._ask("routes.get", lambda api: api.routes().get(project=project, route=name))
        except ComputeError as error:
            if error.status == 404:
                return None
            raise

    async def insert(self, route: GceRoute) -> None:
        """Returns once it stands."""
        body: dict[str, Any] = {
            "name": route.name,
            "destRange": route.destination,
            "network": _url(route.network),
            "priority": route.priority,
            "tags": list(route.tags),
        }
        if route.hop.startswith("projects/"):
            body["nextHopInstance"] = _url(route.hop)
        else:
            body["nextHopIp"] = route.hop
        token = str(uuid.uuid4())  # a request that is sent twice is carried out once
        await self._operate(
            "routes.insert",
            route.project,
            lambda api: api.routes().insert(project=route.project, body=body, requestId=token),
        )

    async def delete(self, project: str, name: str) -> None:
        """Returns once it is gone; it may be gone already."""
        token = str(uuid.uuid4())
        try:
            await self._operate(
                "routes.delete",
                project,
                lambda api: api.routes().delete(project=project, route=name, requestId=token),
            )
        except ComputeError as error:
            if error.status != 404:
                raise

    async def _operate(self, method: str, project: str, request: Callable[[Any], Any]) -> None:
        """Wait for the operation that ``request`` begins, without a thread between two looks at it."""
        operation = await self._ask(method, request)
        name = operation["name"]
        give_up = time.monotonic() + OPERATION_SECONDS
        pause = POLL_SECONDS / 2
        while operation.get("status") != "DONE":
            if time.monotonic() > give_up:
                raise ComputeError(
                    f"compute.{method}: timeout waiting for operation to finish: {name} is {operation.get('status')} "
                    f"after {OPERATION_SECONDS:.0f} s; it is looked at again"
                )
            await asyncio.sleep(pause)
            pause = POLL_SECONDS
            operation = await self._ask(
                "globalOperations.get", lambda api: api.globalOperations().get(project=project, operation=name)
            )
        for failed in operation.get("error", {}).get("errors", ()):
            status = operation.get("httpErrorStatusCode", 0)
            message = printable(failed.get("message", ""), 300)
            raise ComputeError(_explained(method, status, failed.get("code", ""), message), status)

    async def _ask(self, method: str, request: Callable[[Any], Any]) -> dict[str, Any]:
        return await self._in_a_thread(method, lambda api: dict(request(api).execute(num_retries=RETRIES)))

    async def _in_a_thread(self, method: str, call: Callable[[Any], T]) -> T:
        def work() -> T:
            from google.auth.exceptions import GoogleAuthError
            from googleapiclient.errors import HttpError
            from httplib2 import HttpLib2Error

            try:
                with self._lock:
                    return call(self._api())
            except HttpError as error:
                status, reason, message = _details(error)
                raise ComputeError(_explained(method, status, reason, message), status) from None
            except GoogleAuthError as error:
                raise ComputeError(
                    f"compute.{method}: no credentials ({printable(str(error), 200)}): give the instance a service "
                    f"account, and the access scope {SCOPE}"
                ) from None
            except (OSError, HttpLib2Error) as error:
                raise ComputeError(f"compute.{method}: {printable(str(error) or type(error).__name__, 200)}") from None
            except Exception as error:  # of any class: what a proxy answers with is no JSON
                said = f"{type(error).__name__}: {printable(str(error), 100)}"
                raise ComputeError(
                    f"compute.{method}: what answers is not the compute API ({said}); see Backend.Endpoint"
                ) from None

        return await threads.call(work)

    def _api(self) -> Any:
        if self._service is None:
            import logging

            import google.auth
            import google_auth_httplib2
            import httplib2
            from googleapiclient.discovery import build

            # It warns that it heeds no time-out of a single request, at each of them; ours is the connection's.
            logging.getLogger("google_auth_httplib2").setLevel(logging.ERROR)
            credentials, _ = google.auth.default(scopes=[SCOPE])
            http = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http(timeout=READ_SECONDS))
            endpoint = self._options.endpoint.rstrip("/")
            options: Any = {"api_endpoint": f"{endpoint}/compute/v1/"} if endpoint else None
            self._service = build(
                "compute", "v1", http=http, static_discovery=True, cache_discovery=False, client_options=options
            )
        return self._service


def addresses_of(instance: Mapping[str, Any]) -> Iterator[str]:
    """Of all network interfaces of an instance as the API has it."""
    for interface in instance.get("networkInterfaces", ()):
        yield from interface_addresses(interface)


def interface_addresses(interface: Mapping[str, Any]) -> Iterator[str]:
    """The internal ones, and the external ones of IPv6, which are the interface's own too."""
    found = [interface.get("networkIP"), interface.get("ipv6Address")]
    found += [access.get("externalIpv6") for access in interface.get("ipv6AccessConfigs", ())]
    yield from filter(None, found)


def _url(path: str) -> str:
    return f"https://www.googleapis.com/compute/v1/{path}"


def _details(error: Any) -> tuple[int, str, str]:
    """HTTP status, Google's reason ("" where it is not Google who answers) and message."""
    try:
        told = json.loads(error.content)["error"]
        reasons = [item.get("reason", "") for item in (*told.get("errors", ()), *told.get("details", ()))]
        return int(error.status_code), next(filter(None, reasons), ""), printable(told.get("message", ""), 300)
    except (ValueError, KeyError, TypeError, AttributeError):
        said = printable(error.content or b"", 100)
        return int(error.status_code), "", f"what answers is not the compute API ({said}); see Backend.Endpoint"


def _explained(method: str, status: int, reason: str, message: str) -> str:
    what = f"compute.{method}: {' '.join(filter(None, [str(status or ''), reason]))}: {message}"
    match reason:
        case "accessNotConfigured" | "SERVICE_DISABLED":
            return f"{what}; switch the API on: gcloud services enable compute.googleapis.com"
        case "quotaExceeded" | "QUOTA_EXCEEDED" | "QUOTA_LIMIT":
            return f'{what}; raise the quota "Routes" of the network\'s project, or remove routes that nobody needs'
        case "rateLimitExceeded" | "userRateLimitExceeded" | "RATE_LIMIT_EXCEEDED":
            return f"{what}; it is tried again"
        case _ if status == 403 and reason:
            return f"{what}; {GRANT}"
        case _ if status == 401:
            return f"{what}; the credentials are not accepted: compare this host's clock with the time"
        case _:
            return what
