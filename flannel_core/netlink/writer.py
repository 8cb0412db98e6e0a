"""Writing objects: in batches, never over anything foreign, and with a reason for each that fails."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Sequence

import msgspec

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

GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL})
"""What the kernel answers when asked to remove what it does not have."""

UNWRITABLE = (OSError, ValueError, KeyError, struct.error)
"""What packing raises for an object whose text is no address, whose number is out of range, ..."""


class Writer:
    """One socket that everything is written through, so that its port tells our own notifications from others'."""

    def __init__(self, kernel: NetlinkSocket) -> None:
        self._kernel = kernel
        self._turn = asyncio.Lock()

    @property
    def port(self) -> int:
        return self._kernel.port

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
            indexes = Indexes(self._kernel)
            failures += await self._remove([item for item in removes if not isinstance(item, Link)], indexes)
            failures += await self._put([put for put in puts if not isinstance(put.object, Link)], indexes)
            return failures

    async def _remove(self, removes: Sequence[Object], indexes: Indexes) -> list[Failure]:
        failures: list[Failure] = []
        asked: list[Object] = []
        requests: list[Request] = []
        for item in removes:
            try:
                requests.append(_removal(item, _index(item, indexes)))
                asked.append(item)
            except MissingDevice:  # and the object went with it
                continue
            except UNWRITABLE as error:
                failures.append(Failure(item, _unwritable(error)))
        for place, refused in (await self._kernel.write(requests)).items():
            if refused.number not in GONE:
                failures.append(Failure(asked[place], explain(asked[place], refused)))
        return failures

    async def _put(self, puts: Sequence[Put], indexes: Indexes) -> list[Failure]:
        """Those whose place is taken are looked at, and put once more where what stands there may be overwritten."""
        failures: list[Failure] = []
        taken: list[tuple[Object, NetlinkError]] = []
        for put, error in await self._try(puts, indexes, failures):
            if error.number == errno.EEXIST or _may_hide_what_is_in_the_way(put, error):
                taken.append((put.object, error))
            else:
                failures.append(Failure(put.object, explain(put.object, error)))
        if not taken:
            return failures
        standing = await self._standing([wanted for wanted, _ in taken], indexes)
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
        for put, error in await self._try(again, indexes, failures):
            failures.append(Failure(put.object, explain(put.object, error)))
        return failures

    async def _try(
        self, puts: Sequence[Put], indexes: Indexes, failures: list[Failure]
    ) -> list[tuple[Put, NetlinkError]]:
        """Write all of ``puts``, packing no more than a batch at a time. Returns what the kernel refused; what cannot
        be sent at all goes into ``failures``."""
        refused: list[tuple[Put, NetlinkError]] = []
        for start in range(0, len(puts), BATCH):
            if start:
                await asyncio.sleep(0)
            requests: list[Request] = []
            asked: list[Put] = []
            for put in puts[start : start + BATCH]:
                try:
                    requests.append(_putting(put, _index(put.object, indexes)))
                    asked.append(put)
                except MissingDevice as error:
                    failures.append(Failure(put.object, missing_device(str(error))))
                except UNWRITABLE as error:
                    failures.append(Failure(put.object, _unwritable(error)))
            refused += [(asked[place], error) for place, error in (await self._kernel.write(requests)).items()]
        return refused

    async def _standing(self, wanted: Sequence[Object], indexes: Indexes) -> dict[Identity, Object]:
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
            await asyncio.sleep(0)
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
