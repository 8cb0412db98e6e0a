"""Our agent and another that takes the same flags, in turn on one store: what ``converge.py --peer`` runs.

Nothing is asked of the agents themselves: requests are counted by the store's server, writes by the kernel's
notifications, time and memory by /proc.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from measuring import LIMIT_SECONDS, NETWORK, SETTLE_SECONDS, cpu_seconds, memory, spread, until, waiting_lease
from waiting_nodes import FIRST_WAITING, Cluster

from flannel_core.errors import FlannelError
from flannel_core.lab import Lab
from flannel_core.lab.hosts import Host
from flannel_core.lab.kubernetes.lab_store import KubernetesLabStore
from flannel_core.lab.network import inside
from flannel_core.lab.programs import FLANNELD
from flannel_core.lab.stores import EtcdLabStore
from flannel_core.netlink import neighbours, routes
from flannel_core.netlink.message import Message, messages
from flannel_core.netlink.socket import (
    NETLINK_ADD_MEMBERSHIP,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_NEIGH,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
)
from flannel_core.objects import BOOT_PROTOCOL, FLANNEL_PROTOCOL

SUBNETS = "/coreos.com/network/subnets/"
LEASE_SECONDS = 86_400
PUTS_AT_ONCE = 100
"""etcd takes 128 operations in a transaction."""
FIRST_ADDED = 30_000
"""The number of the first lease that is added: beyond the subnets that an agent chooses from for itself."""
FEW = 100
PAUSE_SECONDS = 0.002
"""As long as more notifications than FEW are to come, they are read in gulps: woken for each, this process would take a
processor from whom it measures."""
NOTIFICATION_BUFFER = 256 << 20
"""Bytes: what is read after a start has to wait somewhere, some 1.5 KiB for each of 30,000 changes."""
ROUTE_PROTOCOLS = (BOOT_PROTOCOL, FLANNEL_PROTOCOL)
ROW = "{:>7} {:<6} {:>22} {:>23} {:>7} {:>12} {:>9} {:>8} {:>7}"


class Start(NamedTuple):
    """One start. Seconds, MiB, counts."""

    subnet_env: float
    routes: float
    cpu: float
    settled: float
    peak: float
    requests: int
    writes: int


class Etcd:
    """Straight to the server of a lab, over its JSON gateway and one connection."""

    def __init__(self, store: EtcdLabStore, namespace: str) -> None:
        url = urlsplit(store.cluster.members[0].urls[0])
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        inside(namespace, self._connection.connect)
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, path: str, body: dict[str, Any]) -> None:
        self._connection.request("POST", f"/v3/{path}", json.dumps(body))

    def answer(self) -> Any:
        """Of what was sent last."""
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise FlannelError(f"etcd answers {response.status}: {answer.decode()}")
        return json.loads(answer)

    def fill(self, leases: Iterable[tuple[str, str]]) -> None:
        """Write leases, each with an etcd lease of its own, as their hosts would have."""
        batch: list[dict[str, Any]] = []
        for key, value in leases:
            batch.append({"request_put": self.put(key, value, self.grant())})
            if len(batch) == PUTS_AT_ONCE:
                self._write(batch)
        self._write(batch)

    def _write(self, batch: list[dict[str, Any]]) -> None:
        if batch:
            self.send("kv/txn", {"success": batch})
            self.answer()
            batch.clear()

    def grant(self) -> str:
        self.send("lease/grant", {"TTL": LEASE_SECONDS})
        granted: str = self.answer()["ID"]
        return granted

    def put(self, key: str, value: str, lease: str) -> dict[str, str]:
        """The body of a put."""
        return {"key": encoded(SUBNETS + key), "value": encoded(value), "lease": lease}

    def requests(self) -> int:
        """How many calls and streams this etcd has been asked for so far, whoever asked."""
        self._connection.request("GET", "/metrics")
        text = self._connection.getresponse().read().decode()
        return sum(int(float(n)) for n in re.findall(r"^grpc_server_started_total\{.*\} (\S+)$", text, re.MULTILINE))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Notifications:
    """What the kernel of a namespace says about some tables, kept by it until it is read."""

    def __init__(self, namespace: str, *groups: int) -> None:
        self._socket = inside(namespace, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, NOTIFICATION_BUFFER)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def close(self) -> None:
        self._socket.close()

    def wait_for(self, kind: int, count: int, host: Host) -> float:
        """The moment at which that many flannel routes were said to be there (RTM_NEWROUTE) or gone. Raises
        FlannelError if the agent ends before."""
        now = time.monotonic()
        deadline = now + LIMIT_SECONDS
        while count > 0:
            if count > FEW:
                time.sleep(PAUSE_SECONDS)
            self._socket.settimeout(1.0)
            try:
                first = self._socket.recv(65536)
            except TimeoutError:
                if time.monotonic() > deadline or not host.running:
                    raise FlannelError(f"{count} routes are missing\n{host.explain()}") from None
                continue
            now = time.monotonic()
            found = (*messages(first), *self._waiting())
            count -= sum(message.type == kind and is_written_route(message) for message in found)
        return now

    def written(self) -> int:
        """How many of those that wait to be read tell of something that an agent wrote."""
        return sum(is_written_route(message) or is_permanent_neighbour(message) for message in self._waiting())

    def _waiting(self) -> Iterator[Message]:
        """Those that are there already."""
        self._socket.setblocking(False)
        while True:
            try:
                datagram = self._socket.recv(65536)
            except BlockingIOError:
                return
            yield from messages(datagram)


def is_written_route(message: Message) -> bool:
    """A route with a destination that no kernel made; byte 1 of the body is rtm_dst_len, 5 rtm_protocol."""
    kinds = (routes.RTM_NEWROUTE, routes.RTM_DELROUTE)
    return message.type in kinds and message.body[1] > 0 and message.body[5] in ROUTE_PROTOCOLS


def is_permanent_neighbour(message: Message) -> bool:
    """A neighbour or forwarding entry; bytes 8 and 9 of the body are ndm_state."""
    kinds = (neighbours.RTM_NEWNEIGH, neighbours.RTM_DELNEIGH)
    return message.type in kinds and bool(message.body[8] & neighbours.NUD_PERMANENT)


def starts(peer: Path, backend: str, store: str, leases: Sequence[int], rounds: int) -> None:
    """Print what a start costs with so many leases waiting."""
    print(f"{backend} on {store}, {rounds} rounds in turn, medians (minimum to maximum); ratios of pairs")
    print(ROW.format("leases", "agent", "subnet.env s", "all routes s", "CPU s", "settled MiB", "peak MiB", "requests",
                     "writes"))  # fmt: skip
    for count in leases:
        found: dict[str, list[Start]] = {"ours": [], "peer": []}
        with network(backend, store, 2 * rounds, count) as (hosts, server):
            for number, host in enumerate(hosts):
                name = ("ours", "peer")[number % 2]
                host.runs((FLANNELD, peer)[number % 2])
                found[name].append(one_start(host, server, count))
        for name, of_one in found.items():
            print_row(count, name, of_one)
        print_ratios(count, found["ours"], found["peer"])


def print_row(count: int, name: str, of_one: list[Start]) -> None:
    environment, all_routes, cpu, settled, peak, requests, writes = zip(*of_one, strict=True)
    print(
        ROW.format(
            count,
            name,
            spread(environment),
            spread(all_routes) if count else "",
            f"{statistics.median(cpu):.2f}",
            f"{statistics.median(settled):.1f}",
            f"{statistics.median(peak):.1f}",
            int(statistics.median(requests)),
            int(statistics.median(writes)),
        ),
        flush=True,
    )


def print_ratios(count: int, ours: list[Start], peers: list[Start]) -> None:
    def ratio(field: int) -> str:
        pairs = [(a[field], b[field]) for a, b in zip(ours, peers, strict=True)]
        return f"{statistics.median(a / b for a, b in pairs):.3f}" if all(b for _, b in pairs) else ""

    columns = [ratio(field) for field in range(len(Start._fields))]
    print(ROW.format(count, "ratio", columns[0], columns[1] if count else "", *columns[2:]), flush=True)


def one_start(host: Host, server: Etcd | Cluster, count: int) -> Start:
    """Start the host's agent for the first time, let it settle, end it and take back its lease."""
    requests = server.requests()
    told = Notifications(host.namespace, RTNLGRP_IPV4_ROUTE)
    counted = Notifications(host.namespace, RTNLGRP_IPV4_ROUTE, RTNLGRP_NEIGH)
    begin = time.monotonic()
    host.start()
    environment = until(host, host.subnet_file.exists) - begin
    all_routes = told.wait_for(routes.RTM_NEWROUTE, count, host) - begin
    until(host, lambda: is_ready(host))
    time.sleep(SETTLE_SECONDS)
    assert host.process is not None
    pid = host.process.pid
    settled, peak = memory(pid)
    cpu, asked, written = cpu_seconds(pid), server.requests() - requests, counted.written()
    told.close()
    counted.close()
    end(host)
    return Start(environment, all_routes, cpu, settled, peak, asked, written)


