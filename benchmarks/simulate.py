"""Random sequences of everything that goes wrong: in the end all is as a fresh agent would have it, and nobody else's.

A thousand in memory, a hundred on hosts in namespaces. Prints its seed, and of a sequence that ends otherwise all that
was done. ``make simulate``.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable

from flannel_core.errors import FlannelError
from flannel_core.lab import Lab
from flannel_core.lab.faults import sequence
from flannel_core.lab.simulation.sequences import simulate

SEQUENCES_PER_SCENE = 5
"""So many sequences happen to the same hosts in namespaces, one after the other."""


def in_memory(first: int, count: int) -> tuple[int, int]:
    """Steps, and wrong ends."""
    return _count([lambda seed=seed: simulate(seed) for seed in range(first, first + count)])  # type: ignore[misc]


def in_namespaces(first: int, count: int) -> tuple[int, int]:
    """Steps, and wrong ends. Says how far it is: this takes some seconds each."""
    steps = wrong = 0
    for start in range(first, first + count, SEQUENCES_PER_SCENE):
        seeds = range(start, min(start + SEQUENCES_PER_SCENE, first + count))
        with Lab() as lab:
            scene = sequence.prepare(lab, start)
            done, bad = _count([lambda seed=seed: len(sequence.play(scene, seed)) for seed in seeds])  # type: ignore[misc]  # noqa: B023
        print(f"  seeds {start} to {seeds[-1]}, {scene.combination}: {done} steps", flush=True)
        steps, wrong = steps + done, wrong + bad
    return steps, wrong


def _count(sequences: list[Callable[[], int]]) -> tuple[int, int]:
    steps = wrong = 0
    for play in sequences:
        try:
            steps += play()
        except FlannelError as error:
            wrong += 1
            print(error, flush=True)
    return steps, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=1000, help="how many sequences in memory")
    parser.add_argument("--namespaces", type=int, default=100, help="how many on hosts in namespaces")
    parser.add_argument("--seed", type=int, default=None, help="of the first sequence; the others follow")
    options = parser.parse_args()
    logging.disable()  # the simulated agents say a lot
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    failed = 0
    for name, play, count in (("memory", in_memory, options.memory), ("namespaces", in_namespaces, options.namespaces)):
        began = time.monotonic()
        steps, wrong = play(seed, count)
        failed += wrong
        print(
            f"{count} sequences in {name}, {steps} steps: {wrong} wrong end states; "
            f"{time.monotonic() - began:.0f} s, seeds {seed} to {seed + count - 1}",
            flush=True,
        )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
