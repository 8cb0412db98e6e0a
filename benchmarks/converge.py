"""How fast one agent joins a network in which N leases are waiting, and what it costs.

    sudo .venv/bin/python benchmarks/converge.py [--leases 0 1000 5000] [--backend vxlan] [--rounds 5]

Each round starts a fresh flanneld in a fresh namespace of the lab: seconds until subnet.env stands and until every
peer has its route, CPU seconds, resident memory once settled and at its peak, and the objects written. Beside them
stands a bare ``python -c "import asyncio, ssl, json"`` started in the same round, because seconds of one machine say
nothing about another: quote the ratios.

    sudo .venv/bin/python benchmarks/converge.py --peer PATH [--store kubernetes | --watch 10000] ...

does it on etcd or on an API server with nodes of 5 KB, in turn with another flanneld that takes the same flags, and
counts requests to the store and what is written to the kernel from outside. With --watch it prints instead how long a
lease takes from its PUT to its route beside so many peers.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from beside import starts, watches
from measuring import NETWORK, SETTLE_SECONDS, cpu_seconds, memory, spread, until, waiting_lease

from flannel_core.errors import FlannelError
from flannel_core.lab import Lab
from flannel_core.lab.network import inside
from flannel_core.netlink.tables import read_routes

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
    parser.add_argument("--peer", type=Path, help="another flanneld to compare with")
    parser.add_argument("--store", default="etcd", choices=["etcd", "kubernetes"], help="with --peer")
    parser.add_argument("--watch", type=int, metavar="PEERS", help="with --peer, on etcd: time one more lease")
    parser.add_argument("--samples", type=int, default=200, help="with --watch: leases in a round")
    arguments = parser.parse_args()
    if arguments.peer:
        if arguments.watch:
            watches(arguments.peer, arguments.backend, arguments.watch, arguments.rounds, arguments.samples)
        else:
            starts(arguments.peer, arguments.backend, arguments.store, arguments.leases, arguments.rounds)
        return 0
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
            connection.execute(
                "INSERT INTO leases (key, value, expires) VALUES (?, ?, ?)",
                (*waiting_lease(backend, number), time.time() + 86_400),
            )
    connection.close()


def peer_routes(backend: str) -> int:
    """How many peers have their route in this namespace."""
    return sum(
        1
        for row in read_routes(4)
        if row.route.gateway and row.route.destination != "0.0.0.0/0" and row.route.type == "unicast"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FlannelError as error:
        sys.exit(str(error))
