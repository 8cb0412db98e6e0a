"""How long what is broken stays broken: every fault, under running pings, for vxlan and host-gw in IPv4 and IPv6.

Prints median and longest outage; fails only above the 5 s that we promise. ``make faults``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from flannel_core.lab import Host, Lab, LabError
from flannel_core.lab.faults import FAULTS, Fault
from flannel_core.lab.pings import Pinging
from flannel_core.lease import FAMILIES, Family

PROMISED_SECONDS = 5.0
PING_INTERVAL = 0.005


class Outage(NamedTuple):
    """``seconds`` without an answer in either direction, and how many pings got none."""

    seconds: float
    lost: int
    sent: int


def measure(lab: Lab, fault: Fault, a: Host, b: Host, family: Family) -> Outage:
    """Strike once while both pods ping each other, and wait until both reach each other and nothing is left to do."""
    with Pinging(a.flows(b) + b.flows(a), PING_INTERVAL) as pings:
        lab.eventually(lambda: pings.sent > 40)
        fault.strike(a, b, family)
        lab.eventually(lambda: a.pings(b) and b.pings(a) and not a.plan(), PROMISED_SECONDS)
        settled = pings.sent
        lab.eventually(lambda: pings.sent > settled + 40)
    return Outage(pings.outage, pings.lost, pings.sent)


def rows(repeat: int) -> Iterator[tuple[Fault, Family, list[Outage]]]:
    for family in FAMILIES:
        for backend in dict.fromkeys(fault.backend for fault in FAULTS):
            with Lab() as lab:
                a, b = lab.hosts(2, backend=backend, ipv4=family == 4, ipv6=family == 6)
                for fault in (fault for fault in FAULTS if fault.backend == backend):
                    outages = []
                    for _ in range(repeat):
                        # A fresh agent: what is repaired again and again is held off on purpose.
                        a.restart()
                        lab.wait_until_ready([a])
                        lab.eventually(lambda: a.pings(b) and b.pings(a) and not a.plan())  # noqa: B023
                        outages.append(measure(lab, fault, a, b, family))
                    yield fault, family, outages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="how often each fault strikes")
    repeat = parser.parse_args().repeat
    began = time.monotonic()
    everything: list[float] = []
    print(f"{'backend':9}{'family':8}{'fault':28}{'median ms':>10}{'max ms':>8}{'lost':>6} of sent")
    try:
        for fault, family, outages in rows(repeat):
            seconds = [outage.seconds for outage in outages]
            everything += seconds
            lost, sent = sum(o.lost for o in outages), sum(o.sent for o in outages)
            print(
                f"{fault.backend:9}IPv{family:<5}{fault.name:28}{statistics.median(seconds) * 1000:10.0f}"
                f"{max(seconds) * 1000:8.0f}{lost:6} of {sent}",
                flush=True,
            )
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{len(everything)} faults, median {statistics.median(everything) * 1000:.0f} ms, "
        f"longest {max(everything) * 1000:.0f} ms, in {time.monotonic() - began:.0f} s"
    )
    return int(max(everything) >= PROMISED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
