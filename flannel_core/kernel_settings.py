"""The settings of this host's kernel, as they are and as they have to be: named, and set where the operator says so."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path

from .errors import FlannelError
from .host import Host
from .host_requirements import (
    CONTAINERS,
    NEIGHBOUR_LIMITS,
    Facts,
    is_strict,
    names,
    problems,
    requirements,
)
from .lease import FAMILIES, Family, IPAddress, Lease
from .netconf import NetworkConfig
from .netlink.tables import route_to
from .objects import Sysctl

LOOK_SECONDS = 10.0
"""How often it is looked at what else has to be set: for peers that have come, a firewall, a loaded module. What is set
already is kept by the reconciler, within two seconds."""
ASKED_PEERS = 20
"""For so many peers the kernel is asked which way packets to them take, where that matters; one is enough to tell."""


class KernelSettings:
    """Those of one agent's host. ``peers`` are always the leases of those that this host sends packets to, ``services``
    the families in which kube-proxy has its rules in iptables."""

    def __init__(self, *, set_sysctls: bool) -> None:
        self._set_sysctls = set_sysctls
        self._look_at = 0.0

    @property
    def are_due(self) -> bool:
        """True if ``wanted`` should be asked again, though nothing is known to have changed."""
        return self._set_sysctls and time.monotonic() >= self._look_at

    def wanted(
        self, config: NetworkConfig, host: Host, peers: Collection[Lease], services: frozenset[Family]
    ) -> list[Sysctl]:
        """What is to be set and kept; nothing unless the operator says so."""
        if not self._set_sysctls:
            return []
        self._look_at = time.monotonic() + LOOK_SECONDS
        found = requirements(config, host, read_facts(host, peers, services))
        return [sysctl for requirement in found for sysctl in requirement.sysctls]

    def problems(
        self, config: NetworkConfig, host: Host, peers: Collection[Lease], services: frozenset[Family]
    ) -> list[str]:
        """A sentence with its cure for everything that is not as it has to be at this moment."""
        facts = read_facts(host, peers, services)
        found = requirements(config, host, facts)
        return problems(found, read_only=facts.read_only, set_sysctls=self._set_sysctls)


def read_facts(
    host: Host, peers: Collection[Lease], services: frozenset[Family], proc_sys: Path = Path("/proc/sys")
) -> Facts:
    """Of the network namespace that the calling thread is in. What cannot be read is left out."""
    sysctls = {name: value for name in names(host) if (value := _read(proc_sys / name)) is not None}
    return Facts(
        sysctls=sysctls,
        read_only=_is_read_only(proc_sys),
        neighbours={family: _neighbours(family, host, peers, sysctls) for family in FAMILIES},
        elsewhere=_elsewhere(host, _addresses(4, peers)) if is_strict(host, sysctls) else None,
        services=services,
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def _is_read_only(proc_sys: Path) -> bool:
    try:
        return bool(os.statvfs(proc_sys).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _addresses(family: Family, peers: Iterable[Lease]) -> Iterable[IPAddress]:
    return (endpoint.public_ip for lease in peers if (endpoint := lease.endpoint(family)) is not None)


def _neighbours(family: Family, host: Host, peers: Collection[Lease], sysctls: dict[str, str]) -> int:
    limit = sysctls.get(f"{NEIGHBOUR_LIMITS[family]}3", "")
    if not limit.isdecimal() or len(peers) + CONTAINERS <= int(limit):
        return 0
    return sum(host.on_link(address) is not None for address in _addresses(family, peers))


def _elsewhere(host: Host, addresses: Iterable[IPAddress]) -> tuple[IPAddress, str] | None:
    for address in islice(addresses, ASKED_PEERS):
        try:
            device = route_to(address).route.device
        except FlannelError:  # no route: nothing comes from there, or nothing is known
            continue
        if device and device != host.interface:
            return address, device
    return None
