"""One connection to one member of etcd: gRPC by grpclib, every way it can fail put in words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from grpclib.client import Stream, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from flannel_core.printable import printable
from flannel_core.store import StoreUnavailable

from . import rpc_pb2 as pb
from .channel import EtcdChannel
from .diagnosis import diagnose, said
from .endpoints import Endpoint, Tls
from .rpc import AUTHENTICATE, RANGE, WATCH, Method, Q, R

ANSWER_SECONDS = 4.0
"""How long any one answer is waited for."""
ELECTION_PAUSE_SECONDS = 0.1
"""Between two questions to a member whose leader is elected just now."""
LONGEST_ANSWER_SECONDS = 60.0
"""The same while bytes keep arriving: 25,000 leases are 4.7 MB."""

_ELECTION = ("etcdserver: leader changed", "etcdserver: no leader")
"""api/v3rpc/rpctypes/error.go of etcd."""
_NOT_GRPC = ("Missing ", "Invalid ", "Received :status")
"""What grpclib says of an HTTP/2 server's answers that are no gRPC."""

T = TypeVar("T")


class NoAnswer(StoreUnavailable):
    """The member is gone, silent or no etcd. The connection is of no more use; what was asked may have been done.

    ``ended``: the other side ended it.
    """

    def __init__(self, reason: str, *, ended: bool = False) -> None:
        super().__init__(reason)
        self.ended = ended


class Electing(NoAnswer):
    """The cluster is about to have another leader; what was asked may have been done."""


class Refused(StoreUnavailable):
    """etcd answered that it will not. ``code`` is gRPC's status, ``message`` etcd's own text."""

    def __init__(self, endpoint: Endpoint, code: Status, message: str) -> None:
        super().__init__(f"{endpoint}: {printable(message, 200)}")
        self.code = code
        self.message = message

    @property
    def wants_a_new_token(self) -> bool:
        """Authentication was switched on, its users changed, or our token ran out."""
        return self.code is Status.UNAUTHENTICATED or (
            self.code is Status.INVALID_ARGUMENT
            and any(text in self.message for text in ("user name is empty", "revision of auth store is old"))
        )


class Credentials:
    """User and password; ``user`` "" for none."""

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.password = password


