"""What a user installs, from wheels in an environment of its own, and what strangers bring to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flannel_core import __version__

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


@pytest.mark.parametrize(("backend", "store"), [("onlink", "sqlite"), ("vxlan", "json"), ("onlink", "json")])
def test_pods_ping_each_other_through_a_strangers_plugin(
    with_strangers: tuple[Installation, Path], backend: str, store: str
) -> None:
    there, _ = with_strangers
    lab = there("flannelctl", "lab", "--hosts", "2", "--backend", backend, "--store", store, "--json").stdout
    assert json.loads(lab)["answered"] == 2
