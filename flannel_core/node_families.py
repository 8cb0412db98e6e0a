"""This host as a node, in the families that work on it: one that cannot work leaves the other working."""

from __future__ import annotations

from typing import Any

import msgspec

from .backend import Announcement, Backend, Node
from .config_watch import Chosen
from .errors import CannotGoOn, FlannelError
from .host import Host
from .lease import FAMILIES, Endpoint, Family, Lease

OTHER: dict[Family, Family] = {4: 6, 6: 4}


class CannotStart(Exception):
    """This host cannot join the fabric yet; waited for, and ``str(error)`` is shown in the status."""


async def announced(
    backend: Backend[Any, Any], host: Host, previous: Lease | None, *, dry_run: bool = False
) -> tuple[Host, Announcement]:
    """What the backend has this host announce, and the host in the families of that: all that it has an address of,
    else the first that the backend can do alone. Raises CannotStart."""
    try:
        return host, await _prepare(backend, host, previous, dry_run)
    except CannotStart as error:
        for family in host.families if len(host.families) > 1 else ():
            alone = host.without(OTHER[family], str(error))
            try:
                return alone, await _prepare(backend, alone, previous, dry_run)
            except CannotStart:
                continue
        raise


async def _prepare(backend: Backend[Any, Any], host: Host, previous: Lease | None, dry_run: bool) -> Announcement:
    """The backend's ``prepare``; what it refuses may be cured by another configuration, so it is waited for."""
    try:
        return await backend.prepare(host, previous, dry_run=dry_run)
    except CannotGoOn:
        raise
    except FlannelError as error:
        raise CannotStart(str(error)) from error


def node_of(chosen: Chosen, host: Host, announcement: Announcement, lease: Lease | None = None) -> Node:
    """This host as the backend is to see it: families that it lacks an address or a subnet of are off. ``lease`` gets
    the data that is announced. Raises CannotStart if no family is left."""
    families = [f for f in host.families if lease is None or lease.endpoint(f) is not None]
    config = chosen.config.only(families)
    if not config.families:
        raise CannotStart("; ".join(host.lacks.values()) or "this host has neither an address nor a subnet")
    if lease is not None:
        ipv4, ipv6 = (
            _saying(lease.endpoint(family), announcement.data(family)) if config.space(family) else None
            for family in FAMILIES
        )
        lease = msgspec.structs.replace(lease, ipv4=ipv4, ipv6=ipv6)
    return Node(config, host, announcement, lease)


def _saying(endpoint: Endpoint | None, data: Any) -> Endpoint | None:
    return endpoint and msgspec.structs.replace(endpoint, data=data)


def lacking(chosen: Chosen, node: Node) -> list[str]:
    """A sentence for each family that is on and does not work on this host as it should."""
    sentences = []
    for family in chosen.config.families:
        why, works, space = node.host.lacks.get(family), node.config.space(family), chosen.config.space(family)
        if works is None and why is None and space is not None:
            why = f"there is no free subnet in {space.network}; release leases that nobody needs, or enlarge it"
        if why is not None and works is None:
            sentences.append(f"IPv{family} does not work on this host, IPv{OTHER[family]} does: {why}")
        elif why is not None:
            kept = node.host.public_ip(family)
            sentences.append(f"IPv{family} may not work on this host, {kept} stays announced: {why}")
    return sentences