class Connection:
    """Made by :func:`connect`. ``header`` is that of the first answer: which cluster it is, and how far it has come."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials, context: ssl.SSLContext | None) -> None:
        self.endpoint = endpoint
        self.header = pb.ResponseHeader()
        self._credentials = credentials
        self._channel = EtcdChannel(endpoint.host, endpoint.port, context)
        self._metadata: dict[str, str] = {}
        self._authenticating = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """False once it is lost; what waits for an answer has heard so."""
        return self._channel.alive

    @property
    def speaks_http2(self) -> bool:
        """Whether the other side has said anything, and in HTTP/2."""
        return self._channel.speaks_http2

    @property
    def heard(self) -> float:
        """The event loop's time at which the last byte arrived."""
        return self._channel.heard

    def close(self) -> None:
        """At once, whether the other side listens or not."""
        self._channel.abort()

    async def open(self, probed: bytes) -> None:
        """Connect, authenticate, and read the key ``probed`` to see that the member has a quorum and that we may.

        Raises NoAnswer, Refused.
        """
        await self._answer(self._channel.open())
        if self._credentials.user:
            await self.authenticate()
        self.header = await self._probe(pb.RangeRequest(key=probed, keys_only=True))

    async def _probe(self, request: pb.RangeRequest) -> pb.ResponseHeader:
        """The header of the answer. An election is waited out: it refuses what is asked meanwhile, and lasts a second
        or two (etcd's --election-timeout). Raises NoAnswer, Refused."""
        now = asyncio.get_running_loop().time
        give_up = now() + ANSWER_SECONDS
        while True:
            try:
                return (await self.call(RANGE, request)).header
            except Electing:
                if now() > give_up:
                    raise
            await asyncio.sleep(ELECTION_PAUSE_SECONDS)

    async def authenticate(self) -> None:
        """Get a token, or do without one where etcd does not want it. Raises NoAnswer, Refused."""
        before = self._metadata
        async with self._authenticating:
            if self._metadata is not before:
                return  # another call has got a new one meanwhile
            request = pb.AuthenticateRequest(name=self._credentials.user, password=self._credentials.password)
            try:
                token = (await self._unary(AUTHENTICATE, request, {})).token
            except Refused as error:
                if error.code is not Status.FAILED_PRECONDITION:  # "authentication is not enabled"
                    raise
                self._metadata = {}
            else:
                self._metadata = {"token": token}

    async def call(self, method: Method[Q, R], request: Q, *, patient: bool = False) -> R:
        """The answer. ``patient``: it may be long, and is waited for as long as bytes arrive.

        Raises NoAnswer, Refused. If etcd wants a new token, the call is made again with one.
        """
        try:
            return await self._unary(method, request, self._metadata, patient=patient)
        except Refused as error:
            if not error.wants_a_new_token or not self._credentials.user:
                raise
        await self.authenticate()
        return await self._unary(method, request, self._metadata, patient=patient)

    async def _unary(self, method: Method[Q, R], request: Q, metadata: dict[str, str], *, patient: bool = False) -> R:
        unary = UnaryUnaryMethod(self._channel, method.path, method.request, method.response)
        return await self._answer(unary(request, metadata=metadata), patient=patient)

    @asynccontextmanager
    async def watching(self, request: pb.WatchRequest) -> AsyncIterator[asyncio.Queue[pb.WatchResponse | Exception]]:
        """What etcd answers to a watch, in order; the last item is why there will be no more (NoAnswer or Refused).
        A member that loses its leader ends it, rather than to be silent for as long as that takes."""
        answers: asyncio.Queue[pb.WatchResponse | Exception] = asyncio.Queue()
        method = StreamStreamMethod(self._channel, WATCH.path, WATCH.request, WATCH.response)
        stream = method.open(metadata={**self._metadata, "hasleader": "true"})
        task = asyncio.create_task(self._read(stream, request, answers))
        try:
            yield answers
        finally:
            task.cancel()

    async def _read(
        self,
        stream: Stream[pb.WatchRequest, pb.WatchResponse],
        request: pb.WatchRequest,
        answers: asyncio.Queue[pb.WatchResponse | Exception],
    ) -> None:
        try:
            async with stream:
                await stream.send_message(request)
                while (answer := await stream.recv_message()) is not None:
                    answers.put_nowait(answer)
                raise StreamTerminatedError("the watch ended")
        except Exception as error:
            answers.put_nowait(self._explained(error))

    async def _answer(self, work: Coroutine[Any, Any, T], *, patient: bool = False) -> T:
        """``work`` in a task of its own. grpclib cancels the task that waits on a connection that is lost, and leaves
        its cancellation count behind, which would confuse the timeouts and task groups of ours."""
        task = asyncio.create_task(work)
        task.add_done_callback(retrieve)
        now = asyncio.get_running_loop().time
        give_up = now() + LONGEST_ANSWER_SECONDS
        try:
            while True:
                await asyncio.wait((task,), timeout=ANSWER_SECONDS)
                if task.done() or not patient or now() > min(give_up, self.heard + ANSWER_SECONDS):
                    break
        finally:
            task.cancel()
        if not task.done():
            raise NoAnswer(f"{self.endpoint}: does not answer (waited {ANSWER_SECONDS:.0f} s)")
        if (error := task.exception()) is not None:
            raise self._explained(error) from None
        return task.result()

    def _explained(self, error: BaseException) -> StoreUnavailable:
        match error:
            case GRPCError():
                return self._refusal(error)
            case OSError():
                ended = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
                return NoAnswer(f"{self.endpoint}: {said(error)}", ended=ended)
            case StreamTerminatedError() if isinstance(self._channel.lost_by, OSError):
                return NoAnswer(f"{self.endpoint}: {said(self._channel.lost_by)}", ended=True)
            case StreamTerminatedError():
                return NoAnswer(f"{self.endpoint}: the connection was lost", ended=True)
            case DecodeError() | NotImplementedError() | AssertionError():
                return NoAnswer(f"{self.endpoint}: is no etcd, its answers cannot be read")
            case _:
                raise error

    def _refusal(self, error: GRPCError) -> StoreUnavailable:
        message = error.message or error.status.name
        match error.status:
            case Status.UNAVAILABLE if message in _ELECTION:
                return Electing(f"{self.endpoint}: {message}")
            case Status.UNAVAILABLE | Status.DEADLINE_EXCEEDED | Status.CANCELLED:
                return NoAnswer(f"{self.endpoint}: {printable(message, 200)}")
            case Status.UNIMPLEMENTED:
                return NoAnswer(f"{self.endpoint}: is no etcd, it does not know etcd's v3 API")
            case Status.UNKNOWN | Status.INTERNAL if message.startswith(_NOT_GRPC):
                return NoAnswer(f"{self.endpoint}: is no etcd ({printable(message, 100)})")
            case _:
                return Refused(self.endpoint, error.status, message)


async def connect(endpoint: Endpoint, credentials: Credentials, tls: Tls, probed: bytes) -> Connection:
    """A connection that has answered. Raises NoAnswer and Refused, with what an operator can do about it."""
    try:
        context = tls.context() if endpoint.secure else None
    except ValueError as error:
        raise NoAnswer(str(error)) from None
    connection = Connection(endpoint, credentials, context)
    try:
        await connection.open(probed)
    except BaseException as error:
        connection.close()
        strange = isinstance(error, NoAnswer) and error.ended and not connection.speaks_http2
        if strange and (found := await diagnose(endpoint)) is not None:
            raise NoAnswer(f"{endpoint}: {found}") from None
        raise
    return connection


def retrieve(task: asyncio.Task[Any]) -> None:
    """An abandoned task's error is nobody's business."""
    if not task.cancelled():
        task.exception()
