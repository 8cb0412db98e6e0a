"""This host's links, addresses and routes as rows, for who wants to know rather than to change.

Each function opens a socket in the network namespace of the calling thread. All raise FlannelError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from errno import ENOENT

from ..lease import Family, IPAddress
from ..objects import MAIN_TABLE
from . import addresses, links, routes
from .addresses import AddressRow
from .devices import link_names
from .links import LinkRow
from .message import MalformedMessage, Message
from .routes import RouteRow
from .socket import (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
    NetlinkError,
    NetlinkSocket,
    NotificationsLost,
    NotificationSocket,
)

__all__ = [
    "AddressRow",
    "LinkRow",
    "RouteRow",
    "read_addresses",
    "read_links",
    "read_routes",
    "route_to",
    "watch_host",
]

RTM_DST_LEN, RTM_PROTOCOL = 1, 5
"""Offsets in struct rtmsg, linux/rtnetlink.h."""
OPERATORS = (3, 4)
"""RTPROT_BOOT, RTPROT_STATIC of linux/rtnetlink.h."""


def read_links() -> list[LinkRow]:
    """All links, in the order of their index."""
    with NetlinkSocket() as kernel:
        found = kernel.dump(links.dump())
    names = link_names(found)
    return sorted((links.decode(message, names) for message in found), key=lambda row: row.index)


def read_addresses() -> list[AddressRow]:
    """All addresses of both families, those of a link-local scope too."""
    with NetlinkSocket() as kernel:
        return [addresses.decode(message) for message in kernel.dump(addresses.dump())]


def read_routes(family: Family, *, without_protocol: int | None = None) -> list[RouteRow]:
    """The main table of a family; ``without_protocol`` leaves out one rtm_protocol before it costs any decoding."""
    skipped = None if without_protocol is None else bytes([without_protocol])
    with NetlinkSocket() as kernel:
        names = link_names(kernel.dump(links.dump()))
        try:
            found = kernel.dump(routes.dump(family, table=MAIN_TABLE))
        except NetlinkError as error:
            if error.number != ENOENT:
                raise
            return []
    rows = [
        routes.decode(message, names) for message in found if message.body[RTM_PROTOCOL : RTM_PROTOCOL + 1] != skipped
    ]
    # Without strict dumps the kernel sends every table.
    return [row for row in rows if row is not None and row.route.table == MAIN_TABLE]


def route_to(address: IPAddress) -> RouteRow:
    """The route that packets to ``address`` take now; ``route.source`` is the source address they leave with, ""
    never. Raises NetlinkError (ENETUNREACH) where there is none."""
    with NetlinkSocket() as kernel:
        answer = kernel.get(routes.lookup(address))
        row = routes.decode(answer, link_names(kernel.dump(links.dump())), clones=True)
    if row is None:
        raise MalformedMessage(f"the kernel answered the question for {address} with no route")
    return row


def watch_host() -> AsyncIterator[None]:
    """Yields, once per burst, when a link, an address or a default route may have changed. Subscribed at the call."""
    return _host_changes(
        NotificationSocket(
            (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)
        )
    )


async def _host_changes(notifications: NotificationSocket) -> AsyncIterator[None]:
    try:
        while True:
            try:
                heard = any(map(_concerns_the_host, await notifications.receive()))
            except NotificationsLost:
                heard = True
            if heard:
                yield
    finally:
        notifications.close()


def _concerns_the_host(message: Message) -> bool:
    if message.type not in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
        return True
    # A default route, or an operator's, which may name a connected network. The kernel's come with an address; a
    # routing daemon's thousands, and our own, change nothing about the host.
    header = message.body[: RTM_PROTOCOL + 1]
    return len(header) > RTM_PROTOCOL and (header[RTM_DST_LEN] == 0 or header[RTM_PROTOCOL] in OPERATORS)
