"""How long what is broken stays broken: everything that breaks, under running pings, in every combination.

Prints a line per case, then the table: in how many combinations, median, longest, pings lost. Fails if one does not
come back within its bound. ``make faults``; with FLANNELD_GO also the hosts that are switched from Go and back.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from flannel_core.lab import LabError
from flannel_core.lab.faults import CASES, COMBINATIONS, Case, Combination, Outcome, Stage, kernel

AT_ONCE = 4
"""Combinations side by side where all wait for an outage to pass. What is measured in milliseconds runs alone."""

Result = tuple[Case, Combination, Outcome | LabError]


def play(cases: Sequence[Case], combination: Combination, outage: float, go: Path | None) -> Iterator[Result]:
    """Each of ``cases`` that happens in ``combination``."""
    with Stage(outage, go) as stage:
        for case in cases:
            if combination not in case.combinations:
                continue
            try:
                yield case, combination, stage.play(case, combination)
            except LabError as error:
                yield case, combination, error


def results(cases: Sequence[Case], outage: float, go: Path | None, repeat: int) -> Iterator[Result]:
    quick, lasting = ([case for case in cases if case.lasts is lasts] for lasts in (False, True))
    for combination in COMBINATIONS:
        for _ in range(repeat):
            yield from play(quick, combination, outage, go)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for some in pool.map(lambda combination: list(play(lasting, combination, outage, go)), COMBINATIONS):
            yield from some


def told(result: Result) -> str:
    case, combination, outcome = result
    if isinstance(outcome, LabError):
        return f"{case!s:64}{combination!s:28}FAILED: {outcome}"
    milliseconds = outcome.seconds * 1000
    return (
        f"{case!s:64}{combination!s:28}{milliseconds:6.0f} ms {outcome.lost:5} of {outcome.sent:6} lost  {outcome.said}"
    )


def table(played: Sequence[Result]) -> Iterator[str]:
    """A line per row, then the summary."""
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in played:
        rows[result[0].row].append(result)
    yield f"{'row':72}{'cases':>6}{'in':>4}{'median ms':>10}{'longest':>8}{'lost':>7}  of{'':8}failed"
    for row, of_row in rows.items():
        fine = [outcome for _, _, outcome in of_row if isinstance(outcome, Outcome)]
        combinations = len({combination for _, combination, _ in of_row})
        times = [outcome.seconds * 1000 for outcome in fine] or [0.0]
        lost, sent = sum(outcome.lost for outcome in fine), sum(outcome.sent for outcome in fine)
        yield (
            f"{row:72}{len(of_row):6}{combinations:4}{statistics.median(times):10.0f}{max(times):8.0f}"
            f"{lost:7}  of {sent:<7}{len(of_row) - len(fine)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="how often each case that lasts no outage happens")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds for which something stays away")
    parser.add_argument("--only", default="", help="the cases whose row or name holds this")
    options = parser.parse_args()
    began = time.monotonic()
    played: list[Result] = []
    with ExitStack() as stack:
        go: Path | None = None
        if named := os.environ.get("FLANNELD_GO"):
            # Under the name that it has on a host: by that ours knows it.
            go = Path(stack.enter_context(TemporaryDirectory())) / "flanneld"
            go.symlink_to(Path(named).resolve(strict=True))
        cases = [
            case
            for case in CASES
            if (options.only in case.row or options.only in str(case)) and (go is not None or not case.needs_go)
        ]
        for result in results(cases, options.outage, go, options.repeat):
            played.append(result)
            print(told(result), flush=True)
    print(*table(played), sep="\n")
    failed = [result for result in played if isinstance(result[2], LabError)]
    alone = [o.seconds * 1000 for case, _, o in played if isinstance(o, Outcome) and case.row == kernel.ROW]
    print(
        f"{len(played)} faults, {len(failed)} not as promised; what the kernel tells of is back after "
        f"{statistics.median(alone or [0]):.0f} ms (median), {max(alone, default=0):.0f} ms at the longest; "
        f"outages of {options.outage:.0f} s; in {time.monotonic() - began:.0f} s"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
