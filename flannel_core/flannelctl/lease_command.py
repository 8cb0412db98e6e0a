"""``flannelctl lease``: who holds which subnet, by the store; give one back, keep one for good."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

import msgspec
from cyclopts import App, Parameter

from ..allocation import fits
from ..claim import addresses, key_of, named_subnets, overlapping
from ..errors import EXIT_FAILED, EXIT_OK, FlannelError, UsageError
from ..flanneld_options import Parsed, StoreChoice, parse_store
from ..lease import FAMILIES, Endpoint, Family, IPAddress, IPNetwork, Lease, Malformed
from ..netconf import parse_config
from ..printable import printable
from ..status import Status
from ..store import Capability, NoSuchLease, Snapshot, SubnetStore
from .agent_socket import ask
from .config_command import Words
from .open_store import open_store
from .output import clean, duration, say, show_json, show_table

LIST_SECONDS = 120.0
"""How long a list may take. etcd has to be asked about the time to live of each lease."""

T = TypeVar("T")
ByFamily = dict[Family, T]

app = App(
    name="lease",
    help="List, release and reserve the leases in a store.",
    default_parameter=Parameter(negative=()),
)


class Entry(msgspec.Struct, frozen=True):
    """A line of ``lease list``. ``created`` is the store's own count, which orders leases by age. ``expires`` is Unix
    time, None for what never does; ``reserved``: an operator wanted it so. ``malformed``: why it is no lease."""

    key: str
    subnets: tuple[str, ...] = ()
    public_ips: tuple[str, ...] = ()
    backend_type: str = ""
    created: int = 0
    expires: float | None = None
    reserved: bool = False
    malformed: str | None = None


@app.command(name="list", usage="Usage: flannelctl lease list [--json] [--store NAME] [THE STORE'S OPTIONS]")
def list_leases(*words: Words, json: bool = False) -> int:
    """Show every lease in a store, the oldest first, and every entry that is none, with the reason.

    CREATED is the store's own count, not a time: stores know which lease is older, not how old it is. The store and
    its options are given as to flanneld, or in the same FLANNELD_ variables; `flanneld --help` lists them. Exit code 1
    if an entry is malformed (one such makes Go's nodes drop all their peers).

    Parameters
    ----------
    json
        Print it as JSON.
    """
    parsed = _parsed(words, "list")
    snapshot = asyncio.run(_list(parsed))
    entries = list(_entries(snapshot, expiry="expiry" in parsed.store_class.capabilities))
    if json:
        show_json(entries)
    elif entries:
        now = time.time()
        rows = [(" ".join(entry.subnets) or entry.key, *_cells(entry, now)) for entry in entries]
        show_table(("SUBNET", "ADDRESS", "BACKEND", "EXPIRES", "CREATED", "MALFORMED"), rows)
    else:
        say("There is no lease.")
    return EXIT_FAILED if snapshot.malformed else EXIT_OK


@app.command(usage="Usage: flannelctl lease release SUBNET [--yes] [--force] [--store NAME] [THE STORE'S OPTIONS]")
def release(*words: Words, yes: bool = False, force: bool = False) -> int:
    """Give a subnet back, so that another host may get it: for a host that will not come back.

    Names the holder, and asks. Whether the holder is at work cannot be seen from here, but for the agent of this host,
    whose lease is not released. One that is at work takes the same subnet again at once if it is free; a Go flanneld
    ends. A lease that changed hands between question and answer stays. Exit code 1 if nothing was released.

    Parameters
    ----------
    yes
        Do not ask.
    force
        Release the lease of the agent at work on this host, too.
    """
    operands: list[str] = []
    parsed = _parsed(words, "release", operands)
    if len(operands) != 1:
        raise UsageError("lease release takes one subnet, as `lease list` shows it, beside the store's options")
    return asyncio.run(_release(parsed, _subnet(operands[0]), yes=yes, force=force))


@app.command(
    usage="Usage: flannelctl lease reserve SUBNET [SUBNET] [ADDRESS] [ADDRESS] [--store NAME] [THE STORE'S OPTIONS]"
)
def reserve(*words: Words) -> int:
    """Make a lease that never expires.

    SUBNET alone: its holder keeps it for good. With the ADDRESS that a host is reached at by its peers: the subnet is
    kept for that host, which takes it when it next asks for one. In a dual stack network both are given per family.
    Exit code 1 if the subnet is another's, or none that a host of this network would take.
    """
    operands: list[str] = []
    parsed = _parsed(words, "reserve", operands)
    subnets: ByFamily[IPNetwork] = {subnet.version: subnet for subnet in map(_subnet, _with_length(operands, True))}
    hosts: ByFamily[IPAddress] = {host.version: host for host in map(_address, _with_length(operands, False))}
    if not subnets or len(subnets) + len(hosts) < len(operands):
        raise UsageError("lease reserve takes a subnet, or one of each family, and the addresses of its host")
    if hosts and hosts.keys() != subnets.keys():
        raise UsageError("lease reserve takes an address of each family that it takes a subnet of")
    lease = asyncio.run(_reserve(parsed, subnets, hosts))
    say(f"{_all(lease.subnets)} is reserved for {clean(addresses(lease))}")
    return EXIT_OK


def _parsed(words: tuple[str, ...], capability: Capability, operands: list[str] | None = None) -> Parsed[StoreChoice]:
    parsed = parse_store(words, os.environ, operands=operands)
    if not {capability, "list"} <= parsed.store_class.capabilities:
        raise FlannelError(f"the store {parsed.store_name} cannot {capability} leases: who assigns subnets does")
    return parsed


def _with_length(operands: list[str], has_one: bool) -> Iterator[str]:
    return (operand for operand in operands if ("/" in operand or "-" in operand) == has_one)


def _subnet(text: str) -> IPNetwork:
    """``10.5.43.0/24``, or as it stands in a key: ``10.5.43.0-24``."""
    try:
        return ip_network(text.replace("-", "/"))
    except ValueError:
        raise UsageError(f"'{printable(text)}' is no subnet; expected one such as 10.5.43.0/24") from None


def _address(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise UsageError(f"'{printable(text)}' is neither a subnet (10.5.43.0/24) nor a host's address") from None


def _all(subnets: tuple[IPNetwork, ...]) -> str:
    return " and ".join(map(str, subnets))


# --- list ------------------------------------------------------------------------------------------------------------


async def _list(parsed: Parsed[StoreChoice]) -> Snapshot:
    async with open_store(parsed, LIST_SECONDS) as store:
        return await store.list()


def _entries(snapshot: Snapshot, *, expiry: bool) -> Iterator[Entry]:
    for lease in sorted(snapshot.leases, key=lambda lease: (lease.created, lease.key)):
        yield Entry(
            lease.key,
            tuple(map(str, lease.subnets)),
            tuple(str(endpoint.public_ip) for endpoint in lease.endpoints),
            lease.backend_type,
            lease.created,
            lease.expires,
            reserved=expiry and lease.expires is None,
        )
    for broken in snapshot.malformed:
        yield Entry(broken.key, tuple(map(str, named_subnets(broken.key))), malformed=broken.reason)


def _cells(entry: Entry, now: float) -> tuple[str, ...]:
    if entry.malformed is not None:
        return "", "", "", "", entry.malformed
    until = _expiry(entry.expires, now, reserved=entry.reserved)
    return " ".join(entry.public_ips), entry.backend_type, until, str(entry.created), ""


def _expiry(expires: float | None, now: float, *, reserved: bool) -> str:
    if expires is None:
        return "never, reserved" if reserved else "never"
    return f"in {duration(expires - now)}" if expires > now else "now"


# --- release ---------------------------------------------------------------------------------------------------------


async def _release(parsed: Parsed[StoreChoice], subnet: IPNetwork, *, yes: bool, force: bool) -> int:
    async with open_store(parsed, LIST_SECONDS) as store:
        entry = _holder(await store.list(), subnet, store.location)
        if isinstance(entry, Lease) and not force:
            _refuse_own(parsed, store, entry)
    told = _told(entry, "expiry" in parsed.store_class.capabilities)
    if not yes and not _confirmed(f"{subnet} is {told}. Release it?"):
        say("Nothing was released.")
        return EXIT_FAILED
    async with open_store(parsed) as store:  # anew: the answer may have taken long
        if isinstance(entry, Malformed):
            await store.release(subnet)
        elif not await store.give_up(entry):
            raise FlannelError(f"{subnet} was released or given to another host just now; nothing was done")
    say(f"{subnet} is released; it was {clean(told)}")
    return EXIT_OK


def _holder(snapshot: Snapshot, subnet: IPNetwork, location: str) -> Lease | Malformed:
    """Raises NoSuchLease."""
    entries: tuple[Lease | Malformed, ...] = (*snapshot.leases, *snapshot.malformed)
    for entry in entries:
        if subnet in (entry.subnets if isinstance(entry, Lease) else named_subnets(entry.key)):
            return entry
    other = overlapping([subnet], snapshot.leases)
    hint = f"; {_all(other.subnets)} is, to {addresses(other)}" if other else ""
    raise NoSuchLease(f"{subnet} is leased to nobody in {location}{hint}")


def _refuse_own(parsed: Parsed[StoreChoice], store: SubnetStore[Any], lease: Lease) -> None:
    """Raises FlannelError if the agent of this host's state directory is at work and holds ``lease``."""
    try:
        status = msgspec.json.decode(ask(parsed.options.subnet_file, "/status"), type=Status)
    except (FlannelError, msgspec.MsgspecError):
        return
    here = f"{parsed.store_name} {store.location}".strip()
    if status.lease and status.store and (status.lease.key, status.store.name) == (lease.key, here):
        raise FlannelError(
            f"{_all(lease.subnets)} is the lease of the agent at work here (pid {status.pid}), which would take it "
            "again; stop it first, or release it with --force"
        )


def _told(entry: Lease | Malformed, expiry: bool) -> str:
    """What ``entry`` says, after the words "10.5.43.0/24 is". ``expiry``: its store knows leases that expire."""
    if isinstance(entry, Malformed):
        return f"held by nobody: its entry is malformed ({entry.reason})"
    until = _expiry(entry.expires, time.time(), reserved=expiry and entry.expires is None)
    return ", ".join(filter(None, (f"held by {addresses(entry)}", entry.backend_type, f"expires {until}")))


def _confirmed(question: str) -> bool:
    """Raises UsageError where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"{question} There is no terminal to answer at; --yes answers")
    say("If that host is at work, its pods may lose their network: whether it is cannot be seen from here.")
    return input(f"{clean(question)} [y/N] ").strip().lower() in ("y", "yes")


# --- reserve ---------------------------------------------------------------------------------------------------------


async def _reserve(parsed: Parsed[StoreChoice], subnets: ByFamily[IPNetwork], hosts: ByFamily[IPAddress]) -> Lease:
    wanted = tuple(subnets[family] for family in FAMILIES if family in subnets)
    async with open_store(parsed, LIST_SECONDS) as store:
        key = key_of(wanted)
        holder = next((lease for lease in (await store.list()).leases if lease.key == key), None)
        if not hosts:
            if holder is None:
                raise NoSuchLease(
                    f"{_all(wanted)} is leased to nobody in {store.location}; to keep it for a host, give the address "
                    "that this host is reached at as well"
                )
            return await store.reserve(holder)
        if holder is None:
            await _check_fit(store, wanted)
        ipv4, ipv6 = (Endpoint(subnets[f], hosts[f]) if f in subnets else None for f in FAMILIES)
        return await store.reserve(Lease(key, ipv4=ipv4, ipv6=ipv6))


async def _check_fit(store: SubnetStore[Any], subnets: tuple[IPNetwork, ...]) -> None:
    """Raises FlannelError if no host would take ``subnets`` by the configuration that stands in the store. Without one
    that cannot be told."""
    async for found in store.config():
        if found.text is None:
            return
        config = parse_config(found.text, found.source)
        if fits(config, subnets):
            return
        spaces = (space for space in (config.ipv4, config.ipv6) if space is not None)
        ranges = " and ".join(f"a /{s.subnet_length} from {s.subnet_min} to {s.subnet_max}" for s in spaces)
        raise FlannelError(f"no host would take {_all(subnets)}: by {found.source} a host takes {ranges}")
