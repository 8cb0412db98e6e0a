"""A backend for tests whose objects live outside the kernel: one file per peer in a directory, beside host-gw's routes.

Its target has only the record of an earlier run to go by once another backend has taken its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.hookspecs import hookimpl
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Identity, Object, Route
from flannel_core.target import Actual, Failure, Put, Scope, Target


class Board(Object, frozen=True):
    """A directory."""

    kind: ClassVar[str] = "board"
    path: str

    @property
    def identity(self) -> Identity:
        return self.kind, self.path

    @property
    def record(self) -> str:
        return self.path


class Note(Object, frozen=True):
    """A file in it, named for a subnet."""

    kind: ClassVar[str] = "note"
    board: str
    name: str
    text: str

    @property
    def identity(self) -> Identity:
        return self.kind, self.board, self.name


class BoardTarget(Target):
    name: ClassVar[str] = "boards"
    stages: ClassVar[Mapping[type[Object], int]] = {Board: 50, Note: 51}
    poll_seconds: ClassVar[float | None] = 0.5

    async def read(self, scope: Scope) -> list[Actual]:
        return [actual for path in scope.records.get(self.name, ()) for actual in _on(Path(path))]

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        for put in puts:
            _pin(put.object)
        for item in removes:
            _take_off(item)
        return []


def _on(path: Path) -> list[Actual]:
    if not path.is_dir():
        return []
    notes = [Actual(Note(str(path), file.name, file.read_text())) for file in path.iterdir()]
    return [Actual(Board(str(path))), *notes]


def _pin(item: Object) -> None:
    if isinstance(item, Board):
        Path(item.path).mkdir(exist_ok=True)
    elif isinstance(item, Note):
        (Path(item.board) / item.name).write_text(item.text)


def _take_off(item: Object) -> None:
    if isinstance(item, Board):
        Path(item.path).rmdir()
    elif isinstance(item, Note):
        (Path(item.board) / item.name).unlink()


class BoardOptions(msgspec.Struct, frozen=True):
    directory: str = "board"


class BoardBackend(Backend[BoardOptions, None]):
    Options = BoardOptions
    published_type = "host-gw"
    accepts = frozenset({"host-gw"})

    @property
    def board(self) -> str:
        return str(self.state_directory / self.options.directory)

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        return Announcement(mtu=host.mtu)

    def local(self, node: Node) -> Iterable[Object]:
        yield Board(self.board)

    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        for endpoint in lease.endpoints:
            subnet, address = str(endpoint.subnet), str(endpoint.public_ip)
            yield Route(subnet, node.host.interface, gateway=address)
            yield Note(self.board, subnet.replace("/", "-"), address)

    def targets(self) -> Iterable[Target]:
        yield BoardTarget()


@hookimpl
def flannel_backend() -> type[BoardBackend]:
    return BoardBackend
