"""What the agent knows, as the values that ``flannelctl status`` and ``flannelctl plan`` print."""

from __future__ import annotations

import datetime
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from . import __version__
from .admission import Admission
from .allocation import fits
from .claim import addresses
from .journal import Journal
from .lease import Lease
from .membership import LOCAL
from .peers import Peers
from .reconciler.diff import PlannedChange
from .reconciler.lanes import Lanes
from .status import (
    REPAIRS_SECONDS,
    BackendStatus,
    ConfigStatus,
    FailureStatus,
    HostStatus,
    LeaseStatus,
    PeerStatus,
    PlanLine,
    RefusedStatus,
    RepairsStatus,
    SpaceStatus,
    Status,
    StoreStatus,
)

if TYPE_CHECKING:
    from .agent import Agent

CONTEST_SECONDS = 300.0
"""How long it is told that another host has asked for our lease."""
REPAIRS_NAMED = 10
"""Objects that the status names: those repaired most often."""


def status_of(agent: Agent) -> Status:
    """Everything the agent knows now; costs one pass over the peers."""
    node, peers, reconciler = agent.member.node, agent.member.peers, agent.member.reconciler
    return Status(
        version=__version__,
        pid=os.getpid(),
        started=agent.started,
        ready=agent.ready,
        writes=reconciler.writes if reconciler else 0,
        waiting_for=agent.waiting_for,
        problems=tuple(_problems(agent)),
        host=_host(agent),
        backend=BackendStatus(
            type=node.config.backend_type,
            announced_ipv4=_text(node.announcement.ipv4_data),
            announced_ipv6=_text(node.announcement.ipv6_data),
            mtu=node.announcement.mtu,
            notes=node.announcement.notes,
            facts=dict(reconciler.state(LOCAL).facts) if reconciler else {},
        )
        if node
        else None,
        lease=_lease(agent),
        store=StoreStatus(
            name=f"{agent.store_name} {agent.store.location}".strip(),
            reachable=agent.store.unavailable is None,
            answered_ago=agent.store_silence,
            reason=agent.store.unavailable,
        ),
        config=ConfigStatus(
            source=agent.config.source,
            ok=agent.config.error is None,
            error=agent.config.error,
        ),
        peers=tuple(_peers(peers, reconciler)) if peers and reconciler else (),
        refused=tuple(
            RefusedStatus(key=refused.key, subnets=refused.subnets, reason=refused.reason)
            for refused in peers.admission.refused.values()
        )
        if peers
        else (),
        space=tuple(_space(agent, peers.admission)) if node and peers else (),
        failures=tuple(
            FailureStatus(
                object=failure.object.describe(),
                reason=failure.reason,
                foreign=failure.foreign,
                retry_in=reconciler.retry_in(failure.object.identity),
            )
            for failure in reconciler.failures()
        )
        if reconciler
        else (),
        repairs=repairs_of(agent.journal, time.time()),
    )


async def plan_of(agent: Agent) -> list[PlanLine]:
    """What the next pass would change; empty where all is as it should be."""
    return [] if agent.member.reconciler is None else lines_of(await agent.member.reconciler.plan())


def lines_of(changes: list[PlannedChange]) -> list[PlanLine]:
    return [
        PlanLine(action=change.action, object=change.object.describe(), cause=change.cause, held=change.held)
        for change in changes
    ]


def _problems(agent: Agent) -> list[str]:
    """What needs a hand, most important first."""
    problems = []
    if agent.waiting_for is not None:
        problems.append(f"waiting for: {agent.waiting_for}")
    if agent.store.unavailable is not None:
        problems.append(f"the store does not answer: {agent.store.unavailable}; forwarding goes on{_as_of(agent)}")
    if agent.member.node is not None and agent.config.error is not None:
        problems.append(f"the last valid configuration is in use: {agent.config.error}")
    if agent.config.pending is not None:
        problems.append(agent.config.pending)
    problems += _outgrown(agent)
    problems += agent.member.lacking()
    problems += _contest(agent)
    if agent.journal.trouble is not None:
        problems.append(agent.journal.trouble)
    if agent.member.peers is not None and agent.member.peers.hold is not None:
        problems.append(f"nothing is removed for now: {agent.member.peers.hold}")
    if agent.member.node is not None:
        config = agent.member.node.config
        problems += agent.member.settings_problems()
        problems += agent.member.rules.problems(config)
    if agent.member.reconciler is not None:
        problems += [f"{failure.object.describe()}: {failure.reason}" for failure in agent.member.reconciler.failures()]
    if agent.member.peers is not None:
        for key, reasons in agent.member.peers.unreachable.items():
            problems += [f"peer {key}: {reason}" for reason in reasons]
        problems += [f"lease {r.key} is refused: {r.reason}" for r in agent.member.peers.admission.refused.values()]
    return problems


