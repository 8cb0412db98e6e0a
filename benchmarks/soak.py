"""kill -9 of random agents at random moments, over and over: each time the same end state, and no packet lost.

Prints its seed, which makes the same choices again. ``make soak``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from itertools import permutations

from flannel_core.lab import Host, Lab, LabError
from flannel_core.lab.pings import Pinging

LONGEST_PAUSE = 0.5
"""Seconds between two kills: about what a start takes, so that many agents die while they start."""
PING_INTERVAL = 0.025
END_SECONDS = 10.0


def kill_some(hosts: list[Host], choice: random.Random, counts: Counter[str]) -> set[Host]:
    """Kill and start random agents a few times. Returns the hosts whose agent was killed."""
    victims = choice.sample(hosts, choice.randint(1, len(hosts) - 1))
    for victim in victims:
        for _ in range(choice.randint(1, 3)):
            time.sleep(choice.uniform(0, LONGEST_PAUSE))
            counts["kills"] += 1
            counts["while they started"] += not victim.ready()
            victim.kill()
            victim.start()
    return set(victims)


def state(hosts: list[Host]) -> list[tuple[object, ...]]:
    """What must be the same after every round: subnets and how each host reaches the others."""
    return [
        (host.env.subnets, sorted(host.run("ip route").splitlines()), sorted(host.run("ip -6 route").splitlines()))
        for host in hosts
    ]


def one_round(lab: Lab, hosts: list[Host], choice: random.Random, counts: Counter[str]) -> None:
    """Raises LabError if the end state is not the one before, or if a packet between unharmed hosts is lost."""
    before = state(hosts)
    flows = [(a, b, flow) for a, b in permutations(hosts, 2) for flow in a.flows(b)]
    with Pinging([flow for _, _, flow in flows], PING_INTERVAL) as pings:
        victims = kill_some(hosts, choice, counts)
        lab.wait_until_ready(hosts, END_SECONDS)
        lab.eventually(lambda: not any(host.plan() for host in hosts), END_SECONDS)
    counts["pings"] += pings.sent
    for (a, b, (_, address)), probes in zip(flows, pings.probes, strict=True):
        lost = sum(probe.answered is None for probe in probes)
        if {a, b} & victims:
            counts["lost with a killed agent"] += lost
        elif lost:
            raise LabError(f"{lost} pings lost from {a.name} to {b.name} ({address}), whose agents were not killed")
    if unanswered := [ping for ping in lab.ping_table() if ping.milliseconds is None]:
        raise LabError(f"no answer: {unanswered}")
    if (after := state(hosts)) != before:
        raise LabError(f"the end state differs:\n{before}\n{after}")
    if len({subnet for host in hosts for subnet in host.env.subnets}) != sum(len(host.env.subnets) for host in hosts):
        raise LabError(f"a subnet is held twice: {[host.env.subnets for host in hosts]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--backend", default="vxlan")
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run's choices")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    choice, counts, began = random.Random(seed), Counter[str](), time.monotonic()
    try:
        with Lab() as lab:
            hosts = lab.hosts(options.hosts, backend=options.backend, ipv6=True)
            lab.eventually(lambda: all(ping.milliseconds for ping in lab.ping_table()))
            lab.eventually(lambda: not any(host.plan() for host in hosts))
            for number in range(1, options.rounds + 1):
                counts["rounds"] = number
                one_round(lab, hosts, choice, counts)
    except LabError as error:
        print(f"round {counts['rounds']}, seed {seed}: {error}", file=sys.stderr)
        return 1
    print(
        f"{counts['rounds']} rounds, {counts['kills']} agents killed, {counts['while they started']} in a start; "
        f"{counts['pings']} pings, 0 lost between hosts whose agents were not killed, "
        f"{counts['lost with a killed agent']} with the others; the same end state each time, no subnet twice; "
        f"{time.monotonic() - began:.0f} s, seed {seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
