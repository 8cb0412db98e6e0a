"""What a user installs, from wheels in an environment of its own, and what strangers bring to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flannel_core import __version__
from flannel_core.lab import Lab

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
PINS = str(ROOT / "requirements/pins.txt")
MODULES = {"sqlite": ("flannel_store_sqlite",), "etcd": ("flannel_store_etcd", "grpclib", "google.protobuf")}
"""What comes with each store and with nothing else."""


def environment() -> dict[str, str]:
    """This process's, without what would lead uv or an interpreter to another environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("UV_PYTHON", "VIRTUAL_ENV", "PYTHONPATH")}
    pinned = {"UV_CONSTRAINT": PINS, "UV_BUILD_CONSTRAINT": PINS}
    return kept | pinned | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_SOURCES": "1"}


Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, cwd: Path = ROOT, code: int = 0) -> Done:
    """A command that has to end with ``code``."""
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == code, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done


class Installation:
    """A virtual environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        run(UV, "venv", "--quiet", "--python", sys.executable, path)

    def install(self, *words: str | Path) -> None:
        run(UV, "pip", "install", "--quiet", "--python", self.path / "bin/python", *words)

    def __call__(self, program: str, *words: str | Path, cwd: Path | None = None, code: int = 0) -> Done:
        return run(self.path / "bin" / program, *words, cwd=cwd or self.path, code=code)

    def plugins(self) -> dict[str, str | None]:
        """Why each cannot be used, None for one that can."""
        listed: list[dict[str, Any]] = json.loads(self("flannelctl", "plugins", "--json").stdout)
        return {plugin["name"]: plugin["error"] for plugin in listed}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make dist`` makes."""
    folder = tmp_path_factory.mktemp("wheels")
    run(UV, "build", "--quiet", "--wheel", "--all-packages", "--out-dir", folder)
    return folder


def installed(folder: Path, wheels: Path, extras: Iterable[str]) -> Installation:
    """``pip install flannel-core[...]``. Ours come from the folder only: a registry may hold something else by these
    names."""
    there = Installation(folder)
    names = {"vxlan": "flannel-backend-vxlan", "sqlite": "flannel-store-sqlite", "etcd": "flannel-store-etcd"}
    ours = ["flannel-core", *(names[extra] for extra in extras)]
    there.install("--no-index", "--no-deps", "--find-links", wheels, *ours)
    there.install(f"flannel-core[{','.join(extras)}]")
    return there


