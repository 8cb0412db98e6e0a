"""A Kubernetes API server of nodes, pods and events, with real semantics and faults on demand.

What a node agent meets is here and behaves as in kube-apiserver 1.31, which tests/kubernetes_api runs beside it:
versions, paged lists, watches, patches, subresources, rights, credentials, and how each says no. What is not here is
refused, never ignored: other resources, PUT, JSON patch, server-side apply, selectors besides ``metadata.name``,
protobuf, discovery. Objects carry no managedFields; it is HTTP/1.1, and nothing is compressed.

``process.KubernetesServer`` runs it as a process; ``Api`` is what answers, in one event loop.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from . import status as says
from .access import Access, Who
from .http import Request, Response
from .objects import Gone, Objects
from .patch import PatchError, json_merge, strategic_merge
from .requests import (
    JSON_MERGE,
    STRATEGIC_MERGE,
    Target,
    accepts_json,
    content_type,
    decoded,
    from_token,
    named_by_selector,
    number,
    target_of,
    to_token,
    verb_of,
)
from .resources import check, check_types, check_update, completed, updated
from .status import ApiError

Json = dict[str, Any]

VERSION = {"major": "1", "minor": "31", "gitVersion": "v1.31.0+lab"}
TOO_LARGE_SECONDS = 3.0
"""How long a list waits for a version that is not reached yet."""
LAST_BOOKMARK_SECONDS = 2.0
"""How long before its end a watch gets its last bookmark."""
WATCH_SECONDS = (1800, 3600)
"""How long a watch lasts that does not say so."""
GENERATED = "bcdfghjklmnpqrstvwxz2456789"
"""What follows generateName."""


class Faults(msgspec.Struct):
    """What the server does to its clients. All off to begin with.

    ``delay``: seconds before each answer. ``cut_watches_every``: seconds after which the connections of all watches
    break, again and again. ``refuse``: so many of the next requests are answered with 429 and ``retry_after``.
    ``gone_as_status``: a watch from a compacted version is answered with HTTP 410 in place of an ERROR event.
    ``bookmark_seconds``: the time between two bookmarks. ``page``: HTML that a proxy in between answers with.
    """

    delay: float = 0.0
    cut_watches_every: float = 0.0
    refuse: int = 0
    retry_after: int = 1
    gone_as_status: bool = False
    bookmark_seconds: float = 60.0
    page: str = ""


class Asked(msgspec.Struct, frozen=True):
    """One request: ``verb`` as in a Role; ``resource`` with its subresource, the path where there is none; ``body`` of
    a write; ``code`` of the answer. ``time`` is in seconds since the epoch."""

    time: float
    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    query: dict[str, str]
    content_type: str
    body: str
    code: int


class Api:
    """Answers requests out of ``objects``, by the rules of ``access``, with ``faults``; keeps ``log``."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.access = Access()
        self.faults = Faults()
        self.log: list[Asked] = []
        self._written = asyncio.Event()

    def wake(self) -> None:
        """To be called after each change of ``objects``: watches look for what is new."""
        self._written.set()
        self._written = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        """Never raises."""
        if self.faults.delay:
            await asyncio.sleep(self.faults.delay)
        who: Who = ("", ())
        target = target_of(request.path)
        verb = verb_of(request, target)
        try:
            who = self.access.user(request.headers.get("authorization", ""), request.certificate)
            if self.faults.refuse:
                self.faults.refuse -= 1
                raise says.too_many_requests(self.faults.retry_after)
            if self.faults.page:
                response = Response(self.faults.page.encode(), 502, "text/html")
            else:
                response = await self._answer(request, who, verb, target)
        except ApiError as error:
            response = Response(error.body, error.code, headers=error.headers)
        self.log.append(
            Asked(
                time.time(),
                who[0],
                verb,
                target.rule if target else request.path,
                target.namespace if target else "",
                target.name if target else "",
                dict(request.query),
                request.headers.get("content-type", ""),
                request.body.decode(errors="replace"),
                response.status,
            )
        )
        return response

    async def _answer(self, request: Request, who: Who, verb: str, target: Target | None) -> Response:
        if target is None:
            self.access.check_path(who, request.path)
            if request.path == "/version":
                return Response(msgspec.json.encode(VERSION))
            if request.path in ("/healthz", "/livez", "/readyz"):
                return Response(b"ok", content_type="text/plain; charset=utf-8")
            if request.path.startswith("/api/v1/"):
                raise says.no_such_path()
            return Response(b"404 page not found\n", 404, "text/plain; charset=utf-8")
        name = target.name or (named_by_selector(request.query) if verb in ("list", "watch") else None) or ""
        self.access.check(who, verb, target.rule, target.namespace, name)
        if not accepts_json(request.headers.get("accept", "")):
            raise says.not_acceptable()
        if verb in ("create", "patch", "delete") and bool(target.name) is (verb == "create"):
            raise says.method_not_allowed()
        match verb:
            case "get":
                return Response(self._whole(target, self._existing(target)))
            case "list":
                return Response(await self._list(target, request.query))
            case "watch":
                return Response(await self._watch(target, request.query))
            case "create":
                return Response(self._create(target, decoded(request)), 201)
            case "patch":
                return Response(self._patch(target, request))
            case "delete":
                return Response(self._delete(target))
        raise says.method_not_allowed()

    def _existing(self, target: Target) -> bytes:
        body = self.objects.get(target.key)
        if body is None:
            raise says.not_found(target.resource.plural, target.name)
        return body

    @staticmethod
    def _whole(target: Target, body: bytes) -> bytes:
        """An object that stands alone says what it is; in a list it does not."""
        return b'{"kind":"%s","apiVersion":"v1",%s' % (target.resource.kind.encode(), body[1:])

    async def _list(self, target: Target, query: Mapping[str, str]) -> bytes:
        limit, asked = number(query, "limit"), number(query, "resourceVersion")
        only = named_by_selector(query)
        token = query.get("continue", "")
        at, after = self.objects.revision, ""
        if token:
            if query.get("resourceVersion"):
                raise says.bad_request("specifying resource version is not allowed when using continue")
            at, after = from_token(token)
            at = self.objects.revision if at < 0 else at
        elif asked:
            await self._reached(asked)
            exact = query.get("resourceVersionMatch") == "Exact" or (limit and "resourceVersionMatch" not in query)
            at = asked if exact else self.objects.revision
        if query.get("resourceVersion") == "0":
            limit = 0  # served from memory, all of it
        try:
            found = list(self.objects.all(target.resource.plural, target.namespace, at, after))
        except Gone:
            raise says.expired_list(to_token(-1, after) if token else "") from None
        if only is not None:
            found = [(key, body) for key, body in found if key.name == only]
        metadata: Json = {"resourceVersion": str(at)}
        if limit and len(found) > limit:
            metadata["continue"] = to_token(at, f"{found[limit - 1][0].name}\0")
            if only is None:
                metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
        head = msgspec.json.encode({"kind": f"{target.resource.kind}List", "apiVersion": "v1", "metadata": metadata})
        return head[:-1] + b',"items":[' + b",".join(body for _, body in found) + b"]}\n"

    async def _reached(self, revision: int) -> None:
        """Wait for a version. Raises ApiError 504."""
        try:
            async with asyncio.timeout(TOO_LARGE_SECONDS):
                while self.objects.revision < revision:
                    await self._written.wait()
        except TimeoutError:
            raise says.too_large(revision, self.objects.revision) from None

    async def _watch(self, target: Target, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        if "sendInitialEvents" in query:
            cause = ("FieldValueForbidden", "Forbidden: the WatchList feature is off", "sendInitialEvents")
            raise says.invalid("ListOptions.meta.k8s.io", "", [cause])
        position = number(query, "resourceVersion")
        if position and position < self.objects.compacted and self.faults.gone_as_status:
            raise says.expired_watch(position, self.objects.compacted)
        return self._events(
            target,
            position,
            only=named_by_selector(query),
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            seconds=number(query, "timeoutSeconds") or random.uniform(*WATCH_SECONDS),
        )

    async def _events(
        self, target: Target, position: int, *, only: str | None, bookmarks: bool, seconds: float
    ) -> AsyncIterator[bytes]:
        def event(kind: str, body: bytes) -> bytes:
            return b'{"type":"%s","object":%s}\n' % (kind.encode(), self._whole(target, body))

        resource, namespace = target.resource.plural, target.namespace
        end = time.monotonic() + seconds
        next_bookmark = self._next_bookmark(end)
        if position == 0:
            position = self.objects.revision
            found = self.objects.all(resource, namespace)
            yield b"".join(event("ADDED", body) for key, body in found if only in (None, key.name))
        begin = max(position, self.objects.latest(resource))
        while True:
            written = self._written
            try:
                events = self.objects.events(resource, position)
            except Gone:
                error = says.expired_watch(position, self.objects.compacted)
                yield b'{"type":"ERROR","object":%s}\n' % error.body.rstrip()
                return
            chosen = [e for e in events if only in (None, e.key.name) and namespace in ("", e.key.namespace)]
            if chosen:
                yield b"".join(event(e.type, e.body) for e in chosen)
            position = max(position, self.objects.revision)
            if bookmarks and time.monotonic() >= next_bookmark:
                next_bookmark = self._next_bookmark(end)
                if (latest := self.objects.latest(resource)) > begin:
                    yield event("BOOKMARK", bookmark(target, latest))
            now = time.monotonic()
            if now >= end:
                return
            try:
                async with asyncio.timeout(min(end, next_bookmark if bookmarks else end) - now):
                    await written.wait()
            except TimeoutError:
                pass

    def _next_bookmark(self, end: float) -> float:
        """When the next is due in a watch that ends at ``end``: the last a little before that. One is sent only if
        something was written since the watch began."""
        due = min(time.monotonic() + self.faults.bookmark_seconds, end - LAST_BOOKMARK_SECONDS)
        return due if due > time.monotonic() else math.inf

    def _create(self, target: Target, value: Json) -> bytes:
        metadata = dict(value.get("metadata") or {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(random.choices(GENERATED, k=5))
        if target.resource.namespaced:
            metadata.setdefault("namespace", target.namespace)
        if metadata.get("resourceVersion"):
            raise says.internal("resourceVersion should not be set on objects to be created")
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        wanted = {name: part for name, part in value.items() if name not in ("kind", "apiVersion")}
        wanted = completed(target.resource, {**wanted, "metadata": metadata})
        check_types(wanted)
        check(target.resource, wanted)
        key = target.key._replace(name=metadata["name"])
        if self.objects.get(key) is not None:
            raise says.already_exists(key.resource, key.name)
        body = self.objects.put(key, wanted)
        self.wake()
        return self._whole(target, body)

    def _delete(self, target: Target) -> bytes:
        metadata = msgspec.json.decode(self._existing(target))["metadata"]
        self.objects.delete(target.key)
        self.wake()
        details = {"name": target.name, "kind": target.resource.plural, "uid": metadata["uid"]}
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return msgspec.json.encode(success)

    def _patch(self, target: Target, request: Request) -> bytes:
        if content_type(request) not in (JSON_MERGE, STRATEGIC_MERGE):
            raise says.unsupported_patch()
        patch = decoded(request)
        body = self._existing(target)
        old: Json = msgspec.json.decode(body)
        kind = {"kind": target.resource.kind, "apiVersion": "v1"}
        try:
            strategic = content_type(request) == STRATEGIC_MERGE
            new = strategic_merge({**kind, **old}, patch) if strategic else json_merge({**kind, **old}, patch)
        except PatchError as error:
            raise says.internal(str(error)) from None
        new = {name: value for name, value in new.items() if name not in kind}
        check_types(new)
        check_update(new, target.name)
        if new["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            raise says.conflict(target.resource.plural, target.name)
        new = updated(target.resource, target.subresource, old, new)
        check(target.resource, new, old)
        if new != old:
            body = self.objects.put(target.key, new)
            self.wake()
        return self._whole(target, body)


def bookmark(target: Target, revision: int) -> bytes:
    """An object of which nothing is meant but its version."""
    metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
    return msgspec.json.encode({**completed(target.resource, {}), "metadata": metadata})
