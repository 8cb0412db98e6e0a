"""What the agent tells Prometheus, read from the agent whenever that asks. Loaded for --metrics alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from math import inf
from time import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from .status import LeaseStatus, Status
from .status_report import status_of
from .tally import Durations

if TYPE_CHECKING:
    from .agent import Agent

Value = float | Mapping[str, float] | Durations | None


class Seen(NamedTuple):
    """An agent at one moment."""

    agent: Agent
    status: Status


class Metric(NamedTuple):
    """``value`` is a number, one for each value of ``label``, durations for a histogram, or None while there is none
    to tell."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    value: Callable[[Seen], Value]
    label: str = ""


METRICS = (
    Metric("flannel_build_info", "gauge", "Always 1", lambda seen: {seen.status.version: 1}, "version"),
    Metric("flannel_ready", "gauge", "1 if /readyz answers with 200, else 0", lambda seen: seen.agent.ready_now),
    Metric(
        "flannel_problems",
        "gauge",
        "Problems that flannelctl status lists; anything above 0 needs a hand",
        lambda seen: len(seen.status.problems),
    ),
    Metric(
        "flannel_peers_wanted",
        "gauge",
        "Peers whose leases are trusted: this host has to reach them",
        lambda seen: len(seen.status.peers),
    ),
    Metric(
        "flannel_peers_programmed",
        "gauge",
        "Those of them for which everything on this host is as it should be",
        lambda seen: sum(peer.programmed for peer in seen.status.peers),
    ),
    Metric(
        "flannel_peers_refused",
        "gauge",
        "Leases, or entries that are none, which are not trusted",
        lambda seen: len(seen.status.refused),
    ),
    Metric(
        "flannel_objects_failing",
        "gauge",
        "Objects (routes, devices, rules) that could not be written or removed and are tried again",
        lambda seen: len(seen.status.failures),
    ),
    Metric(
        "flannel_repairs_total",
        "counter",
        "Objects put back because something else had changed or removed them, by their kind",
        lambda seen: _repairs(seen.agent),
        "kind",
    ),
    Metric("flannel_writes_total", "counter", "Objects put or removed", lambda seen: seen.status.writes),
    Metric(
        "flannel_reconcile_duration_seconds",
        "histogram",
        "Seconds that a pass of the reconciler took: reading what is in doubt, writing what differs",
        lambda seen: seen.agent.journal.tally.passes,
    ),
    Metric(
        "flannel_store_reachable",
        "gauge",
        "1 as long as nothing says that the store does not answer, else 0",
        lambda seen: seen.agent.store.unavailable is None,
    ),
    Metric(
        "flannel_store_answer_age_seconds",
        "gauge",
        "Seconds since the store last told anything of the leases, or that it is there; missing until it does",
        lambda seen: seen.agent.store_silence,
    ),
    Metric(
        "flannel_lease_remaining_seconds",
        "gauge",
        "Seconds until this host's own lease expires, +Inf if it never does; missing as long as there is none",
        lambda seen: _remaining(seen.status.lease),
    ),
    Metric(
        "flannel_journal_lost_entries_total",
        "counter",
        "Entries of the journal that never reached its file",
        lambda seen: seen.agent.journal.lost,
    ),
)


def _repairs(agent: Agent) -> Mapping[str, float]:
    """With a zero for each kind that was not repaired yet: of a series that begins with 1, rate() misses the 1."""
    kinds = agent.member.reconciler.kinds if agent.member.reconciler else ()
    return dict.fromkeys(sorted(kinds), 0) | agent.journal.tally.repairs


def _remaining(lease: LeaseStatus | None) -> float | None:
    return None if lease is None else inf if lease.expires is None else lease.expires - time()


class AgentCollector(Collector):
    """Nothing is kept here: each scrape reads the agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Family]:
        seen = Seen(self._agent, status_of(self._agent))
        for metric in METRICS:
            value = metric.value(seen)
            if value is not None:
                yield _family(metric, value)


def _family(metric: Metric, value: float | Mapping[str, float] | Durations) -> Family:
    if isinstance(value, Durations):
        bounds = [*map(str, value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=value.total)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    if not isinstance(value, Mapping):
        return kind(metric.name, metric.help, value=value)
    family = kind(metric.name, metric.help, labels=[metric.label])
    for label, number in value.items():
        family.add_metric([label], number)
    return family


class Metrics:
    """The page of one agent, with the client library's own metrics of the process (memory, CPU, descriptors)."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, agent: Agent) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(AgentCollector(agent))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        return generate_latest(self._registry)


def process_metrics() -> Iterable[Family]:
    """Those that the client library adds."""
    return ProcessCollector(registry=CollectorRegistry()).collect()