def is_ready(host: Host) -> bool:
    try:
        return host.http("/readyz")[0] == 200  # /status would build its answer in our agent's memory
    except OSError:
        return False


def end(host: Host) -> None:
    """As if the host had never been."""
    subnet = host.subnet
    host.kill()
    host.store.release(subnet)
    host.run("ip route flush proto boot scope global type unicast to root 10.0.0.0/8")
    host.run("ip route flush proto 76")
    host.run("sh -c 'ip link del flannel.1 || true'")
    shutil.rmtree(host.directory)


def watches(peer: Path, backend: str, count: int, rounds: int, samples: int) -> None:
    """Print how long one more lease takes from its PUT to its route, beside so many peers."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    with network(backend, "etcd", 2, count) as (hosts, etcd):
        assert isinstance(etcd, Etcd)
        for _ in range(rounds):
            for name, program, host in zip(times, (FLANNELD, peer), hosts, strict=True):
                host.runs(program)
                times[name] += added(host, etcd, backend, count, samples)
    print(f"{backend}, {count} peers, one lease added, from its PUT to its route, {rounds} x {samples} each, ms")
    print(f"{'agent':<6} {'p50':>8} {'p99':>8} {'max':>8}")
    quantiles = {name: percentiles(found) for name, found in times.items()}
    for name, (p50, p99) in quantiles.items():
        print(f"{name:<6} {p50:>8.2f} {p99:>8.2f} {max(times[name]) * 1000:>8.2f}")
    ratios = [a / b for a, b in zip(quantiles["ours"], quantiles["peer"], strict=True)]
    print(f"{'ratio':<6} {ratios[0]:>8.3f} {ratios[1]:>8.3f}", flush=True)


def percentiles(found: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, milliseconds."""
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


