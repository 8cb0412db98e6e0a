"""The lab: hosts on an underlay, made fast and removed whole."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import TracebackType
from typing import Any, TypeVar

from flannel_core.backend import Backend
from flannel_core.errors import FlannelError
from flannel_core.plugins import PluginBroken, PluginMissing, load_backend

from . import record
from .cloud import LabCloud
from .clouds import lab_cloud
from .hosts import PING_SECONDS, Host
from .network import MOST_MACHINES, LabError, Machine, Pod, Underlay
from .patience import PATIENCE
from .pings import ping, ping_all
from .preflight import lacking, machine_lacks
from .stores import LabStore, lab_store

NETWORK = "10.5.0.0/16"
NETWORK6 = "fc00:5::/48"
START_SECONDS = 20.0
"""How long the agents may take to be ready; far more than they need, for a machine that is busy."""
SETTLE_SECONDS = 5.0
"""How long what is to come about may take, if nothing else is said; a backend may ask for more (its handshake)."""
POLL_SECONDS = 0.02
HEALTHZ_PORT = 8080

T = TypeVar("T")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class PingResult:
    """One ping between two pods: milliseconds, or why there was no answer."""

    source: str
    target: str
    family: int
    milliseconds: float | None
    reason: str


class Lab:
    """A context manager. Everything that it makes is gone when it is left, however that happens."""

    def __init__(self, progress: Progress = lambda _: None) -> None:
        self.id = secrets.token_hex(3)
        self.all_hosts: list[Host] = []
        self.leftovers: list[str] = []
        self._progress = progress
        self._record = record.new_record(self.id)
        self._underlay = Underlay(f"flannel-{self.id}-net")
        self._machines: list[Machine] = []
        self._networks = 0
        self._clouds: dict[str, LabCloud | None] = {}
        self._handshake_seconds = 0.0
        self.directory = self._record.directory

    def __enter__(self) -> Lab:
        if problems := machine_lacks():
            raise LabError("\n".join(problems))
        self._remember(self._underlay.namespace)
        try:
            self._underlay.make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._record.kept:
            self.close()

    def keep(self) -> None:
        """Leave everything standing when the lab is left; ``flannelctl lab clean`` removes it."""
        self._record.kept = True
        self._record.save()

    def close(self) -> None:
        """End every process of the lab and remove all it made; what could not be is named in ``leftovers``."""
        if not self.directory.exists():
            return
        self.leftovers = record.remove(self._record)
        for host in self.all_hosts:
            if host.process is not None:
                host.process.kill()  # one whose environment a test has taken away bears no mark of the lab
                host.process.wait()

    def hosts(
        self,
        n: int = 1,
        *,
        backend: str = "vxlan",
        store: str = "sqlite",
        members: int = 1,
        ipv4: bool = True,
        ipv6: bool = False,
        network: str = NETWORK,
        network6: str = NETWORK6,
        options: Mapping[str, Any] = {},
        on: Sequence[Host] = (),
        configured: bool = True,
        started: bool = True,
    ) -> list[Host]:
        """``n`` hosts of one new network, with their agents ready and their pods addressed.

        ``options`` are further keys of "Backend". ``members`` is how many etcd has, where that is the store. ``on``
        puts the hosts on the machines of these, beside the agents that are there. ``configured`` False: net-conf.json
        is not written, and nothing waited for. ``started`` False: no agent is started. Raises LabError saying
        everything that is lacking, or which host does not get ready and why.
        """
        if started and (problems := lacking(backend, store, ipv6=ipv6)):
            raise LabError("\n".join(problems))
        self._networks += 1
        directory = self.directory / f"network{self._networks}"
        directory.mkdir()
        networks = [text for wanted, text in ((ipv4, network), (ipv6, network6)) if wanted]
        cloud = self.cloud(backend)
        plugin = _plugin(backend)
        self._handshake_seconds = max(self._handshake_seconds, plugin.handshake_seconds)
        shared = lab_store(store, directory, self._underlay.namespace, self.environment, networks, members=members)
        machines = [host.machine for host in on] or self.machines(n, ipv4=ipv4, ipv6=ipv6)
        hosts = [self._host(machine, shared, cloud) for machine in machines]
        if configured:
            config = {
                "EnableIPv4": ipv4,
                "EnableIPv6": ipv6,
                "Backend": {
                    "Type": backend,
                    **(cloud.options if cloud else {}),
                    **(options or plugin.example),
                },
            }
            config |= ({"Network": network} if ipv4 else {}) | ({"IPv6Network": network6} if ipv6 else {})
            shared.set_config(json.dumps(config).encode())
        if started:
            self._progress(f"starting {len(hosts)} agents")
            for host in hosts:
                host.start()
        if started and configured:
            self.wait_until_ready(hosts)
        return hosts

    def cloud(self, backend: str) -> LabCloud | None:
        """The cloud that this backend's machines are in, made when it is asked for first; None: in none."""
        if backend not in self._clouds:
            directory = self.directory / f"cloud-{backend}"
            directory.mkdir()
            self._clouds[backend] = lab_cloud(backend, directory, self._underlay.namespace, self.environment)
        return self._clouds[backend]

    def machines(self, n: int = 1, *, ipv4: bool = True, ipv6: bool = False) -> list[Machine]:
        """``n`` further machines without any flannel on them."""
        first = len(self._machines) + 1
        if first + n - 1 > MOST_MACHINES:
            raise LabError(f"a lab has at most {MOST_MACHINES} machines")
        self._progress(f"making {n} machines")
        machines = [
            Machine(f"h{number}", f"flannel-{self.id}-h{number}", number, ipv4=ipv4, ipv6=ipv6)
            for number in range(first, first + n)
        ]
        self._remember(*(machine.namespace for machine in machines))
        self._machines += machines
        self._underlay.plug_in(machines)
        return machines

    def _host(self, machine: Machine, store: LabStore, cloud: LabCloud | None) -> Host:
        """The next agent of a machine, with a pod and a health port of its own."""
        number = sum(host.machine is machine for host in self.all_hosts)
        name = f"{machine.name}{'' if number == 0 else f'-{number + 1}'}"
        pod = Pod(machine.namespace, f"flannel-{self.id}-{name}-pod", f"cni{number}")
        self._remember(pod.namespace)
        pod.make()
        options: dict[str, str | bool | None] = {
            **store.arguments,
            "iface": "eth0",
            "healthz-ip": "127.0.0.1",
            "healthz-port": str(HEALTHZ_PORT + number),
            "set-sysctls": True,
        }
        environment = self.environment | store.join(name) | (cloud.join(machine) if cloud else {})
        host = Host(name, machine, pod, store, self.directory / name, options, environment)
        self.all_hosts.append(host)
        return host

    @property
    def environment(self) -> dict[str, str]:
        """What the lab's processes are started with: nothing that speaks to a flanneld or a systemd of this machine, or
        to somebody's cloud."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FLANNEL", "AWS_", "CLOUDSDK_", "GCE_", "GOOGLE_")) and name != "NOTIFY_SOCKET"
        }
        return kept | {record.MARK: self.id}

    def _remember(self, *namespaces: str) -> None:
        self._record.namespaces += namespaces
        self._record.save()

    def set_config(self, config: Mapping[str, Any] | str | bytes) -> None:
        """Write net-conf.json, as JSON or as it stands, into the store of the newest network."""
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        self.all_hosts[-1].store.set_config(text.encode() if isinstance(text, str) else text)

    def wait_until_ready(self, hosts: Sequence[Host] | None = None, within: float = START_SECONDS) -> None:
        """Wait for the agents and give the pods their addresses. Raises LabError with what each of the others says."""
        waiting = list(self.all_hosts if hosts is None else hosts)
        everybody = len(waiting)
        deadline = time.monotonic() + within * PATIENCE
        while waiting:
            for host in [host for host in waiting if host.ready()]:
                host.serve_pod()
                waiting.remove(host)
                self._progress(f"{everybody - len(waiting)} of {everybody} agents ready")
            if any(not host.running for host in waiting) or (waiting and time.monotonic() > deadline):
                raise LabError("\n".join(host.explain() for host in waiting))
            time.sleep(POLL_SECONDS if waiting else 0)

    @property
    def settle_seconds(self) -> float:
        """How long these hosts may take for something, a first ping among it, if nothing else is said."""
        return SETTLE_SECONDS + self._handshake_seconds

    def eventually(self, holds: Callable[[], T], within: float | None = None) -> T:
        """Call ``holds`` until what it returns is true, and return that. An error counts as "not yet". Raises LabError
        after ``within`` seconds (``settle_seconds``), with the last answer and what the agents say."""
        within = self.settle_seconds if within is None else within
        deadline = time.monotonic() + within * PATIENCE
        while True:
            try:
                if answer := holds():
                    return answer
                said = f"it is {answer!r}"
            except (FlannelError, OSError) as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise LabError("\n".join([f"not so within {within} s: {said}", *self._explanations()]))
            time.sleep(POLL_SECONDS)

    def _explanations(self) -> list[str]:
        return [host.explain() for host in self.all_hosts]

    def ping_table(self, hosts: Sequence[Host] | None = None, within: float | None = None) -> list[PingResult]:
        """Ping every pod from every other in every family: first at once, for at most ``within`` seconds
        (``settle_seconds``), then those that answered one by one, for the time it takes."""
        chosen = self.all_hosts if hosts is None else hosts
        self._progress("pinging")
        pairs = [(source, target, flow) for source, target in permutations(chosen, 2) for flow in source.flows(target)]
        probes = ping_all([flow for _, _, flow in pairs], self.settle_seconds if within is None else within)
        results = []
        for (source, target, flow), probe in zip(pairs, probes, strict=True):
            if probe.answered:
                probe = ping(*flow, PING_SECONDS)
            family = 6 if ":" in flow[1] else 4
            results.append(PingResult(source.name, target.name, family, probe.milliseconds, probe.reason))
        return results


def _plugin(backend: str) -> type[Backend[Any, Any]]:
    try:
        return load_backend(backend)
    except (PluginMissing, PluginBroken):  # told by the agents, which need it
        return Backend
