"""A NodeList taken in as it arrives: thousands of nodes may come in one answer, and none of its text is kept. Pure.

An API server that answers from its cache (``resourceVersion=0``) sends all nodes at once whatever the limit, so pages
alone would not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flannel_core.lease import Malformed
from flannel_core.printable import printable

from .nodes import Dialect, Node

_OPENING = b'"items":['
_BETWEEN = b'},{"metadata":{'
"""What stands between two nodes. It may stand elsewhere as well, so each cut made at it is proved by the decoder."""
MOST_AT_ONCE = 1 << 16
"""Bytes whose nodes are read together. The first are read at once: there may be few; each piece costs who takes it."""
MOST_BEFORE_ITEMS = 65536
"""Bytes in which the items have to begin for the list to be cut up."""


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """``resource_version`` is the state that the list shows; ``go_on`` is where its next page begins, "" after the
    last."""

    resource_version: str = ""
    go_on: str | None = msgspec.field(default=None, name="continue")


class _Head(msgspec.Struct, frozen=True):
    kind: str = ""
    metadata: ListMeta | None = None


class _Tail(_Head, frozen=True):
    items: msgspec.Raw = msgspec.Raw(b"[]")


class NodeListReader:
    """Of one answer. A list that is written in another way than API servers write it is read when it is whole."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._whole = False
        self._enough = 0

    def feed(self, chunk: bytes) -> Sequence[Node[Any] | Malformed]:
        """The next bytes; the nodes that are complete by now, once there are enough of them."""
        self._buffer += chunk
        if self._whole or not self._begun() or len(self._buffer) < self._enough:
            return ()
        comma = self._buffer.rfind(_BETWEEN) + 1
        if not comma:
            return ()
        # The buffer begins with the list's bracket, and closes here for as long as it is read: no text is copied.
        self._buffer[comma] = ord("]")
        with memoryview(self._buffer) as view, view[: comma + 1] as array:
            try:
                nodes = self._dialect.nodes(array)
            except ValueError:
                self._whole = True
        self._buffer[comma] = ord(",")
        if self._whole:
            return ()
        del self._buffer[:comma]
        self._buffer[0] = ord("[")
        self._enough = min(2 * comma, MOST_AT_ONCE)
        return nodes

    def end(self) -> tuple[Sequence[Node[Any] | Malformed], ListMeta]:
        """The last nodes, and the list's own metadata. Raises ValueError for what is no NodeList."""
        text = bytes(self._buffer)
        if self._head is not None:
            text = b"{" + _OPENING[:-1] + text
        tail = _TAIL.decode(text)
        head = self._head or tail
        kind = head.kind or tail.kind
        if kind != "NodeList":
            raise ValueError(f"it is of kind '{printable(kind)}'")
        metadata = head.metadata or tail.metadata or ListMeta()
        return () if bytes(tail.items) == b"null" else self._dialect.nodes(bytes(tail.items)), metadata

    def _begun(self) -> bool:
        if self._head is None:
            start = self._buffer.find(_OPENING, 0, MOST_BEFORE_ITEMS)
            if start < 0:
                self._whole = len(self._buffer) > MOST_BEFORE_ITEMS
                return False
            try:
                self._head = _HEAD.decode(self._buffer[:start] + _OPENING + b"]}")
            except ValueError:
                self._whole = True
                return False
            del self._buffer[: start + len(_OPENING) - 1]
        return True


_HEAD = msgspec.json.Decoder(_Head)
_TAIL = msgspec.json.Decoder(_Tail)
