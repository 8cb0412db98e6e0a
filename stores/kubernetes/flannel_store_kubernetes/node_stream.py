"""All nodes and every change of one, for ever: a list, and then watches that resume where the last one broke off.

It runs in a thread and hands what it finds to the event loop, piece by piece: a list of thousands is known in parts
long before it is whole.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from urllib3 import BaseHTTPResponse, exceptions

from flannel_core import threads
from flannel_core.lease import Malformed
from flannel_core.printable import printable
from flannel_core.store import StoreUnavailable

from .api import ApiServer, Call, NoAnswer, Refused
from .diagnosis import ApiStatus, no_kubernetes, unreachable
from .node_list import ListMeta, NodeListReader
from .nodes import Dialect, Node, number

log = logging.getLogger(__name__)

PAGE = "500"
"""Nodes in one answer, as Go flannel asks; a server that answers from its cache sends all of them."""
CHUNK = 1 << 18
"""Bytes taken in at a time."""
LIST_SECONDS = 60.0
"""How long a server may be silent before and within a list: one of thousands of nodes is put together first, and a
server that is asked again does all of it again."""
WATCH_SECONDS = (300, 600)
"""After how long the server is to end a watch, by chance, as client-go asks: thousands are not to end together."""
QUIET_SECONDS = 90.0
"""A watch that is silent for longer is resumed, which shows whether the server is there. Servers send a bookmark each
minute, but none (1.31) where no node has changed since the last."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
"""Between two tries that fail; doubling, half of it by chance."""
LASTING_SECONDS = 1.0
"""A watch that lasted so long was a good one."""
GONE_PAUSE_SECONDS = 1.0
"""At most so long is waited before everything is listed again: then every agent of the cluster does."""
MOST_LINE = 4 << 20
"""Bytes of one event."""
GONE = 410

V = TypeVar("V")
AnyNode: TypeAlias = Node[Any] | Malformed


class Listing(NamedTuple):
    """A list begins: what is known of nodes that are not in it is out of date."""


class Entry(NamedTuple, Generic[V]):
    """``value`` is the node as it is now; None: it is gone."""

    name: str
    value: V | None
    revision: int


class Entries(NamedTuple, Generic[V]):
    """Nodes of a list, or changes, in order."""

    entries: Sequence[Entry[V]]


class Listed(NamedTuple):
    """The list is whole."""

    revision: int


class Quiet(NamedTuple):
    """The server answers, and there is nothing new."""


class Trouble(NamedTuple):
    """Why the server cannot be asked, None once it can."""

    reason: str | None


Step: TypeAlias = Listing | Entries[V] | Listed | Quiet | Trouble


class _Gone(Exception):
    """What happened since our position is not known to the server any more."""


class BrokenOff(NoAnswer):
    """An answer did not come to its end, or was silent for too long."""


class _Stopped(Exception):
    """Nobody listens any more."""


