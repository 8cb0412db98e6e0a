"""The import contract (.importlinter) holds, and its lists are complete."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OPERATOR = {"flannelctl", "lab", "conformance", "config_check", "cleanup"}
"""What the agent never loads of flannel_core: it may import what is heavy."""
ENTRY = {"flanneld"}
"""What starts the agent: checked by what it loads when it runs (test_agent_imports.py)."""


def contract() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def names(section: str, key: str) -> set[str]:
    return set(contract()[section][key].split())


def plugin_packages() -> set[str]:
    """Of every directory under backends/ and stores/ that is a distribution."""
    projects = (path for kind in ("backends", "stores") for path in ROOT.glob(f"{kind}/*/pyproject.toml"))
    return {package.name for project in projects for package in project.parent.glob("flannel_*")}


def core_modules() -> set[str]:
    here = ROOT / "flannel_core"
    modules = {path.stem for path in here.glob("*.py")} | {path.parent.name for path in here.glob("*/__init__.py")}
    return modules - {"__init__", "flannel_core"}


def test_the_import_contract_holds() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("importlinter:contract:core", "forbidden_modules"),
        ("importlinter:contract:plugins", "modules"),
    ],
)
def test_the_contract_names_every_plugin(section: str, key: str) -> None:
    assert names(section, key) == plugin_packages()


def test_the_contract_looks_into_every_package() -> None:
    assert names("importlinter", "root_packages") == plugin_packages() | {"flannel_core", "flannel_cni"}


def test_every_module_of_the_cni_plugin_is_held_to_be_lean() -> None:
    modules = {f"flannel_cni.{path.stem}" for path in ROOT.glob("cni/flannel_cni/[!_]*.py")}
    assert names("importlinter:contract:cni", "source_modules") == modules - {"flannel_cni.build"}


def test_every_plugin_is_held_to_be_pure_or_lean() -> None:
    held = names("importlinter:contract:pure", "source_modules") | names(
        "importlinter:contract:agent", "source_modules"
    )
    assert plugin_packages() <= held


def test_every_module_of_the_core_is_pure_or_the_agents_or_the_operators() -> None:
    pure = names("importlinter:contract:pure", "source_modules")
    agent = names("importlinter:contract:agent", "source_modules")
    assert not pure & agent
    listed = {name.split(".")[1] for name in pure | agent if name.startswith("flannel_core.")}
    assert listed | OPERATOR | ENTRY == core_modules()


def test_what_only_an_operator_needs_is_forbidden_to_the_agent() -> None:
    assert names("importlinter:contract:agent", "forbidden_modules") >= {f"flannel_core.{name}" for name in OPERATOR}
