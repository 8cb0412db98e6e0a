"""How fast one agent joins a network in which N leases are waiting, and what it costs.

    sudo .venv/bin/python benchmarks/converge.py [--leases 0 1000 5000] [--backend vxlan] [--rounds 5]

Each round starts a fresh flanneld in a fresh namespace of the lab: seconds until subnet.env stands and until every
peer has its route, CPU seconds, resident memory once settled and at its peak, and the objects written. Beside them
stands a bare ``python -c "import asyncio, ssl, json"`` started in the same round, because seconds of one machine say
nothing about another: quote the ratios.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from flannel_core.errors import FlannelError
from flannel_core.lab import Lab
from flannel_core.lab.hosts import Host
from flannel_core.lab.network import UNDERLAY4, inside
from flannel_core.lease import Endpoint, Lease
from flannel_core.lease_json import encode_lease, lease_key
from flannel_core.netlink.tables import read_routes

NETWORK = IPv4Network("10.0.0.0/9")
"""32,768 subnets of /24."""
SETTLE_SECONDS = 5.0
LIMIT_SECONDS = 60.0
PEER_NETWORK = IPv4Network("172.16.0.0/12")
"""Where the peers of vxlan live: they need not exist, only to be routed to."""
ROW = "{:>7} {:>7} {:>22} {:>6} {:>22} {:>6} {:>12} {:>9} {:>7}"


class Round(NamedTuple):
    """One start. Seconds, MiB."""

    bare: float
    subnet_env: float
    routes: float
    cpu: float
    settled: float
    peak: float
    writes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, nargs="+", default=[0, 1000, 5000])
    parser.add_argument("--backend", default="vxlan", choices=["vxlan", "host-gw"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.backend} on sqlite, {arguments.rounds} rounds, medians (minimum to maximum)")
    print(
        ROW.format(
            "leases", "bare s", "subnet.env s", "ratio", "all routes s", "CPU s", "settled MiB", "peak MiB", "writes"
        )
    )
    for leases in arguments.leases:
        rounds = [one_round(arguments.backend, leases) for _ in range(arguments.rounds)]
        bare, env, routes, cpu, settled, peak, writes = zip(*rounds, strict=True)
        print(
            ROW.format(
                leases,
                f"{statistics.median(bare):.3f}",
                spread(env),
                f"{statistics.median(e / b for e, b in zip(env, bare, strict=True)):.1f}",
                spread(routes) if leases else "",
                f"{statistics.median(cpu):.2f}",
                f"{statistics.median(settled):.1f}",
                f"{statistics.median(peak):.1f}",
                int(statistics.median(writes)),
            ),
            flush=True,
        )
    return 0


def spread(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def one_round(backend: str, leases: int) -> Round:
    with Lab() as lab:
        [host] = lab.hosts(1, backend=backend, network=str(NETWORK), started=False)
        fill(Path(host.store.options["file"]), backend, leases)
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", "import asyncio, ssl, json"], check=True)
        bare = time.monotonic() - begin
        begin = time.monotonic()
        host.start()
        subnet_env = until(host, host.subnet_file.exists) - begin
        routes = until(host, lambda: inside(host.namespace, lambda: peer_routes(backend)) >= leases) - begin
        until(host, lambda: host.http("/readyz")[0] == 200)  # /status would build its answer in the agent's memory
        time.sleep(SETTLE_SECONDS)
        assert host.process is not None
        settled, peak = memory(host.process.pid)
        return Round(bare, subnet_env, routes, cpu_seconds(host.process.pid), settled, peak, host.status().writes)


def fill(file: Path, backend: str, leases: int) -> None:
    """Write ``leases`` leases of other hosts straight into the store's table; its triggers do the rest."""
    with sqlite3.connect(file) as connection:
        for number in range(leases):
            subnet = IPv4Network((int(NETWORK.network_address) + ((number + 2) << 8), 24))
            address = PEER_NETWORK[number + 1] if backend == "vxlan" else gateway(number)
            mac = b'{"VNI":1,"VtepMAC":"02:00:%02x:%02x:%02x:%02x"}' % tuple((number + 1).to_bytes(4, "big"))
            lease = Lease(
                lease_key(subnet, None), backend, Endpoint(subnet, address, mac if backend == "vxlan" else None)
            )
            connection.execute(
                "INSERT INTO leases (key, value, expires) VALUES (?, ?, ?)",
                (lease.key, encode_lease(lease).decode(), time.time() + 86_400),
            )
    connection.close()


def gateway(number: int) -> IPv4Address:
    """host-gw needs gateways on the underlay, of which there are few: several peers share one."""
    return UNDERLAY4[100 + number % 100]


def peer_routes(backend: str) -> int:
    """How many peers have their route in this namespace."""
    return sum(
        1
        for row in read_routes(4)
        if row.route.gateway and row.route.destination != "0.0.0.0/0" and row.route.type == "unicast"
    )


def until(host: Host, holds: Callable[[], bool]) -> float:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not holds():
        if time.monotonic() > deadline or not host.running:
            raise FlannelError(host.explain())
        time.sleep(0.002)
    return time.monotonic()


def memory(pid: int) -> tuple[float, float]:
    """Resident now and at its peak, MiB (proc(5): VmRSS, VmHWM)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time so far (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FlannelError as error:
        sys.exit(str(error))
