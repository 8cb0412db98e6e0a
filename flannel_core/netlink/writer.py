"""Writing objects: in batches, never over anything foreign, and with a reason for each that fails."""

from __future__ import annotations

import asyncio
import errno
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from .. import threads
from ..lease import Family
from ..objects import BOOT_PROTOCOL, Address, FdbEntry, Identity, Link, Neighbour, Object, Route
from ..target import Failure, Put
from . import addresses, links, neighbours, routes
from .devices import Indexes, link_names
from .link_writer import LinkWriter
from .links import MissingDevice
from .message import Request
from .reader import dump, neighbour_table
from .reasons import explain, in_the_way, missing_device
from .socket import BATCH, NetlinkError, NetlinkSocket

T = TypeVar("T")

GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL})
"""What the kernel answers when asked to remove what it does not have."""

SOON_SECONDS = 0.05
"""After a great write, the next one is likely to follow within this time: a start writes stage by stage."""
UNWRITABLE = (OSError, ValueError, KeyError, struct.error)
"""What packing raises for an object whose text is no address, whose number is out of range, ..."""


class Writer:
    """One socket that everything is written through, so that its port tells our own notifications from others'."""

    def __init__(self, kernel: NetlinkSocket) -> None:
        self._kernel = kernel
        self._turn = asyncio.Lock()
        self._giving_up = threading.Event()
        """Nobody waits any more for what the thread writes."""
        self._much_until = 0.0

    @property
    def port(self) -> int:
        return self._kernel.port

    @property
    def writes_much(self) -> bool:
        """A great write is under way, or was just now: the next one follows soon."""
        return time.monotonic() < self._much_until

    def close(self) -> None:
        self._kernel.close()

    async def write(
        self, puts: Sequence[Put], removes: Sequence[Object], is_left_over: Callable[[str], bool]
    ) -> list[Failure]:
        """Remove, then put. ``is_left_over`` is for LinkWriter. Raises NetlinkError or MalformedMessage only if the
        kernel does not answer at all."""
        async with self._turn:
            link_writer = LinkWriter(self._kernel, is_left_over)
            failures = link_writer.remove([item for item in removes if isinstance(item, Link)])
            failures += link_writer.put([put for put in puts if isinstance(put.object, Link)])
            return failures + await self._write_all(
                [put for put in puts if not isinstance(put.object, Link)],
                [item for item in removes if not isinstance(item, Link)],
            )

    async def _write_all(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        """Many are written by a thread: the kernel takes up to 0.1 ms for each (it compares a route to the next hops of
        all others), in which leases can be taken in. A few, of which somebody waits for each, are not worth one."""
        self._giving_up.clear()
        if len(puts) + len(removes) <= BATCH:
            return self._write_now(puts, removes)
        self._much_until = math.inf
        writing = threads.call(partial(self._write_now, puts, removes))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._giving_up.set()
            await asyncio.wait([writing])  # a batch at most: the socket is its until then
            raise
        finally:
            self._much_until = time.monotonic() + SOON_SECONDS

    def _write_now(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        indexes = Indexes(self._kernel)
        return self._remove(removes, indexes) + self._put(puts, indexes)

    def _remove(self, removes: Sequence[Object], indexes: Indexes) -> list[Failure]:
        failures: list[Failure] = []
        for batch in self._batches(removes):
            requests: list[Request] = []
            asked: list[Object] = []
            for item in batch:
                try:
                    requests.append(_removal(item, _index(item, indexes)))
                    asked.append(item)
                except MissingDevice:  # and the object went with it
                    continue
                except UNWRITABLE as error:
                    failures.append(Failure(item, _unwritable(error)))
            for place, refused in self._kernel.write(requests).items():
                if refused.number not in GONE:
                    failures.append(Failure(asked[place], explain(asked[place], refused)))
        return failures

    def _put(self, puts: Sequence[Put], indexes: Indexes) -> list[Failure]:
        """Those whose place is taken are looked at, and put once more where what stands there may be overwritten."""
        failures: list[Failure] = []
        taken: list[tuple[Object, NetlinkError]] = []
        for put, error in self._try(puts, indexes, failures):
            if error.number == errno.EEXIST or _may_hide_what_is_in_the_way(put, error):
                taken.append((put.object, error))
            else:
                failures.append(Failure(put.object, explain(put.object, error)))
        if not taken:
            return failures
        standing = self._standing([wanted for wanted, _ in taken], indexes)
        again: list[Put] = []
        for wanted, error in taken:
            found = standing.get(wanted.identity)
            if found is None and error.number == errno.EEXIST:
                failures.append(Failure(wanted, "something was in the way and is gone again"))
            elif found is None:
                failures.append(Failure(wanted, explain(wanted, error)))
            elif _may_be_overwritten(found, wanted):
                again.append(Put(wanted, previous=found))
            elif not wanted.satisfied_by(found):
                failures.append(Failure(wanted, in_the_way(found), foreign=True))
        for put, error in self._try(again, indexes, failures):
            failures.append(Failure(put.object, explain(put.object, error)))
        return failures

    def _try(self, puts: Sequence[Put], indexes: Indexes, failures: list[Failure]) -> list[tuple[Put, NetlinkError]]:
        """Write all of ``puts``, packing no more than a batch at a time. Returns what the kernel refused; what cannot
        be sent at all goes into ``failures``."""
        refused: list[tuple[Put, NetlinkError]] = []
        for batch in self._batches(puts):
            requests: list[Request] = []
            asked: list[Put] = []
            for put in batch:
                try:
                    requests.append(_putting(put, _index(put.object, indexes)))
                    asked.append(put)
                except MissingDevice as error:
                    failures.append(Failure(put.object, missing_device(str(error))))
                except UNWRITABLE as error:
                    failures.append(Failure(put.object, _unwritable(error)))
            refused += [(asked[place], error) for place, error in self._kernel.write(requests).items()]
        return refused

    def _batches(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Ends early once nobody waits for them any more."""
        for start in range(0, len(items), BATCH):
            if self._giving_up.is_set():
                return
            yield items[start : start + BATCH]

    def _standing(self, wanted: Sequence[Object], indexes: Indexes) -> dict[Identity, Object]:
        """What the kernel has now where ``wanted`` should be. Each table is read once, however much is in the way."""
        names = link_names(self._kernel.dump(links.dump()))
        found: dict[Identity, Object] = {}
        tables: set[tuple[Family, int]] = set()
        for item in wanted:
            if isinstance(item, Route):
                tables.add((6 if ":" in item.destination else 4, item.table))
        for family, table in tables:
            for message in dump(self._kernel, routes.dump(family, table=table)):
                row = routes.decode(message, names)
                if row is not None:
                    found.setdefault(row.route.identity, row.route)
        for device in {item.device for item in wanted if isinstance(item, Neighbour | FdbEntry)}:
            for entry in neighbour_table(self._kernel, indexes(device), names):
                found[entry.identity] = entry
        for device in {item.device for item in wanted if isinstance(item, Address)}:
            for message in dump(self._kernel, addresses.dump(indexes(device))):
                address = addresses.decode(message)
                item = addresses.as_object(address, names.get(address.index, ""))
                found[item.identity] = item
        return found


def _may_hide_what_is_in_the_way(put: Put, error: NetlinkError) -> bool:
    """IPv6 looks for an onlink gateway in the tables first: where a foreign route leads to the subnet that the gateway
    is in, through another device, it says EINVAL before it could say EEXIST (ip6_route_check_nh_onlink, net/ipv6)."""
    item = put.object
    return error.number == errno.EINVAL and put.previous is None and isinstance(item, Route) and ":" in item.destination


def _index(item: Object, indexes: Indexes) -> int:
    """0: on no device. Raises MissingDevice."""
    return indexes(item.on_device) if item.on_device is not None else 0


def _removal(item: Object, index: int) -> Request:
    if isinstance(item, Route):
        return routes.delete(item, index)
    if isinstance(item, Neighbour | FdbEntry):
        return neighbours.delete(item, index)
    if isinstance(item, Address):
        return addresses.delete(item, index)
    raise ValueError(f"the kernel target has no {item.kind}")


def _putting(put: Put, index: int) -> Request:
    item, new = put.object, put.previous is None
    if isinstance(item, Route):
        return routes.create(item, index) if new else routes.replace(item, index)
    if isinstance(item, Neighbour | FdbEntry):
        return neighbours.create(item, index) if new else neighbours.replace(item, index)
    if isinstance(item, Address):
        return addresses.create(item, index)
    raise ValueError(f"the kernel target has no {item.kind}")


def _may_be_overwritten(found: Object, wanted: Object) -> bool:
    """A route of Go flannel's that equals ours is adopted; what is not permanent is the kernel's own passing guess."""
    if isinstance(found, Route) and isinstance(wanted, Route):
        adopted = msgspec.structs.replace(found, protocol=wanted.protocol)
        return found.protocol == BOOT_PROTOCOL != wanted.protocol and wanted.satisfied_by(adopted)
    return isinstance(found, Neighbour | FdbEntry) and not found.permanent


def _unwritable(error: BaseException) -> str:
    return f"it cannot be written to the kernel: {error}"
