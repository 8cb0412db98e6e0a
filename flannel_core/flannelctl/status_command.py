"""``flannelctl status``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from ..errors import EXIT_FAILED, EXIT_OK, FlannelError
from ..status import REPAIRS_SECONDS, LeaseStatus, RepairsStatus, Status, StoreStatus
from .agent_socket import DEFAULT_SUBNET_FILE, SubnetFile, ask
from .output import clean, duration, say, show_json, show_table

AnswerT = TypeVar("AnswerT")

MOST_PROBLEMS = 20
"""More at once have a common cause, which stands first; all of them would push it off the screen."""
MOST_REPAIRS = 3
"""Objects that are named; `flannelctl events` tells of all."""


def status(*, json: bool = False, subnet_file: SubnetFile = DEFAULT_SUBNET_FILE) -> int:
    """Show what the agent of this host knows: itself, its peers, its store, and what is wrong.

    Exit code 0 if it is ready and nothing needs a hand, 1 if not, or if no agent answers.

    Parameters
    ----------
    json
        Print everything the agent says, as JSON.
    subnet_file
        The subnet file of the agent that is meant; its socket lies beside it.
    """
    body = ask(subnet_file, "/status")
    found = understood(body, Status, subnet_file)
    if json:
        show_json(body)
    else:
        _show(found, time.time())
    return EXIT_OK if found.healthy else EXIT_FAILED


def understood(body: bytes, wanted: type[AnswerT], subnet_file: Path) -> AnswerT:
    """The agent's answer, decoded. Raises FlannelError for one that an agent of another version gave."""
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FlannelError(
            f"the agent of {subnet_file} answers what this flannelctl does not understand ({error}); "
            "are they of one version?"
        ) from None


def _show(found: Status, now: float) -> None:
    state = "ready" if found.ready else f"not ready, waiting for {clean(found.waiting_for or 'its start to end')}"
    say(f"flanneld {clean(found.version)}, pid {found.pid}, up {duration(now - found.started)}: {state}")
    for problem in found.problems[:MOST_PROBLEMS]:
        say(f"problem: {clean(problem)}")
    if (more := len(found.problems) - MOST_PROBLEMS) > 0:
        say(f"problem: and {more} more (--json lists all)")
    say()
    for label, text in _facts(found, now):
        say(f"{label:<9}{clean(text)}")
    if found.peers:
        say()
        show_table(
            ("PEER", "ADDRESS", "PROGRAMMED"),
            [
                (" ".join(p.subnets) or p.key, " ".join(p.public_ips), "yes" if p.programmed else f"no: {p.why or '?'}")
                for p in found.peers
            ],
        )
    if found.refused:
        say()
        show_table(("REFUSED", "REASON"), [(" ".join(r.subnets) or r.key, r.reason) for r in found.refused])
    if found.failures:
        say()
        show_table(
            ("NOT WRITTEN", "REASON", "NEXT TRY"),
            [
                (f.object, f.reason, "when it changes" if f.retry_in is None else f"in {duration(f.retry_in)}")
                for f in found.failures
            ],
        )


def _facts(found: Status, now: float) -> Iterator[tuple[str, str]]:
    """What there is to say about this host, a line each."""
    if host := found.host:
        public = " ".join(filter(None, (host.public_ipv4, host.public_ipv6))) or "no address"
        yield "host", f"{host.interface}, reached at {public}, MTU {host.mtu}" + _aside(host.reason)
        if host.addresses:
            yield "", f"addresses {' '.join(host.addresses)}"
        if host.others:
            yield "", f"other interfaces {' '.join(host.others)}"
    if backend := found.backend:
        yield "backend", f"{backend.type}, MTU {backend.mtu} inside it"
        for announced in filter(None, (backend.announced_ipv4, backend.announced_ipv6)):
            yield "", f"announces {announced}"
        for note in backend.notes:
            yield "", note
        if backend.facts:
            yield "", ", ".join(f"{name} {value}" for name, value in backend.facts.items())
    yield "lease", _lease(found.lease, now) if found.lease else "none"
    if found.store:
        yield "store", _store(found.store)
    if config := found.config:
        yield "config", f"{config.source}: " + ("valid" if config.ok else config.error or "not valid")
    for space in found.space:
        yield "space", f"{space.network}: {space.used} used, {space.free} free of {space.total} subnets"
    programmed = sum(peer.programmed for peer in found.peers)
    yield "peers", f"{programmed} of {len(found.peers)} programmed, {len(found.refused)} refused"
    yield "writes", f"{found.writes} since the start"
    if found.repairs and found.repairs.count:
        yield "repaired", _repairs(found.repairs)


def _lease(lease: LeaseStatus, now: float) -> str:
    if lease.expires is None:
        until = "never expires"
    elif lease.expires < now:
        until = f"expired {duration(now - lease.expires)} ago"
    else:
        until = f"expires in {duration(lease.expires - now)}"
    return f"{' '.join(lease.subnets)}, {until}"


def _store(store: StoreStatus) -> str:
    answered = "has not answered yet" if store.answered_ago is None else f"answered {duration(store.answered_ago)} ago"
    return f"{store.name}, {answered}" + (
        "" if store.reachable else f", does not now: {store.reason or 'no reason known'}"
    )


def _repairs(repairs: RepairsStatus) -> str:
    times = "once" if repairs.count == 1 else f"{repairs.count} times"
    within = "hour" if repairs.seconds == REPAIRS_SECONDS else duration(repairs.seconds)
    named = [f"{name} ({count})" if count > 1 else name for name, count in repairs.objects[:MOST_REPAIRS]]
    more = repairs.count - sum(count for _, count in repairs.objects[:MOST_REPAIRS])
    return f"{times} in the last {within}: " + ", ".join([*named, *([f"{more} more"] if more else [])])


def _aside(text: str) -> str:
    return f" ({text})" if text else ""