def _outgrown(agent: Agent) -> list[str]:
    """A subnet that the configuration has no place for any more, since it changed."""
    lease, chosen = agent.member.own.lease, agent.member.chosen
    if lease is None or chosen is None or not agent.config.ranges or fits(chosen.config, lease.subnets, partly=True):
        return []
    return [
        f"our subnet {' and '.join(map(str, lease.subnets))} lies outside what {agent.config.source} hands out by now "
        "(SubnetMin, SubnetMax); it stays until flanneld is restarted, which takes another"
    ]


def _contest(agent: Agent) -> list[str]:
    own = agent.member.own
    asked = own.rivals.asked_for_ours
    if asked is None or time.time() > asked + CONTEST_SECONDS:
        return []
    when = datetime.datetime.fromtimestamp(asked).astimezone()
    return [
        f"another host is reached at {addresses(own.held)}, too, and asked for our lease at {when:%H:%M:%S}; it was "
        "refused, its own log and status name it: give it an address of its own"
    ]


def _as_of(agent: Agent) -> str:
    if agent.store_silence is None:
        return ""
    heard = datetime.datetime.fromtimestamp(time.time() - agent.store_silence).astimezone()
    kept = ", remembered by an earlier run" if agent.stale else ""
    return f" with the peers as of {heard:%Y-%m-%d %H:%M:%S}{kept}"


def repairs_of(journal: Journal, now: float) -> RepairsStatus:
    """Of the last hour, or of the shorter time that the journal's newest entries reach back."""
    entries = journal.entries()
    seconds = REPAIRS_SECONDS
    if len(entries) == journal.capacity:
        seconds = min(seconds, now - entries[0].time)
    repaired = [entry for entry in entries if entry.action == "repair" and entry.time >= now - seconds]
    named = Counter(entry.object for entry in repaired if entry.count == 1)
    return RepairsStatus(seconds, sum(entry.count for entry in repaired), tuple(named.most_common(REPAIRS_NAMED)))


def _host(agent: Agent) -> HostStatus | None:
    if agent.member.node is None:
        return None
    host = agent.member.node.host
    return HostStatus(
        interface=host.interface,
        mtu=host.mtu,
        addresses=tuple(str(address) for address in (host.ipv4, host.ipv6) if address is not None),
        public_ipv4=str(host.public_ipv4) if host.public_ipv4 else None,
        public_ipv6=str(host.public_ipv6) if host.public_ipv6 else None,
        reason=host.reason,
        others=host.others,
    )


def _lease(agent: Agent) -> LeaseStatus | None:
    lease = agent.member.own.lease
    if lease is None:
        return None
    return LeaseStatus(
        key=lease.key,
        subnets=tuple(map(str, lease.subnets)),
        created=lease.created,
        expires=lease.expires,
        renewed=agent.member.own.renewed,
    )


def _peers(peers: Peers, reconciler: Lanes) -> list[PeerStatus]:
    listed = []
    for key, lease in peers.admission.admitted.items():
        state = reconciler.state(key)
        reasons = [*peers.unreachable.get(key, ()), *(f.reason for f in state.failures)]
        if not state.tried and not reasons:
            reasons.append("not written yet")
        listed.append(
            PeerStatus(
                key=key,
                subnets=tuple(map(str, lease.subnets)),
                public_ips=tuple(str(endpoint.public_ip) for endpoint in lease.endpoints),
                programmed=not reasons,
                why="; ".join(reasons) or None,
                facts=dict(state.facts),
            )
        )
    return listed


def _space(agent: Agent, admission: Admission) -> list[SpaceStatus]:
    """Used: our own subnet and those of the admitted peers."""
    assert agent.member.node is not None
    leases: list[Lease] = list(admission.admitted.values())
    if agent.member.node.lease is not None:
        leases.append(agent.member.node.lease)
    spaces = []
    for space in (agent.member.node.config.ipv4, agent.member.node.config.ipv6):
        if space is None:
            continue
        used = sum(1 for lease in leases for subnet in lease.subnets if subnet.version == space.network.version)
        spaces.append(
            SpaceStatus(network=str(space.network), used=used, free=max(0, space.capacity - used), total=space.capacity)
        )
    return spaces


def _text(data: Any) -> str:
    return "" if data is None else msgspec.json.encode(data).decode()
