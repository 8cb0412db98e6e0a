"""What docs/explanation/plugins.md shows is what stands in the packages of this directory."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BLOCKS = re.findall(
    r"```(?:python|toml)\n(.*?)```", (HERE.parents[1] / "docs/explanation/plugins.md").read_text(), flags=re.DOTALL
)
FILES = {str(path.relative_to(HERE)): path.read_text() for path in HERE.glob("*/*.*") if path.suffix != ".pyc"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().partition("\n")[0])
def test_a_block_of_the_tutorial_stands_in_a_package(block: str) -> None:
    method = textwrap.indent(block, "    ")
    assert [name for name, text in FILES.items() if block in text or method in text]


@pytest.mark.parametrize("name", ["pyproject.toml", "flannel_backend_onlink.py", "test_onlink.py"])
def test_the_tutorial_shows_the_whole_backend(name: str) -> None:
    assert FILES[f"backend/{name}"] in BLOCKS
