"""How an API server says no: HTTP errors with a Status object as their body.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class ApiError(Exception):
    """``details`` goes into the Status; ``retry_after`` (seconds) into it and the header of that name."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        retry_after: int = 0,
        more: Mapping[str, Any] = {},
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}
        seconds = {"retryAfterSeconds": retry_after} if retry_after else {}
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(more),
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None or seconds:
            self.status["details"] = {**(details or {}), **seconds}
        self.status["code"] = code

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.status) + b"\n"


def unauthorized() -> ApiError:
    """A credential that nobody knows."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, resource: str, namespace: str, name: str) -> ApiError:
    """``resource`` with its subresource ("nodes/status")."""
    kind = resource.partition("/")[0]
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{kind} "{name}"' if name else kind
    details = {"name": name, "kind": kind} if name else {"kind": kind}
    message = f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "" {where}'
    return ApiError(403, "Forbidden", message, details)


def path_forbidden(user: str, verb: str, path: str) -> ApiError:
    """A path that is no resource."""
    return ApiError(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', {})


def not_found(resource: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', {"name": name, "kind": resource})


def already_exists(resource: str, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', {"name": name, "kind": resource})


def conflict(resource: str, name: str) -> ApiError:
    """The resourceVersion that was sent is not the object's."""
    message = (
        f'Operation cannot be fulfilled on {resource} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, {"name": name, "kind": resource})


def no_such_path() -> ApiError:
    """A path below an API that the server has, but of no resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def internal(message: str) -> ApiError:
    """What a real server answers where it meets a version that it cannot make sense of."""
    return ApiError(500, "", message)


def bad_number(text: str) -> ApiError:
    """A parameter that is no whole number."""
    return bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')


def bad_version(text: str) -> ApiError:
    """A resourceVersion that is no number."""
    return internal(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')


def invalid(kind: str, name: str, causes: Sequence[tuple[str, str, str]]) -> ApiError:
    """``causes``: reason ("FieldValueInvalid"), message ("Invalid value: ..."), field ("metadata.name")."""
    faults = [f"{field}: {message}" for _, message, field in causes]
    listed = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    details = {
        **({"name": name} if name else {}),
        "kind": kind,
        "causes": [{"reason": reason, "message": message, "field": field} for reason, message, field in causes],
    }
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details)


def expired_watch(asked: int, oldest: int) -> ApiError:
    """A watch from a version that was compacted."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def expired_list(token: str) -> ApiError:
    """A list whose snapshot was compacted between two pages; ``token`` goes on without one."""
    message = "the continue token's snapshot was compacted: list again, or go on with the inconsistent token given"
    return ApiError(410, "Expired", message, more={"continue": token} if token else {})


def too_large(asked: int, current: int) -> ApiError:
    """A version that is not reached yet, as after a restore."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(504, "Timeout", message, {"causes": causes}, retry_after=1)


def too_many_requests(retry_after: int) -> ApiError:
    message = "Too many requests, please try again later."
    return ApiError(429, "TooManyRequests", message, retry_after=retry_after)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def unsupported_patch() -> ApiError:
    """A patch of a kind that is none."""
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def not_acceptable() -> ApiError:
    message = "406: Not Acceptable\n\nAvailable representations: application/json"
    return ApiError(406, "NotAcceptable", message, {})


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})
