"""Reading what the kernel holds of ours."""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENODEV, ENOENT

from ..lease import FAMILIES
from ..objects import FLANNEL_PROTOCOL, MAIN_TABLE, FdbEntry, Neighbour, Object
from . import addresses, links, neighbours, routes
from .devices import link_names
from .message import Message, Request
from .ours import Ours
from .socket import NetlinkError, NetlinkSocket


def read(kernel: NetlinkSocket, ours: Ours, only: frozenset[str] | None) -> Iterator[Object]:
    """All that is ours, or with ``only`` what lies on these devices, one table after the other: at no moment does more
    than one of them take memory. Of two objects with one identity the first is in force. Raises NetlinkError and
    MalformedMessage."""
    link_dump = kernel.dump(links.dump())
    names = link_names(link_dump)
    wanted = ours.heeded if only is None else only & ours.heeded
    indexes = {name: index for index, name in names.items() if name in wanted}
    own = {name: index for name, index in indexes.items() if name in ours.scope.devices}

    for message in link_dump:
        if links.decode_name(message)[2] in own:
            yield links.decode(message, names).link

    for index in own.values():
        for message in dump(kernel, addresses.dump(index)):
            address = addresses.decode(message)
            device = names.get(address.index, "")
            if device in own and ours.address(address, device):
                yield addresses.as_object(address, device)

    for index in own.values():
        for entry in neighbour_table(kernel, index, names):
            if entry.permanent and ours.neighbour(entry):
                yield entry

    for family in FAMILIES:
        # Whatever its protocol on our own devices; elsewhere what has ours.
        for name, index in indexes.items():
            if name in own:
                yield from _routes(kernel, routes.dump(family, table=MAIN_TABLE, index=index), ours, names, only)
            elif only is not None:
                request = routes.dump(family, protocol=FLANNEL_PROTOCOL, index=index)
                yield from _routes(kernel, request, ours, names, only)
        if only is None:
            for route in _routes(kernel, routes.dump(family, protocol=FLANNEL_PROTOCOL), ours, names, None):
                if route.on_device not in own:
                    yield route


def _routes(
    kernel: NetlinkSocket, request: Request, ours: Ours, names: dict[int, str], only: frozenset[str] | None
) -> Iterator[Object]:
    for message in dump(kernel, request):
        row = routes.decode(message, names)
        if row is not None and ours.route(row.route) and (only is None or row.route.device in only):
            yield row.route


def dump(kernel: NetlinkSocket, request: Request) -> list[Message]:
    """Empty where there is no such table or device (any more)."""
    try:
        return kernel.dump(request)
    except NetlinkError as error:
        if error.number not in (ENOENT, ENODEV):
            raise
        return []


def neighbour_table(kernel: NetlinkSocket, index: int, names: dict[int, str]) -> Iterator[Neighbour | FdbEntry]:
    """All neighbours and forwarding entries of a device, also those that are not permanent."""
    for request in (neighbours.dump_neighbours(index), neighbours.dump_fdb(index)):
        for message in dump(kernel, request):
            entry = neighbours.decode(message, names)
            if entry is not None:
                yield entry
