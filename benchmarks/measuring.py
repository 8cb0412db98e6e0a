"""What the benchmarks have in common: the leases that wait, and what a process has cost so far."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from flannel_core.errors import FlannelError
from flannel_core.lab.hosts import Host
from flannel_core.lab.network import UNDERLAY4
from flannel_core.lease import Endpoint, Lease
from flannel_core.lease_json import encode_lease, lease_key

NETWORK = IPv4Network("10.0.0.0/9")
"""32,768 subnets of /24."""
PEER_NETWORK = IPv4Network("172.16.0.0/12")
"""Where the peers of vxlan live: they need not exist, only to be routed to."""
SETTLE_SECONDS = 5.0
LIMIT_SECONDS = 300.0


def waiting_lease(backend: str, number: int) -> tuple[str, str]:
    """Key and value of the lease of a host that is not there, ``number`` from 0."""
    subnet = IPv4Network((int(NETWORK.network_address) + ((number + 2) << 8), 24))
    address = PEER_NETWORK[number + 1] if backend == "vxlan" else gateway(number)
    mac = b'{"VNI":1,"VtepMAC":"02:00:%02x:%02x:%02x:%02x"}' % tuple((number + 1).to_bytes(4, "big"))
    lease = Lease(lease_key(subnet, None), backend, Endpoint(subnet, address, mac if backend == "vxlan" else None))
    return lease.key, encode_lease(lease).decode()


def gateway(number: int) -> IPv4Address:
    """host-gw needs gateways on the underlay, of which there are few: several peers share one."""
    return UNDERLAY4[100 + number % 100]


def until(host: Host, holds: Callable[[], bool], pause: float = 0.002) -> float:
    """The moment (monotonic seconds) from which on ``holds``. Raises FlannelError if the agent ends before."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not holds():
        if time.monotonic() > deadline or not host.running:
            raise FlannelError(host.explain())
        time.sleep(pause)
    return time.monotonic()


def memory(pid: int) -> tuple[float, float]:
    """Resident now and at its peak, MiB (proc(5): VmRSS, VmHWM)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time so far (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
