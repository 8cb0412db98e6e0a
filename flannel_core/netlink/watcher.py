"""Turning notifications into what the reconciler understands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..target import Changed, Unknown
from . import addresses, links, neighbours, routes
from .devices import follow
from .message import NLM_F_APPEND, NLM_F_REPLACE, Message
from .ours import Ours
from .socket import (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
)

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
)


Caller = Callable[[Message], str]
"""Who caused a notification, "" if the kernel does not say."""


def translate(
    heard: list[Message], ours: Ours, names: dict[int, str], own_port: int, name_of: Callable[[int], str]
) -> Iterator[Changed | Unknown]:
    """What a burst of notifications means, the devices to be read again in one Unknown at the end.

    ``names`` is kept in step with the links. Our own writes are left out where the kernel says whose they are
    (routes). ``name_of`` finds out what is known of a port; it is asked about what deviates from what is wanted, once
    per port. A link or an address may have taken routes and neighbours along in silence. Raises MalformedMessage.
    """
    unclear: dict[str, str] = {}
    callers = {0: "", own_port: ""}

    def caller(message: Message) -> str:
        if message.port not in callers:
            callers[message.port] = name_of(message.port)
        return callers[message.port]

    for message in heard:
        kind = message.type
        if kind in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
            if message.port != own_port:
                yield from _route(message, ours, names, unclear, caller)
        elif kind in (neighbours.RTM_NEWNEIGH, neighbours.RTM_DELNEIGH):
            yield from _neighbour(message, ours, names, caller)
        elif kind in (links.RTM_NEWLINK, links.RTM_DELLINK):
            for name in follow(names, message) & ours.heeded:
                unclear[name] = f"link {name} changed"
        elif kind in (addresses.RTM_NEWADDR, addresses.RTM_DELADDR):
            address = addresses.decode(message)
            name = names.get(address.index, "")
            identity = addresses.as_object(address, name).identity
            if kind == addresses.RTM_DELADDR and identity in ours.scope.wanted:
                yield Changed(identity, None, caller(message))
            # fe80:: comes and goes with every device, a second after it, and carries nothing of ours.
            if name in ours.heeded and address.scope != addresses.RT_SCOPE_LINK:
                unclear[name] = f"an address of {name} changed"
    if unclear:
        yield Unknown(frozenset(unclear), "; ".join(unclear.values()))


def _route(
    message: Message, ours: Ours, names: dict[int, str], unclear: dict[str, str], caller: Caller
) -> Iterator[Changed]:
    row = routes.decode(message, names)
    if row is None:
        return
    route = row.route
    gone = message.type == routes.RTM_DELROUTE
    is_wanted = route.identity in ours.scope.wanted
    if ours.route(route):
        if not gone and message.flags & NLM_F_APPEND and route.device is not None:
            # One next hop more, or a second route behind the first: only a dump tells what stands there now.
            unclear[route.device] = f"a route was appended at {route.device}"
        else:
            yield Changed(route.identity, None if gone else route, caller(message) if is_wanted else "")
    elif (gone or message.flags & NLM_F_REPLACE) and is_wanted:
        # A foreign route left the place that we want, or took it from us: of ours nothing stands there.
        yield Changed(route.identity, None, caller(message))


def _neighbour(message: Message, ours: Ours, names: dict[int, str], caller: Caller) -> Iterator[Changed]:
    entry = neighbours.decode(message, names)
    if entry is None or not ours.neighbour(entry):
        return
    is_wanted = entry.identity in ours.scope.wanted
    by = caller(message) if is_wanted else ""
    if message.type == neighbours.RTM_NEWNEIGH and entry.permanent:
        yield Changed(entry.identity, entry, by)
    elif message.type == neighbours.RTM_DELNEIGH or is_wanted:
        yield Changed(entry.identity, None, by)