class NodeStream(Generic[V]):
    """``read`` makes of a node what is handed over, and runs in the thread; so does ``deliver``, which takes each step.
    ``only``: of this one node. ``since``: a resourceVersion up to which all is known already, so that nothing is
    listed."""

    def __init__(
        self,
        server: ApiServer,
        dialect: Dialect,
        read: Callable[[AnyNode], V | None],
        deliver: Callable[[Step[V]], object],
        *,
        only: str | None = None,
        since: str = "",
    ) -> None:
        self._server = server
        self._dialect = dialect
        self._read = read
        self._deliver = deliver
        self._only = {"fieldSelector": f"metadata.name={only}"} if only else {}
        self._position = since
        self._from_cache = True
        self._pause = 0.0
        self._followed = threading.Event()
        self._stopping = threading.Event()
        self._response: BaseHTTPResponse | None = None
        self._broken_off = 0
        """How often; an answer that was asked for before the last time is of no use, either."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """List. What changes is heard after ``go_on``: nothing piles up before somebody takes it."""
        threads.start(self._run, "flannel-nodes")

    def go_on(self) -> None:
        """And watch."""
        self._followed.set()

    def stop(self) -> None:
        """Nothing is delivered any more; a read that is under way ends."""
        self._stopping.set()
        self._followed.set()
        self.break_off()

    def break_off(self) -> None:
        """Read on over a new connection: nothing comes over this one any more."""
        with self._lock:
            self._broken_off += 1
            if self._response is not None:
                with suppress(ValueError, RuntimeError, OSError):  # read to its end just now
                    self._response.shutdown()

    def _run(self) -> None:
        try:
            while True:
                try:
                    if not self._position:
                        self._list()
                    self._followed.wait()
                    self._watch()
                except _Gone:
                    self._position, self._from_cache = "", False
                    self._back_off(random.uniform(0, GONE_PAUSE_SECONDS))
                except Refused as error:
                    self._say(Trouble(str(error)))
                    self._back_off(error.retry_after)
                except StoreUnavailable as error:
                    self._say(Trouble(str(error)))
                    self._back_off()
                except _Stopped:
                    raise
                except Exception as error:  # a thread that ended would leave us deaf
                    log.exception("Nodes cannot be followed")
                    self._say(Trouble(f"{self._server.place}: {type(error).__name__}: {printable(str(error), 160)}"))
                    self._back_off()
        except _Stopped:
            pass

    def _back_off(self, at_least: float = 0.0) -> None:
        """``at_least``: what the server asked for. Nobody needs a second try before somebody listens."""
        self._followed.wait()
        self._pause = min(max(2 * self._pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._wait(at_least + self._pause * random.uniform(0.5, 1))

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def _say(self, step: Step[V]) -> None:
        if self._stopping.is_set():
            raise _Stopped
        try:
            self._deliver(step)
        except RuntimeError:  # the event loop is closed
            raise _Stopped from None

    # --- the list --------------------------------------------------------------------------------------------------

    def _list(self) -> None:
        """Raises NoAnswer, Refused, _Gone, _Stopped."""
        self._say(Listing())
        query = {"limit": PAGE}
        if self._from_cache:
            # As old as the server's cache may be: as Go flannel, and no burden on its etcd. Once something newer was
            # seen, a list has to show no less.
            query["resourceVersion"] = "0"
        while True:
            page = self._page(query)
            if not page.go_on:
                break
            query = {"limit": PAGE, "continue": page.go_on}
        if not page.resource_version:
            raise NoAnswer(f"{self._server.place} sends a list of nodes without its resourceVersion")
        self._position = page.resource_version
        self._say(Trouble(None))
        self._say(Listed(number(self._position)))

    def _page(self, query: dict[str, str]) -> ListMeta:
        reader = NodeListReader(self._dialect)
        beginning = b""
        try:
            with self._opened("list", query, LIST_SECONDS) as response:
                while chunk := response.read1(CHUNK):
                    beginning = beginning or chunk[:60]
                    self._hand_over(reader.feed(chunk))
            nodes, metadata = reader.end()
        except ValueError as error:
            # Also a list that broke off where the connection tells nothing of it.
            raise NoAnswer(
                f"{self._server.place} {no_kubernetes('application/json', beginning)} ({printable(str(error), 160)})"
            ) from None
        self._hand_over(nodes)
        return metadata

    def _hand_over(self, nodes: Sequence[AnyNode]) -> None:
        if nodes:
            self._say(Entries([self._entry(node) for node in nodes]))

    def _entry(self, node: AnyNode) -> Entry[V]:
        if isinstance(node, Malformed):
            return Entry(node.key, self._read(node), node.revision)
        return Entry(node.name, self._read(node), node.revision)

    # --- the watch -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """One watch, to its end. Raises NoAnswer, Refused, _Gone, _Stopped."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._position,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
        }
        began, before = time.monotonic(), self._position
        try:
            with self._opened("watch", query, QUIET_SECONDS) as response:
                self._say(Trouble(None))
                self._say(Quiet())
                self._follow(response)
        except BrokenOff:
            pass  # resumed; where the server is not there any more, that says so
        if time.monotonic() - began >= LASTING_SECONDS:
            self._pause = 0.0
        elif self._position == before:
            self._back_off()  # whatever ends it at once is not to be asked ever faster

    def _follow(self, response: BaseHTTPResponse) -> None:
        buffer = bytearray()
        while chunk := response.read1(CHUNK):
            searched = len(buffer)
            buffer += chunk
            end = buffer.rfind(b"\n", searched) + 1
            if end:
                self._take_in(bytes(buffer[:end]))
                del buffer[:end]
            if len(buffer) > MOST_LINE:
                raise NoAnswer(f"{self._server.place} sends an event of more than {MOST_LINE} bytes")

    def _take_in(self, lines: bytes) -> None:
        """Whole events. The position moves on only with what was handed over."""
        entries: list[Entry[V]] = []
        position = ""
        error: ApiStatus | None = None
        try:
            for event in _EVENTS.decode_lines(lines):
                if event.type == "ERROR":
                    error = msgspec.json.decode(event.object, type=ApiStatus)
                    break
                node = self._dialect.node(event.object)
                position = node.metadata.resource_version if isinstance(node, Node) else str(node.revision or "")
                if 0 < number(position) < number(self._position):
                    raise _Gone  # the cluster was restored from an older state
                if event.type in ("ADDED", "MODIFIED", "DELETED"):
                    entry = self._entry(node)
                    entries.append(entry._replace(value=None) if event.type == "DELETED" else entry)
        except ValueError as problem:
            raise NoAnswer(f"{self._server.place} sends no event of a watch: {printable(str(problem), 160)}") from None
        self._say(Entries(entries) if entries else Quiet())
        if position:
            self._position, self._pause = position, 0.0
        if error is not None:
            if error.code == GONE:
                raise _Gone
            seconds = error.details.retry_after_seconds if error.details else 0
            raise Refused(
                f"{self._server.place} ends the watch: {error.code} {printable(error.message, 160)}",
                error.code,
                seconds,
            )

    # --- a request -------------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(
        self, verb: Literal["list", "watch"], query: dict[str, str], silent: float
    ) -> Iterator[BaseHTTPResponse]:
        """An answer to be read within. Raises NoAnswer, Refused, _Gone, _Stopped, and BrokenOff for what happens after
        it began."""
        broken_off = self._broken_off
        if self._stopping.is_set():
            raise _Stopped
        try:
            response = self._server.stream(Call(verb, "nodes", "/api/v1/nodes", {**query, **self._only}), silent)
        except Refused as error:
            if error.status == GONE:
                raise _Gone from None
            raise
        with self._lock:
            self._response = response
        try:
            if self._broken_off != broken_off:
                raise ConnectionAbortedError(errno.ECONNABORTED, "broken off")
            yield response
        except (exceptions.HTTPError, OSError) as error:
            if self._stopping.is_set():
                raise _Stopped from None
            raise BrokenOff(f"{self._server.place} {unreachable(error)}") from None
        finally:
            with self._lock:
                self._response = None
            response.close()


class _Event(msgspec.Struct, frozen=True):
    """Of a watch: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes"""

    type: str = ""
    object: msgspec.Raw = msgspec.Raw(b"{}")


_EVENTS = msgspec.json.Decoder(_Event)
