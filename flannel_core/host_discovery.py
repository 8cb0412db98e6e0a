"""This host as the kernel shows it: discovered at the start, followed from then on."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Collection
from ipaddress import ip_network

import msgspec

from .errors import FlannelError
from .host import Host
from .host_choice import HostOptions, Tables, choose, is_unicast
from .lease import FAMILIES, Family, IPAddress, IPNetwork
from .netlink import tables as kernel
from .netlink.socket import NetlinkError
from .objects import FLANNEL_PROTOCOL

__all__ = ["HostOptions", "discover", "follow"]

log = logging.getLogger(__name__)

STEADY_SECONDS = 1.0
"""How long a new address has to stand before it is announced: a DHCP renewal may take it away and give it back."""
LOOK_AGAIN_SECONDS = 5.0
"""How often the kernel is asked without being told of a change, while nothing fits."""
ADVERTISED = 9
"""RTPROT_RA of linux/rtnetlink.h: the protocol of a route that a router advertisement brought."""
GATHER_SECONDS = 0.05
"""Changes come in bursts (a link up brings its addresses and routes); one look answers for what came within this."""


def discover(options: HostOptions, *, ipv4: bool, ipv6: bool, own_devices: Collection[str] = ()) -> Host:
    """What the kernel says now. Blocks for some milliseconds.

    ``ipv4`` and ``ipv6`` are the families that the network config has on. ``own_devices`` are the devices that this
    agent makes: their addresses and networks are not the host's, though they are in ``links`` like any other. Raises
    UsageError and FlannelError as :func:`flannel_core.host_choice.choose` does, FlannelError if the kernel's tables
    cannot be read.
    """
    links = kernel.read_links()
    own = {link.index for link in links if link.name in own_devices}
    tables = Tables(
        links=links,
        addresses=[row for row in kernel.read_addresses() if row.index not in own],
        routes=[row for family in FAMILIES for row in kernel.read_routes(family, without_protocol=FLANNEL_PROTOCOL)],
        reach=_route_to(options.can_reach()),
    )
    choice = choose(options, _families(ipv4, ipv6), tables)
    return Host(
        interface=choice.link.name,
        index=choice.link.index,
        mtu=choice.link.mtu,
        mac=choice.link.mac,
        ipv4=choice.ipv4,
        ipv6=choice.ipv6,
        public_ipv4=choice.public_ipv4,
        public_ipv6=choice.public_ipv6,
        connected=_connected(tables, own_devices),
        links={link.name: link.link for link in links},
        addresses=_global_addresses(tables),
        reason=choice.reason,
        others=choice.others,
        kernel=_kernel(os.uname().release),
        advertised=_advertised(tables, own_devices),
        lacks=choice.lacks,
    )


def with_devices_as_they_are(host: Host) -> Host:
    """``host`` with the devices that there are by now. Raises FlannelError if they cannot be read."""
    return msgspec.structs.replace(host, links={link.name: link.link for link in kernel.read_links()})


async def follow(
    options: HostOptions, host: Host, *, ipv4: bool, ipv6: bool, own_devices: Collection[str] = ()
) -> AsyncIterator[Host]:
    """Each new state of the host after ``host``, as long as it is iterated over.

    An MTU, a MAC, a network comes at once; an address or another interface once it has stood ``STEADY_SECONDS``. While
    there is no interface or address that fits, the last host stands, which is said once; where only one family has
    none, its last address stands. ``links`` alone, and who else has addresses, make no new state.
    """
    loop, lost = asyncio.get_running_loop(), False
    wake = asyncio.Event()
    pump = asyncio.create_task(_wake_on_change(wake, kernel.watch_host()))
    pump.add_done_callback(lambda _: wake.set())
    candidate, since = host, 0.0  # the candidate: what is to be announced if it still stands then
    patience: float | None = 0.0  # the first look is for what changed since ``host`` was made
    try:
        while True:
            await _wait(wake, patience)
            if pump.done():
                pump.result()
                return
            try:
                found = discover(options, ipv4=ipv4, ipv6=ipv6, own_devices=own_devices).keeping(host)
            except FlannelError as error:
                if not lost:
                    log.warning("%s; keeping %s until something fits again", error, _named(host))
                lost, candidate, patience = True, host, LOOK_AGAIN_SECONDS
                continue
            if lost:
                log.info("There is an external interface again: %s", _named(found))
            lost, now, patience = False, loop.time(), None
            if _announced(found) == _announced(host):
                candidate = host
            else:
                if _announced(found) != _announced(candidate):
                    candidate, since = found, now
                if now < since + STEADY_SECONDS:
                    patience = since + STEADY_SECONDS - now
                    continue
            if _facts(found) != _facts(host):
                if _named(found) != _named(host):
                    log.info("This host changed: %s, was %s", _named(found), _named(host))
                candidate = host = found
                yield host
    finally:
        pump.cancel()


async def _wake_on_change(wake: asyncio.Event, changes: AsyncIterator[None]) -> None:
    async for _ in changes:
        wake.set()


async def _wait(wake: asyncio.Event, seconds: float | None) -> None:
    """Until something changed and its burst is over, at most ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
    await asyncio.sleep(GATHER_SECONDS)
    wake.clear()


def _families(ipv4: bool, ipv6: bool) -> list[Family]:
    return [family for family, on in zip(FAMILIES, (ipv4, ipv6), strict=True) if on]


def _route_to(address: IPAddress | None) -> kernel.RouteRow | None:
    if address is None:
        return None
    try:
        return kernel.route_to(address)
    except NetlinkError:
        return None


def _connected(tables: Tables, own_devices: Collection[str]) -> tuple[tuple[IPNetwork, str], ...]:
    """The networks reached without a gateway, with their devices, in a stable order. Link-local ones, which no lease
    may name, are left out: every container's device has one."""
    found = set()
    for row in tables.routes:
        route = row.route
        if route.type == "unicast" and not route.gateway and route.device and route.device not in own_devices:
            network = ip_network(route.destination)
            if not network.is_link_local:
                found.add((network, route.device))
    return tuple(
        sorted(found, key=lambda item: (item[0].version, item[0].network_address.packed, item[0].prefixlen, item[1]))
    )


def _advertised(tables: Tables, own_devices: Collection[str]) -> tuple[str, ...]:
    found = {row.route.device for row in tables.routes if row.route.protocol == ADVERTISED and row.route.device}
    return tuple(sorted(found.difference(own_devices)))


def _kernel(release: str) -> tuple[int, int] | None:
    """The first two numbers of ``6.8.0-45-generic``; None for something else."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _global_addresses(tables: Tables) -> tuple[IPAddress, ...]:
    found = {row.address for row in tables.addresses if is_unicast(row.address) and not row.address.is_link_local}
    return tuple(sorted(found, key=lambda address: (address.version, int(address))))


def _announced(host: Host) -> tuple[object, ...]:
    """What peers are told, or depends on the interface: it has to stand a while before it counts."""
    return (host.interface, host.ipv4, host.ipv6, host.public_ipv4, host.public_ipv6)


def _facts(host: Host) -> Host:
    """The host without what changes with every container and with our own devices."""
    return msgspec.structs.replace(host, links={}, reason="", others=())


def _named(host: Host) -> str:
    addresses = ", ".join(str(address) for address in (host.ipv4, host.ipv6) if address)
    return f"{host.interface} ({addresses}, MTU {host.mtu})"
