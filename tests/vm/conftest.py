"""The tests of this folder run in a virtual machine, on a kernel with all that flannel can use; it is booted once.

pytest collects them as any others. A second pytest runs all that were selected inside the guest, and each report that
it prints becomes the report of the test out here. ``FLANNEL_VM`` is set in there. It begins with the whole run, beside
the tests that do not look at a clock, which therefore come first.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.lab import Lab, LabError
from flannel_core.lab.vm import VirtualMachine

HERE = Path(__file__).parent
INSIDE = "FLANNEL_VM" in os.environ
WHOLE = "FLANNEL_VM_WHOLE" in os.environ
"""Set by ``make vm``: the tests that are marked ``whole`` run too. Everybody else waits for no more than the rest."""
LIMIT_SECONDS = 7200.0 if WHOLE else 1800.0
MARK = "report of a test: "
"""Before a report, in what the pytest of the guest prints; the report goes to the end of the line."""
EXCERPT = 40
WITHOUT_A_CLOCK = (
    "tests/deploy",
    "tests/third_party",
    "tests/house",
    "tests/pure",
    "tests/cli",
    "tests/kubernetes_api",
    "tests/conformance",
    "backends",
)
"""Folders of the tree that bear a neighbour who takes all of a processor: about as long as the guest takes."""
HANDED_ON = ("FLANNELD_GO", "CI", "FLANNEL_TEST_SEED")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: a case of a long table, run by `make vm` alone")
    if INSIDE:
        config.pluginmanager.register(Reporting(config))
    else:
        config.pluginmanager.register(InTheGuest(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only what `make vm` asks for is left out, and by name: a test that is not run is not a test that was skipped.

    Of the backends' kits, of some 27 checks each, one is run, chosen by FLANNEL_TEST_SEED.
    """
    kits = sorted({_kit(item) for item in items if item.path.is_relative_to(HERE)} - {""})
    chosen = kits[int(os.environ["FLANNEL_TEST_SEED"]) % len(kits)] if len(kits) > 1 else "".join(kits)
    left_out = [
        item
        for item in items
        if not WHOLE and (item.get_closest_marker("whole") or (_kit(item) not in ("", chosen) and not INSIDE))
    ]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    if not INSIDE:
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """The guest's come after those without a clock, and before all others."""
    folders = [HERE.parent.parent / name for name in WITHOUT_A_CLOCK]
    place = next((place for place, folder in enumerate(folders) if item.path.is_relative_to(folder)), None)
    return place if place is not None else len(folders) + (not item.path.is_relative_to(HERE))


def _kit(item: pytest.Item) -> str:
    """Which backend's kit a test belongs to, "" for one that belongs to none."""
    of = item.getparent(pytest.Class)
    return of.nodeid if of is not None and issubclass(of.obj, KernelBackendConformance) else ""


class Reporting:
    """In the guest: prints every report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook, plugins = self._config.hook, self._config.pluginmanager
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        terminal: Any = plugins.get_plugin("terminalreporter")
        terminal.write_line(MARK + json.dumps(data))


class InTheGuest:
    """Out here: has the tests of this folder run in the guest, all at once, and tells of each when it is its turn."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._vm = VirtualMachine()
        self._lines: Queue[str | Exception] = Queue()
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._said: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        tests = [item.nodeid for item in session.items if item.path.is_relative_to(HERE)]
        if not tests or session.config.option.collectonly:
            return
        try:
            self._vm.__enter__()  # in the thread that lasts: the machine ends with the one that began it
        except LabError as error:
            self._lines.put(error)
        else:
            Thread(target=self._run, args=(tests, session.config.rootpath), daemon=True).start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not item.path.is_relative_to(HERE):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        self._vm.close()

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """What the guest reports of one test, awaited; what became of the guest instead, as a failure of the test."""
        found = self._reports[item.nodeid]
        while not found or found[-1].when != "teardown":
            line = self._lines.get()
            if isinstance(line, Exception):
                self._lines.put(line)  # for those that come after
                text = "\n".join([str(line), *self._said[-EXCERPT:]])
                found.append(pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call"))
                break
            _, marked, data = line.partition(MARK)
            if marked:
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(data))
                self._reports[report.nodeid].append(report)
            else:
                self._said.append(line)
        return found

    def _run(self, tests: list[str], directory: Path) -> None:
        """Puts the lines that the pytest in the guest prints into ``_lines``, and at last why there are no more."""
        words = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--basetemp=/run/pytest", *tests]
        handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        environment = {**handed_on, "FLANNEL_VM": "1", **({"FLANNEL_VM_WHOLE": "1"} if WHOLE else {})}
        begun = {"stdout": b"", "stderr": b"", "status": b""}
        try:
            for port, said in self._vm.stream(
                words, within=LIMIT_SECONDS, environment=environment, directory=directory
            ):
                *lines, begun[port] = (begun[port] + said).split(b"\n")
                for line in lines:
                    self._lines.put(line.decode(errors="replace"))
            self._lines.put(LabError("the tests in the virtual machine ended before this one"))
        except Exception as error:  # whatever it is, somebody waits to hear of it
            self._lines.put(error)
