"""Reading what the kernel holds of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from errno import ENODEV, ENOENT

from ..lease import FAMILIES
from ..objects import FLANNEL_PROTOCOL, MAIN_TABLE, FdbEntry, Identity, Neighbour, Object
from ..target import Scope
from . import addresses, links, neighbours, routes
from .devices import link_names
from .message import Message, Request
from .ours import Ours
from .socket import NetlinkError, NetlinkSocket

AT_ONCE = 500
"""Messages that are decoded before the event loop runs again: about 3 ms."""


async def read(kernel: NetlinkSocket, ours: Ours, only: frozenset[str] | None) -> list[Object]:
    """All that is ours, or with ``only`` what lies on these devices. Raises NetlinkError and MalformedMessage."""
    found: dict[Identity, Object] = {}
    link_dump = kernel.dump(links.dump())
    names = link_names(link_dump)
    wanted = ours.heeded if only is None else only & ours.heeded
    indexes = {name: index for index, name in names.items() if name in wanted}
    own = {name: index for name, index in indexes.items() if name in ours.scope.devices}

    for message in link_dump:
        if links.decode_name(message)[2] in own:
            row = links.decode(message, names)
            found[row.link.identity] = row.link

    for index in own.values():
        for message in dump(kernel, addresses.dump(index)):
            address = addresses.decode(message)
            device = names.get(address.index, "")
            if device in own and ours.address(address, device):
                item = addresses.as_object(address, device)
                found[item.identity] = item

    for index in own.values():
        async for entry in neighbour_table(kernel, index, names):
            if entry.permanent and ours.neighbour(entry):
                found[entry.identity] = entry

    async for message in _paced(_route_dumps(kernel, indexes, ours.scope, only)):
        route = routes.decode(message, names)
        if route is not None and ours.route(route.route) and (only is None or route.route.device in only):
            found.setdefault(route.route.identity, route.route)  # of two equal ones the first is in force
    return list(found.values())


def dump(kernel: NetlinkSocket, request: Request) -> list[Message]:
    """Empty where there is no such table or device (any more)."""
    try:
        return kernel.dump(request)
    except NetlinkError as error:
        if error.number not in (ENOENT, ENODEV):
            raise
        return []


async def neighbour_table(
    kernel: NetlinkSocket, index: int, names: dict[int, str]
) -> AsyncIterator[Neighbour | FdbEntry]:
    """All neighbours and forwarding entries of a device, also those that are not permanent."""
    tables = [*dump(kernel, neighbours.dump_neighbours(index)), *dump(kernel, neighbours.dump_fdb(index))]
    async for message in _paced(tables):
        entry = neighbours.decode(message, names)
        if entry is not None:
            yield entry


def _route_dumps(
    kernel: NetlinkSocket, indexes: dict[str, int], scope: Scope, only: frozenset[str] | None
) -> Iterator[Message]:
    """Everything on our own devices, and what has our protocol number; a route that is both comes once."""
    for family in FAMILIES:
        requests = [
            routes.dump(family, table=MAIN_TABLE, index=index)
            if name in scope.devices
            else routes.dump(family, protocol=FLANNEL_PROTOCOL, index=index)
            for name, index in indexes.items()
            if name in scope.devices or only is not None
        ]
        if only is None:
            requests.append(routes.dump(family, protocol=FLANNEL_PROTOCOL))
        seen: dict[bytes, Message] = {}
        for request in requests:
            for message in dump(kernel, request):
                seen.setdefault(message.body, message)
        yield from seen.values()


async def _paced(found: Iterable[Message]) -> AsyncIterator[Message]:
    """Lets the event loop run now and then."""
    for number, message in enumerate(found, 1):
        yield message
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
