"""A virtual host: a machine, the agent on it, and the pod behind it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from flannel_core import subnet_env

from .agents import Agent, Options
from .network import LabError, Machine, Pod, execute, interface_of
from .pings import SMALL, Pinging, ping_all
from .stores import LabStore

PING_SECONDS = 1.0


class Host(Agent):
    """What a transcript speaks of: ``a.run("ip route del ...")``, ``a.pings(b)``, ``a.kill()``.

    Two hosts of different networks may share one machine.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        pod: Pod,
        store: LabStore,
        directory: Path,
        options: Options,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(name, machine.namespace, directory, options, environment)
        self.machine = machine
        self.pod = pod
        self.store = store

    def run(self, command: str) -> str:
        """Run one command on the host as root and return what it prints. Raises LabError if it fails."""
        return execute(self.namespace, command, self.environment)

    def runs(self, program: Path) -> None:
        """Have ``program`` as the host's flanneld from the next start on: ours, or another that takes Go flannel's
        options. The machine forwards from now on, which of the two only ours sees to."""
        self.program = program
        if self.machine.ipv4:
            self.run("sysctl --quiet net.ipv4.ip_forward=1")
        if self.machine.ipv6:
            self.run("sysctl --quiet net.ipv6.conf.all.forwarding=1")

    def run_in_pod(self, command: str) -> str:
        """Run one command in the pod's namespace."""
        return execute(self.pod.namespace, command, self.environment)

    @property
    def env(self) -> subnet_env.SubnetEnv:
        """subnet.env. Raises LabError while there is none."""
        found, unreadable = subnet_env.read(self.subnet_file)
        if found is None:
            raise LabError(f"{self.name} has no subnet.env: {unreadable or 'not written yet'}\n{self.explain()}")
        return found

    @property
    def subnet(self) -> IPv4Network:
        """The host's IPv4 subnet. Raises LabError if it has none."""
        for subnet in self.env.subnets:
            if isinstance(subnet, IPv4Network):
                return subnet
        raise LabError(f"{self.name} has no IPv4 subnet")

    @property
    def subnet6(self) -> IPv6Network:
        """The host's IPv6 subnet. Raises LabError if it has none."""
        for subnet in self.env.subnets:
            if isinstance(subnet, IPv6Network):
                return subnet
        raise LabError(f"{self.name} has no IPv6 subnet")

    def serve_pod(self) -> None:
        """Give the pod its addresses out of subnet.env as it now stands."""
        env = self.env
        self.pod.give(tuple(interface_of(subnet) for subnet in env.subnets), env.mtu)

    def flows(self, other: Host, family: int | None = None) -> list[tuple[str, str]]:
        """From this host's pod to the other's, in ``family`` (4, 6) or every family that the other has."""
        self.serve_pod()
        other.serve_pod()
        addresses = other.pod.addresses
        return [(self.pod.namespace, addresses[f]) for f in sorted(addresses) if family in (None, f)]

    def pings(self, other: Host, family: int | None = None, within: float = PING_SECONDS) -> bool:
        """Whether the other's pod answers this one's, in every family there is."""
        flows = self.flows(other, family)
        return bool(flows) and all(probe.answered for probe in ping_all(flows, within))

    def pinging(self, other: Host, family: int | None = None, interval: float = 0.02, size: int = SMALL) -> Pinging:
        """Ping the other's pod all the time while the ``with`` block runs: ``.lost`` counts what got no answer."""
        return Pinging(self.flows(other, family), interval, size)
