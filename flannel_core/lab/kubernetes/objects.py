"""What an API server keeps: every version of every object since the last compaction, as etcd does.

Objects are kept as the JSON that goes over the wire, so that a list of thousands costs no encoding. Revisions are
those of the whole store: each write of any object takes the next one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

Json = dict[str, Any]


class Key(NamedTuple):
    """``resource`` is plural ("nodes"), ``namespace`` "" where the resource has none."""

    resource: str
    namespace: str
    name: str


class Version(NamedTuple):
    """An object as it was from ``revision`` on; ``body`` None: it was deleted."""

    revision: int
    body: bytes | None


class Event(NamedTuple):
    """A write: ``type`` is ADDED, MODIFIED or DELETED, ``body`` the object as a watcher sees it."""

    revision: int
    type: str
    key: Key
    body: bytes


class Gone(Exception):
    """What was asked for lies before the last compaction."""


class Objects:
    """``revision`` is that of the latest write, ``compacted`` the first that can still be read."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 1
        self._versions: dict[Key, list[Version]] = {}
        self._keys: list[Key] = []
        self._events: list[Event] = []
        self._latest: dict[str, int] = {}

    def get(self, key: Key) -> bytes | None:
        """The object as it is now; None if there is none."""
        versions = self._versions.get(key)
        return versions[-1].body if versions else None

    def put(self, key: Key, value: Json) -> bytes:
        """Write an object; its resourceVersion is set. Returns it as it is now."""
        before = self.get(key)
        self.revision += 1
        body = _stamped(value, self.revision)
        self._append(key, Version(self.revision, body))
        self._events.append(Event(self.revision, "MODIFIED" if before else "ADDED", key, body))
        return body

    def delete(self, key: Key) -> bytes:
        """Returns the object as it was. Raises KeyError if there is none."""
        before = self.get(key)
        if before is None:
            raise KeyError(key)
        self.revision += 1
        self._append(key, Version(self.revision, None))
        last = _stamped(msgspec.json.decode(before), self.revision)
        self._events.append(Event(self.revision, "DELETED", key, last))
        return last

    def _append(self, key: Key, version: Version) -> None:
        if key not in self._versions:
            self._versions[key] = []
            insort(self._keys, key)
        self._versions[key].append(version)
        self._latest[key.resource] = version.revision

    def latest(self, resource: str) -> int:
        """The revision of the latest write to a resource; 0 if there was none."""
        return self._latest.get(resource, 0)

    def all(self, resource: str, namespace: str = "", at: int = 0, after: str = "") -> Iterator[tuple[Key, bytes]]:
        """The objects of a resource by name, as they were at revision ``at`` (0: now), from ``after`` on. Raises
        Gone."""
        at = at or self.revision
        if at < self.compacted:
            raise Gone
        first = bisect_left(self._keys, Key(resource, namespace, after))
        for key in self._keys[first:]:
            if key.resource != resource or (namespace and key.namespace != namespace):
                return
            version = next((v for v in reversed(self._versions[key]) if v.revision <= at), None)
            if version is not None and version.body is not None:
                yield key, version.body

    def events(self, resource: str, after: int) -> list[Event]:
        """The writes to a resource later than revision ``after``. Raises Gone."""
        if after < self.compacted:
            raise Gone
        first = bisect_left(self._events, after + 1, key=lambda event: event.revision)
        return [event for event in self._events[first:] if event.key.resource == resource]

    def compact(self) -> None:
        """Forget all that is not the present."""
        self.compacted = self.revision
        self._events.clear()
        for key, versions in list(self._versions.items()):
            if versions[-1].body is None:
                del self._versions[key]
                self._keys.remove(key)
            else:
                del versions[:-1]


def _stamped(value: Json, revision: int) -> bytes:
    metadata = {**value.get("metadata", {}), "resourceVersion": str(revision)}
    return msgspec.json.encode({**value, "metadata": metadata})
