"""What a request to an API server asks for: its resource, verb, parameters and body."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from .http import Request
from .objects import Key
from .resources import RESOURCES, Resource
from .status import bad_number, bad_request, bad_version, unsupported_media_type

Json = dict[str, Any]

JSON_MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


class Target(msgspec.Struct, frozen=True):
    """What a path names. ``name`` "": the collection."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def rule(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    @property
    def key(self) -> Key:
        return Key(self.resource.plural, self.namespace, self.name)


def target_of(path: str) -> Target | None:
    """What a path under /api/v1 names; None if it names nothing that is served."""
    words = path.strip("/").split("/")
    if words[:2] != ["api", "v1"]:
        return None
    words = words[2:]
    namespace = ""
    if len(words) > 2 and words[0] == "namespaces" and words[2] in RESOURCES:
        namespace, words = words[1], words[2:]
    resource = RESOURCES.get(words[0]) if words else None
    if resource is None or len(words) > 3 or words[2:] not in ([], ["status"]) or bool(namespace) > resource.namespaced:
        return None
    return Target(resource, namespace, *[*words[1:], "", ""][:2])


def verb_of(request: Request, target: Target | None) -> str:
    """As in a Role: get, list, watch, create, patch, delete; the method in lower case for any other."""
    if request.method == "GET" and target is not None and not target.name:
        return "watch" if request.query.get("watch") in ("true", "1") else "list"
    return VERBS.get(request.method, request.method.lower())


def named_by_selector(query: Mapping[str, str]) -> str | None:
    """The name that fieldSelector asks for; None if it asks for none. Raises ApiError for any other selector."""
    if query.get("labelSelector"):
        raise bad_request("the lab's API server knows no labelSelector")
    selector = query.get("fieldSelector", "")
    if not selector:
        return None
    field, _, value = selector.partition("=")
    if field != "metadata.name":
        raise bad_request(f"field label not supported: {field}")
    return value.removeprefix("=")


def number(query: Mapping[str, str], name: str) -> int:
    """A parameter, 0 where it is absent. Raises ApiError 400, for a version 500."""
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise bad_version(text) if name == "resourceVersion" else bad_number(text)
    return int(text or 0)


def to_token(revision: int, start: str) -> str:
    """Where a paged list goes on; revision -1 means "as it is then"."""
    return base64.urlsafe_b64encode(
        msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    ).decode()


def from_token(token: str) -> tuple[int, str]:
    """Raises ApiError 400."""
    try:
        value = msgspec.json.decode(base64.urlsafe_b64decode(token))
        return int(value["rv"]), str(value["start"])
    except (binascii.Error, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        raise bad_request("continue key is not valid") from None


def accepts_json(accept: str) -> bool:
    types = [part.partition(";")[0].strip() for part in accept.split(",")]
    return not accept or any(kind in ("application/json", "application/*", "*/*") for kind in types)


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "application/json").partition(";")[0].strip()


def decoded(request: Request) -> Json:
    """The body as a JSON object. Raises ApiError 400, and 415 for an object that is not sent as JSON."""
    if request.method == "POST" and content_type(request) != "application/json":
        raise unsupported_media_type(("application/json",))
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is no JSON object: {error}") from None
