"""The agent pays only for what it runs: which modules a running flanneld has loaded, and that it starts no process."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flannel_core.lab import Lab

ROOT = Path(__file__).parents[2]
BACKENDS = {"alloc": "flannel_backend_alloc", "host-gw": "flannel_backend_host_gw", "vxlan": "flannel_backend_vxlan"}
STORES = {
    "etcd": "flannel_store_etcd",
    "kubernetes": "flannel_store_kubernetes",
    "sqlite": "flannel_store_sqlite",
}
STDLIB_OF = {"etcd": {"http"}, "kubernetes": {"http", "multiprocessing"}, "sqlite": {"sqlite3"}}
"""Costly parts of the standard library that a store may load."""
COSTLY = {"ctypes", "http", "multiprocessing", "sqlite3", "tkinter", "unittest", "xml"}
ON_DEMAND = {"flannel_core.metrics", "flannel_core.rehearsal"}
"""What only an option (--metrics) or a question (flannelctl plan --config) makes the agent load."""
LIBRARIES = {"h11", "msgspec", "pluggy"}
"""All that is not ours and not Python's."""

LIBRARIES_OF = {
    "etcd": {"google", "grpclib", "h2", "hpack", "hyperframe", "multidict"},
    "kubernetes": {"cython_runtime", "kubernetes", "urllib3", "yaml"},
    "sqlite": set[str](),
}
"""What a store's own SDK brings."""
OPTIONAL = {"typing_extensions"}
"""Loaded by msgspec where it happens to be installed."""

OF_PLUGINS = {"flannel_core.config_file", "flannel_core.secret", "flannel_core.threads"}
"""Of the core, and loaded by a plugin that needs it alone."""

FIREWALL = {"nft", *(f"ip{six}tables{part}" for six in ("", "6") for part in ("", "-save", "-restore", "-legacy-save"))}
"""What iptables and nft are called by: the kernel's rules have no other door that all of their versions share."""

AUDIT = """
import atexit
import sys
atexit.register(lambda: print("\\nMODULES", *sys.modules, file=sys.stderr))
STARTING = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
def report(event, arguments):
    if event in STARTING:
        print(f"\\nPROCESS {event} {arguments}", file=sys.stderr)
sys.addaudithook(report)
"""


class Run:
    """An agent's whole life, from its start until the status was asked for and it was stopped."""

    def __init__(self, log: str) -> None:
        self.processes = re.findall(r"^PROCESS .*$", log, flags=re.MULTILINE)
        loaded = re.search(r"^MODULES (.*)$", log, flags=re.MULTILINE)
        assert loaded, log
        self.modules = set(loaded[1].split()) - {"sitecustomize", "__main__"}

        self.tops = {name.partition(".")[0] for name in self.modules}

    @property
    def core(self) -> set[str]:
        """Modules and packages directly in flannel_core."""
        return {".".join(name.split(".")[:2]) for name in self.modules if name.startswith("flannel_core.")}

    @property
    def plugins(self) -> set[str]:
        return {top for top in self.tops if top.startswith("flannel_")} - {"flannel_core"}

    @property
    def libraries(self) -> set[str]:
        return {top for top in self.tops - sys.stdlib_module_names if not top.startswith(("flannel_", "_"))}


def listed() -> set[str]:
    """flannel_core's modules that .importlinter lists as pure or the agent's, and flanneld itself."""
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    sections = (contract[f"importlinter:contract:{part}"] for part in ("pure", "agent"))
    names = {name for section in sections for name in section["source_modules"].split()}
    core = {".".join(name.split(".")[:2]) for name in names if name.startswith("flannel_core.")}
    return core | {"flannel_core.flanneld"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Run]:
    """One agent with a peer per store and backend."""
    audit = tmp_path_factory.mktemp("audit")
    (audit / "sitecustomize.py").write_text(AUDIT)
    found = {}
    for store in STORES:
        for backend in BACKENDS:
            with Lab() as lab:
                hosts = lab.hosts(2, backend=backend, store=store, started=False)
                for host in hosts:
                    host.environment = {**host.environment, "PYTHONPATH": str(audit)}
                    host.start()
                lab.wait_until_ready(hosts)
                hosts[0].status()
                for host in hosts:
                    assert host.stop() == 0
                found[store, backend] = Run(hosts[0].log())
    return found


@pytest.fixture(params=[(store, backend) for store in STORES for backend in BACKENDS], ids=" and ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    choice: tuple[str, str] = request.param
    return choice


@pytest.mark.drawn(4)
def test_the_agent_loads_what_the_import_contract_lists_and_nothing_else_of_the_core(
    case: tuple[str, str], runs: dict[tuple[str, str], Run]
) -> None:
    assert runs[case].core - OF_PLUGINS == listed() - OF_PLUGINS - ON_DEMAND


def test_the_agent_loads_the_two_plugins_it_was_told_to(
    case: tuple[str, str], runs: dict[tuple[str, str], Run]
) -> None:
    store, backend = case
    assert runs[case].plugins == {STORES[store], BACKENDS[backend]}


def test_the_agent_loads_these_libraries_and_no_others(case: tuple[str, str], runs: dict[tuple[str, str], Run]) -> None:
    assert runs[case].libraries - OPTIONAL == LIBRARIES | LIBRARIES_OF[case[0]]
    assert runs[case].tops & COSTLY == STDLIB_OF[case[0]]


def test_the_agent_starts_the_firewalls_tools_and_no_other_process(
    case: tuple[str, str], runs: dict[tuple[str, str], Run]
) -> None:
    programs = {
        Path(program).name for program in re.findall(r"subprocess.Popen \('([^']+)'", "\n".join(runs[case].processes))
    }
    assert len(runs[case].processes) > 0
    assert programs <= FIREWALL, runs[case].processes


def test_the_audit_would_have_noticed_a_process(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    result = subprocess.run(
        [sys.executable, "-c", "import subprocess; subprocess.run(['true'])"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    run = Run(result.stderr)
    assert any("subprocess.Popen" in line for line in run.processes)
    assert "subprocess" in run.modules