def added(host: Host, etcd: Etcd, backend: str, count: int, samples: int) -> list[float]:
    """Seconds, for each of so many leases that are added and taken away again."""
    told = Notifications(host.namespace, RTNLGRP_IPV4_ROUTE)
    host.start()
    told.wait_for(routes.RTM_NEWROUTE, count, host)
    until(host, lambda: is_ready(host))
    time.sleep(SETTLE_SECONDS)
    found = []
    for number in range(FIRST_ADDED, FIRST_ADDED + samples):
        key, value = waiting_lease(backend, number)
        body = etcd.put(key, value, etcd.grant())
        begin = time.monotonic()
        etcd.send("kv/put", body)
        found.append(told.wait_for(routes.RTM_NEWROUTE, 1, host) - begin)
        etcd.answer()
        etcd.send("kv/deleterange", {"key": body["key"]})
        told.wait_for(routes.RTM_DELROUTE, 1, host)
        etcd.answer()
    told.close()
    end(host)
    return found


@contextmanager
def network(backend: str, store: str, machines: int, count: int) -> Iterator[tuple[list[Host], Etcd | Cluster]]:
    """Hosts without agents on a store in which ``count`` leases of others wait."""
    with Lab() as lab:
        hosts = lab.hosts(machines, backend=backend, store=store, network=str(NETWORK), started=False)
        shared, first = hosts[0].store, 0
        server: Etcd | Cluster | None = None
        if isinstance(shared, EtcdLabStore):
            server = Etcd(shared, hosts[0].namespace)
        elif isinstance(shared, KubernetesLabStore):
            server, first = Cluster(shared), FIRST_WAITING
        assert server is not None, store
        server.fill(waiting_lease(backend, number) for number in range(first, first + count))
        yield hosts, server
