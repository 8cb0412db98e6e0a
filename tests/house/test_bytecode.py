"""A start without bytecode takes twice as long, so what make installs is compiled, whatever the environment says."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def uncompiled(*trees: Path) -> list[Path]:
    sources = [path for tree in trees for path in tree.rglob("*.py")]
    assert sources
    return [path for path in sources if not Path(importlib.util.cache_from_source(path)).exists()]


def test_make_compiles_the_trees_of_a_checkout(tmp_path: Path) -> None:
    trees = ("flannel_core", "backends/one/flannel_backend_one", "stores/two/flannel_store_two")
    for tree in trees:
        (tmp_path / tree / "inner").mkdir(parents=True)
        (tmp_path / tree / "inner/module.py").write_text("value = 1\n")
        (tmp_path / tree).with_name("pyproject.toml").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    result = subprocess.run(
        ["make", "compile", f"BIN={Path(sys.executable).parent}", "STAMP="],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert uncompiled(*(tmp_path / tree for tree in trees)) == []


def test_an_environment_that_make_installed_is_compiled_whole() -> None:
    """One that something else made (tox, uv by hand) is its maker's affair."""
    if (Path(sys.prefix) / "installed").exists():
        ours = [
            ROOT / "flannel_core",
            *ROOT.glob("backends/*/flannel_*"),
            *ROOT.glob("stores/*/flannel_*"),
            ROOT / "cni/flannel_cni",
        ]
        assert uncompiled(Path(sysconfig.get_path("purelib")), *ours) == []
