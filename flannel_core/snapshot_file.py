"""The store as it was heard of last, kept beside subnet.env: what an agent that starts while the store is away goes on
with. It never decides more than that: nothing is removed on its account, and every lease in it is judged anew."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from threading import Lock
from typing import NoReturn

import msgspec

from .klog import StateLog
from .lease import Endpoint, IPAddress, IPNetwork, Lease
from .state_file import write_atomically
from .store import ConfigText, PublicAddresses
from .threads import call

log = logging.getLogger(__name__)

FILE_NAME = "snapshot.jsonl"
VERSION = 1
FIRST_SECONDS = 2.0
"""How long after a change the file is written, at the earliest: changes come in bursts, and starts are busy."""
SECONDS_BETWEEN = 30.0
"""Between two writes, at least: 5,000 leases cost some 50 ms of a processor."""
TOUCHED_SECONDS = 30.0
"""How often a file that needs no writing is marked as still true."""
BATCH = 250
"""Leases that are encoded at a time."""


class Contents(msgspec.Struct, frozen=True):
    """``location`` and ``cluster`` name the store; ``config`` is the net-conf.json in use, ``public`` what the store
    gave this host to be reached at. The data of ``own``, our lease, and of ``leases``, the others, is raw."""

    location: str
    cluster: str
    revision: int
    config: ConfigText
    public: PublicAddresses
    own: Lease
    leases: Sequence[Lease]


class Remembered(msgspec.Struct, frozen=True):
    """What the file says. ``as_of``: Unix time up to which it was all that there was to know."""

    as_of: float
    cluster: str
    revision: int
    config: ConfigText
    public: PublicAddresses
    own: Lease
    leases: tuple[Lease, ...]


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease, one a line. Data is JSON inside a string, so that it has no line ends of its own."""

    key: str
    backend_type: str
    created: int
    revision: int
    subnet4: str | None = None
    public4: str | None = None
    data4: str | None = None
    subnet6: str | None = None
    public6: str | None = None
    data6: str | None = None


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. ``count`` is that of the others, by which a file that was cut is noticed."""

    version: int
    location: str
    cluster: str
    revision: int
    config: str
    source: str
    own: _Row
    expires: float | None
    count: int
    public_ipv4: str | None = None
    public_ipv6: str | None = None


class SnapshotFile:
    """``snapshot.jsonl`` in a state directory, for root alone."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._changed = asyncio.Event()
        self._touched = time.monotonic()
        self._as_of = time.time()
        """When the store was heard of last: the age of the file, whenever it is written."""
        self._writing = Lock()
        self._said = StateLog(log)

    @property
    def is_behind(self) -> bool:
        """Something changed that is not in it."""
        return self._changed.is_set()

    def note(self) -> None:
        """The store has told of a change. Costs nothing: it is written later."""
        self._as_of = time.time()
        self._changed.set()

    def still_true(self) -> None:
        """The store has answered, and there is nothing new."""
        self._as_of = time.time()
        if not self.is_behind and time.monotonic() > self._touched + TOUCHED_SECONDS:
            self._touched = time.monotonic()
            try:
                os.utime(self.path, (self._as_of, self._as_of))
            except OSError:
                self.note()  # it is gone

    async def follow(self, current: Callable[[], Contents]) -> NoReturn:
        """Write what is ``current`` after each change, not more often than SECONDS_BETWEEN."""
        pause = FIRST_SECONDS
        while True:
            await self._changed.wait()
            await asyncio.sleep(pause)
            self._changed.clear()
            self._touched = time.monotonic()
            if not await call(partial(self.save, current())):
                self._changed.set()
            pause = SECONDS_BETWEEN

    def save(self, contents: Contents) -> bool:
        """Now. False: it cannot be written, which is said once and harms nothing else."""
        try:
            with self._writing:
                write_atomically(self.path, _lines(contents), mode=0o600, modified=self._as_of)
        except (OSError, UnicodeDecodeError) as error:
            self._said.say("file", logging.WARNING, f"{self.path}: the peers cannot be remembered: {error}")
            return False
        self._said.over("file")
        return True

    def forget(self) -> None:
        """Our lease is given back: nobody is to go on with it."""
        self._changed.clear()
        self.path.unlink(missing_ok=True)

    def load(self, location: str) -> Remembered | None:
        """None if there is none of the store at ``location``, or it cannot be read, which is logged."""
        try:
            with self.path.open("rb") as file:
                header = msgspec.json.decode(file.readline(), type=_Header)
                if header.version != VERSION or header.location != location:
                    return None
                decode = msgspec.json.Decoder(_Row).decode
                leases = tuple(_lease(decode(line)) for line in file)
                if len(leases) != header.count:
                    raise ValueError(f"it has {len(leases)} leases of {header.count}")
                as_of = os.fstat(file.fileno()).st_mtime
            own = msgspec.structs.replace(_lease(header.own), expires=header.expires)
            public = PublicAddresses(
                None if header.public_ipv4 is None else IPv4Address(header.public_ipv4),
                None if header.public_ipv6 is None else IPv6Address(header.public_ipv6),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s is not readable (%s); waiting for the store", self.path, error)
            return None
        config = ConfigText(header.config.encode(), header.source)
        return Remembered(as_of, header.cluster, header.revision, config, public, own, leases)


def _lines(contents: Contents) -> Iterator[bytes]:
    encoder, public = msgspec.json.Encoder(), contents.public
    header = _Header(
        VERSION,
        contents.location,
        contents.cluster,
        contents.revision,
        (contents.config.text or b"").decode(),
        contents.config.source,
        _row(contents.own),
        contents.own.expires,
        len(contents.leases),
        _text(public.ipv4),
        _text(public.ipv6),
    )
    yield encoder.encode(header) + b"\n"
    batch: list[_Row] = []
    for lease in contents.leases:
        batch.append(_row(lease))
        if len(batch) == BATCH:
            yield encoder.encode_lines(batch)
            batch.clear()
    yield encoder.encode_lines(batch)


def _row(lease: Lease) -> _Row:
    return _Row(lease.key, lease.backend_type, lease.created, lease.revision, *_texts(lease.ipv4), *_texts(lease.ipv6))


def _texts(endpoint: Endpoint | None) -> tuple[str | None, str | None, str | None]:
    if endpoint is None:
        return None, None, None
    return str(endpoint.subnet), str(endpoint.public_ip), None if endpoint.data is None else endpoint.data.decode()


def _lease(row: _Row) -> Lease:
    """Raises ValueError."""
    ipv4 = ipv6 = None
    if row.subnet4 is not None:
        ipv4 = _endpoint(IPv4Network(row.subnet4), IPv4Address(row.public4), row.data4)
    if row.subnet6 is not None:
        ipv6 = _endpoint(IPv6Network(row.subnet6), IPv6Address(row.public6), row.data6)
    return Lease(row.key, row.backend_type, ipv4, ipv6, row.created, row.revision)


def _endpoint(subnet: IPNetwork, public_ip: IPAddress, data: str | None) -> Endpoint:
    return Endpoint(subnet, public_ip, None if data is None else data.encode())


def _text(address: IPAddress | None) -> str | None:
    return None if address is None else str(address)