@pytest.fixture(scope="session")
def with_sqlite(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Installation:
    return installed(tmp_path_factory.mktemp("installed") / "sqlite", wheels, ("vxlan", "sqlite"))


@pytest.fixture(scope="session")
def with_etcd(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Installation:
    return installed(tmp_path_factory.mktemp("installed") / "etcd", wheels, ("vxlan", "etcd"))


@pytest.fixture(scope="session")
def with_strangers(with_sqlite: Installation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, Path]:
    """Both packages of this directory beside ours, and where their tests are."""
    folder = tmp_path_factory.mktemp("third_party")
    for package in ("backend", "store"):
        shutil.copytree(Path(__file__).with_name(package), folder / package)
    with_sqlite.install("pytest", folder / "backend", folder / "store")
    return with_sqlite, folder


@pytest.mark.drawn(1)
@pytest.mark.parametrize(("store", "other"), [("sqlite", "etcd"), ("etcd", "sqlite")])
def test_an_extra_brings_its_plugin_and_no_other(request: pytest.FixtureRequest, store: str, other: str) -> None:
    there: Installation = request.getfixturevalue(f"with_{store}")
    assert __version__ in there("flanneld", "--version").stderr
    assert there.plugins() == {"vxlan": None, store: None}
    for module in MODULES[store]:
        there("python", "-c", f"import {module}")
    for module in MODULES[other]:
        assert "No module named" in there("python", "-c", f"import {module}", code=1).stderr


@pytest.mark.parametrize(("store", "other"), [("sqlite", "etcd"), ("etcd", "sqlite")])
def test_a_store_that_is_not_installed_is_named_with_its_extra(
    request: pytest.FixtureRequest, store: str, other: str, tmp_path: Path
) -> None:
    there: Installation = request.getfixturevalue(f"with_{store}")
    said = there("flanneld", "--store", other, "--subnet-file", tmp_path / "subnet.env", code=1).stderr
    assert f"pip install 'flannel-core[{other}]'" in said


def test_a_strangers_plugins_are_found(with_strangers: tuple[Installation, Path]) -> None:
    there, _ = with_strangers
    assert there.plugins() == {"vxlan": None, "onlink": None, "sqlite": None, "json": None}


@pytest.mark.parametrize("package", ["backend", "store"])
def test_a_strangers_plugin_keeps_its_promises(with_strangers: tuple[Installation, Path], package: str) -> None:
    there, folder = with_strangers
    there("pytest", "-q", "-c", os.devnull, ".", cwd=folder / package)


@pytest.mark.drawn(1)
@pytest.mark.parametrize(("backend", "store"), [("onlink", "sqlite"), ("vxlan", "json"), ("onlink", "json")])
def test_pods_ping_each_other_through_a_strangers_plugin(
    with_strangers: tuple[Installation, Path], backend: str, store: str
) -> None:
    there, _ = with_strangers
    lab = there("flannelctl", "lab", "--hosts", "2", "--backend", backend, "--store", store, "--json").stdout
    assert json.loads(lab)["answered"] == 2


@pytest.fixture(scope="session")
def single_file(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """flanneld as ``make dist`` makes it, in a folder where nothing else is."""
    file = tmp_path_factory.mktemp("single") / "flanneld"
    run("env", f"PYTHON={sys.executable}", ROOT / "deploy/single-file", wheels, file, "vxlan,sqlite")
    return file


@pytest.fixture
def bare(single_file: Path) -> dict[str, str]:
    """An environment that knows nothing of ours. The file unpacks itself below HOME."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(single_file.parent)}


def test_one_file_is_the_agent_and_with_a_variable_the_operators_command(
    single_file: Path, bare: dict[str, str]
) -> None:
    def said(*words: str, **variables: str) -> Done:
        return subprocess.run([single_file, *words], env=bare | variables, cwd="/", capture_output=True, text=True)

    assert __version__ in said("--version").stderr
    assert "--subnet-file" in said("--help").stdout
    plugins = said("plugins", "--json", PEX_MODULE="flannel_core.flannelctl.main:main")
    assert {plugin["name"]: plugin["error"] for plugin in json.loads(plugins.stdout)} == {"vxlan": None, "sqlite": None}


def test_one_file_holds_what_compiled_modules_every_python_needs(single_file: Path) -> None:
    with zipfile.ZipFile(single_file) as archive:
        compiled = [name for name in archive.namelist() if "/_core.cpython-" in f"/{name}" and "msgspec" in name]
    assert sorted(re.findall(r"cpython-(\d+)", " ".join(compiled))) == ["311", "312", "313", "314"]


def test_an_agent_of_one_file_is_in_the_fabric(single_file: Path, bare: dict[str, str]) -> None:
    with Lab() as lab:
        alone, other = lab.hosts(2, backend="vxlan", store="sqlite", started=False)
        alone.runs(single_file)
        alone.environment = {**alone.environment, **bare, "FLANNELD_STORE": "sqlite"}
        for host in (alone, other):
            host.start()
        lab.wait_until_ready()
        lab.eventually(lambda: alone.pings(other) and other.pings(alone))


def test_extras_that_are_no_plugin_are_an_error(wheels: Path, tmp_path: Path) -> None:
    said = run(
        "env", f"PYTHON={sys.executable}", ROOT / "deploy/single-file", wheels, tmp_path / "f", "vxlan,etc", code=2
    )
    assert "EXTRAS=vxlan,etc" in said.stderr
