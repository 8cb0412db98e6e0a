"""A client of the cluster: one connection at a time, to whichever member answers, and another when it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from grpclib.const import Status

from flannel_core.store import StoreUnavailable

from .connection import Connection, Credentials, NoAnswer, Refused, connect, retrieve
from .endpoints import Endpoint, Tls
from .keys import Keys
from .rpc import Method, Q, R

HEAD_START_SECONDS = 0.3
"""How long one member may take to answer before the next is tried beside it: a frozen one costs no more than that."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 4.0
"""Between two rounds in which no member answered; doubling, half of it by chance."""
TRIES = 3
"""How many connections a call is tried on."""


class Closed(StoreUnavailable):
    """The store was closed under the call."""


class Ambiguous(StoreUnavailable):
    """The connection was lost after a transaction was sent: it may have been done, or be done yet."""


class Client:
    """``said`` is called with why etcd cannot be used, None once it can."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        keys: Keys,
        credentials: Credentials,
        tls: Tls,
        said: Callable[[str | None], None],
    ) -> None:
        # By chance, so that a thousand agents with the same options do not all choose the first member.
        self._endpoints = random.sample(list(endpoints), len(endpoints))
        self._named = tuple(endpoints)
        self._keys = keys
        self._credentials = credentials
        self._tls = tls
        self._said = said
        self._trouble: dict[str, str] = {}
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Once and for all; whoever waits gets Closed."""
        self._closed.set()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._connection is not None:
            self._connection.close()

    async def call(self, method: Method[Q, R], request: Q, *, patient: bool = False) -> R:
        """The answer, from a member that has one.

        Raises StoreUnavailable if none has, Refused, and Ambiguous for a transaction that may have been done.
        """
        subject = f"{method.path} {getattr(request, 'key', b'')!r}"
        for attempt in range(1, TRIES + 1):
            connection = await self.connection()
            try:
                answer = await connection.call(method, request, patient=patient)
            except NoAnswer as error:
                self.drop(connection)
                if not method.retried:
                    raise Ambiguous(str(error)) from None
                if attempt == TRIES:
                    raise
            except Refused as error:
                refused = self._explained(error)
                self._note(subject, None if error.code is Status.NOT_FOUND else str(refused))
                raise refused from None
            else:
                self._note(subject, None)
                return answer
        raise AssertionError

    async def connection(self) -> Connection:
        """The connection there is, or a new one. Raises StoreUnavailable at once if no member answered just now."""
        while True:
            if self._closed.is_set():
                raise Closed("the store is closed")
            if self._connection is not None:
                if self._connection.alive:
                    return self._connection
                self.drop(self._connection)
            if self._connecting is None:
                if asyncio.get_running_loop().time() < self._not_before:
                    raise NoAnswer(self._trouble.get("connection", "etcd does not answer"))
                self._connecting = asyncio.create_task(self._connect(), name="etcd-connect")
                self._connecting.add_done_callback(retrieve)
            connecting = self._connecting
            await asyncio.wait((connecting,))
            if not connecting.cancelled():
                return connecting.result()

    async def reconnection(self) -> Connection:
        """The same, waited for as long as it takes. Raises Closed."""
        while True:
            try:
                return await self.connection()
            except Closed:
                raise
            except StoreUnavailable:
                await self.pause(max(self._not_before - asyncio.get_running_loop().time(), FIRST_PAUSE_SECONDS))

    async def pause(self, seconds: float) -> None:
        """Raises Closed as soon as the store is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise Closed("the store is closed")

    def drop(self, connection: Connection) -> None:
        """``connection`` is of no more use; its member is tried last the next time."""
        connection.close()
        if self._connection is connection:
            self._connection = None
            self._endpoints.remove(connection.endpoint)
            self._endpoints.append(connection.endpoint)

    def start_over(self) -> None:
        """What is said next goes over a new connection, and the watches follow. This host's address may have changed:
        nothing comes back to the old one, and it would take seconds of silence to notice. Costs some 2 ms."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            connection = await self._race()
        except NoAnswer as error:
            self._pause = min(max(2 * self._pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
            self._not_before = loop.time() + self._pause * random.uniform(0.5, 1)
            self._note("connection", str(error))
            raise
        else:
            self._pause = 0.0
            self._connection = connection
            self._note("connection", None)
            return connection
        finally:
            self._connecting = None

    async def _race(self) -> Connection:
        """The first member that answers. Each gets a head start over the next, so one that is silent holds up nobody.
        Raises NoAnswer with what is wrong with each of them."""
        waiting = list(self._endpoints)
        running: dict[asyncio.Task[Connection], Endpoint] = {}
        reasons: dict[Endpoint, str] = {}
        try:
            while waiting or running:
                if waiting:
                    endpoint = waiting.pop(0)
                    work = connect(endpoint, self._credentials, self._tls, self._keys.config)
                    running[asyncio.create_task(work)] = endpoint
                done, _ = await asyncio.wait(
                    running, timeout=HEAD_START_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        del running[task]
                        return task.result()
                    if not isinstance(error, StoreUnavailable):
                        raise error
                    reasons[running.pop(task)] = str(self._explained(error))
        finally:
            for task in running:
                task.cancel()
                task.add_done_callback(_close_unused)
        raise NoAnswer("; ".join(reasons[endpoint] for endpoint in self._named))

    def _explained(self, error: StoreUnavailable) -> StoreUnavailable:
        """``error``, with the options and rights that it is about named."""
        if not isinstance(error, Refused):
            return error
        user = self._credentials.user
        match error.code:
            case Status.PERMISSION_DENIED:
                prefix = f"{self._keys.prefix.rstrip('/')}/"
                error.args = (
                    f"{error}: {f'the user {user!r}' if user else 'this host'} has no right to read and write the keys "
                    f"under {prefix}; `etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}` gives it",
                )
            case Status.INVALID_ARGUMENT if "authentication failed" in error.message:
                error.args = (f"{error}; see --etcd-username and --etcd-password",)
            case Status.INVALID_ARGUMENT if "user name is empty" in error.message:
                error.args = (f"{error}: authentication is on; give --etcd-username and --etcd-password",)
            case Status.RESOURCE_EXHAUSTED if "space" in error.message:
                error.args = (f"{error}: etcd takes no writes; see `etcdctl alarm list`",)
        return error

    def _note(self, subject: str, trouble: str | None) -> None:
        if trouble is None:
            self._trouble.pop(subject, None)
        else:
            self._trouble[subject] = trouble
        self._said(self._trouble.get("connection") or next(iter(self._trouble.values()), None))


def _close_unused(task: asyncio.Task[Connection]) -> None:
    """It answered after another had."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
