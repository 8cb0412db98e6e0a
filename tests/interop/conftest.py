"""Clusters of our flanneld and Go's on one etcd, and the table of what came out of it.

They run when FLANNELD_GO names a Go flanneld v0.28.9, got by hand: this repository holds none, nor a way to build one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest

from flannel_core.lab import Host, Lab

HERE = Path(__file__).parent
GO_FLANNELD = os.environ.get("FLANNELD_GO", "")
LACKING = "FLANNELD_GO does not name a Go flanneld v0.28.9 (make interop FLANNELD_GO=/path/to/flanneld)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not GO_FLANNELD:
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason=LACKING))


@pytest.fixture(scope="session")
def go_flanneld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Under the name that it has on a host: by that ours knows it."""
    link = tmp_path_factory.mktemp("go") / "flanneld"
    link.symlink_to(Path(GO_FLANNELD).resolve(strict=True))
    return link


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


class Cluster:
    """Three hosts on one etcd: ``go`` and ``other`` run Go flannel, ``ours`` runs this project."""

    def __init__(self, lab: Lab, hosts: list[Host], go_flanneld: Path) -> None:
        self.lab = lab
        self.hosts = hosts
        self.go, self.ours, self.other = hosts
        self.go_flanneld = go_flanneld
        for host in (self.go, self.other):
            host.runs(go_flanneld)

    def start(self, *hosts: Host) -> None:
        """One after the other, each ready before the next."""
        for host in hosts:
            host.start()
            self.lab.wait_until_ready([host])

    def switch(self, host: Host, program: Path) -> None:
        """Replace a host's flanneld in place, as an upgrade does."""
        host.stop()
        host.runs(program)
        self.start(host)

    def flows(self) -> list[tuple[str, str]]:
        """From each pod to each other, in every family."""
        return [flow for source, target in permutations(self.hosts, 2) for flow in source.flows(target)]

    def all_ping(self) -> bool:
        return all(source.pings(target) for source, target in permutations(self.hosts, 2))


@pytest.fixture(scope="session")
def new_cluster(go_flanneld: Path) -> Callable[[Lab, list[Host]], Cluster]:
    """Makes a Cluster of three hosts that were not started yet."""
    return lambda lab, hosts: Cluster(lab, hosts, go_flanneld)


@pytest.fixture
def cluster(lab: Lab, new_cluster: Callable[[Lab, list[Host]], Cluster]) -> Cluster:
    """Three hosts of one vxlan network, running."""
    made = new_cluster(lab, lab.hosts(3, store="etcd", started=False))
    made.start(*made.hosts)
    lab.eventually(made.all_ping)
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests recorded as ``table``: a row, a column, and what to say if it passed."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            properties = dict(getattr(report, "user_properties", ()))
            if "row" in properties and (report.when == "call" or outcome != "passed"):
                said = properties.get("result", "ok") if outcome == "passed" else "FAILED"
                table[properties["row"]][properties["column"]] = said
    if not table:
        return
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    lines = [["", *columns], *([row, *(cells.get(column, "") for column in columns)] for row, cells in table.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.write_sep("=", "mixed clusters")
    for line in lines:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
