"""Every backend and store is a distribution that the root, tox and the import contract know; tox the CNI plugin too."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = [path.parent for kind in ("backends", "stores") for path in sorted(ROOT.glob(f"{kind}/*/pyproject.toml"))]


def project(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / "pyproject.toml").read_text())


def distribution(plugin: Path) -> str:
    return f"flannel-{plugin.parent.name.removesuffix('s')}-{plugin.name}"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
class TestPlugin:
    def test_its_names_follow_from_its_directory(self, plugin: Path) -> None:
        package = distribution(plugin).replace("-", "_")
        assert [path.name for path in plugin.glob("flannel_*")] == [package]
        settings = project(plugin)["project"]
        assert settings["name"] == distribution(plugin)
        assert settings["entry-points"] == {f"flannel.{plugin.parent.name}": {plugin.name: package}}

    def test_it_has_a_readme_and_tests_and_says_that_it_is_typed(self, plugin: Path) -> None:
        assert (plugin / "README.md").is_file()
        assert list(plugin.glob("tests/test_*.py"))
        assert list(plugin.glob("flannel_*/py.typed"))

    def test_the_root_offers_it_as_an_extra(self, plugin: Path) -> None:
        root = project(ROOT)
        extras = root["project"]["optional-dependencies"]
        assert extras[plugin.name] == [distribution(plugin)]
        assert plugin.name in extras["all"][0]
        assert root["tool"]["uv"]["sources"][distribution(plugin)] == {"workspace": True}


@pytest.mark.parametrize("path", [*PLUGINS, ROOT / "cni"], ids=lambda path: path.name)
def test_tox_has_an_environment_for_it_alone(path: Path) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    pythons, _, rest = tox["tox"]["env_list"].partition("-{")
    assert pythons == "py3{11,12,13,14}"
    assert path.name in rest.partition("}")[0].split(",")
    settings = re.findall(r"^(.+): (\w+) = (.+)$", tox["testenv"]["set_env"], re.M)
    its_own = {key: value for names, key, value in settings if path.name in names.split(",")}
    assert its_own["NAME"] == path.name
    assert its_own["DISTRIBUTION"].replace("{env:NAME}", path.name) == project(path)["project"]["name"]
    assert its_own["DIRECTORY"].replace("{env:NAME}", path.name) == str(path.relative_to(ROOT))
