"""How flannelctl ends: one line on stderr and an exit code, whatever happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flannel_core import netconf
from flannel_core.flannelctl import main as main_module
from flannel_core.flannelctl import output
from flannel_core.flannelctl.error_reference import config_errors, error_reference
from flannel_core.flannelctl.main import main
from flannel_core.flannelctl.reference import VARIABLES, written

FLANNELCTL = [sys.executable, "-c", "import sys; from flannel_core.flannelctl.main import main; sys.exit(main())"]


@pytest.mark.parametrize(
    "words",
    [["--nonsense"], ["stat"], ["status", "--jsn"], ["status", "extra"], ["config", "check"], ["config", "chek", "x"]],
)
def test_wrong_usage_is_exit_code_2_and_one_line(capsys: Any, words: list[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("flannelctl: ")


@pytest.mark.parametrize("words", [[], ["--help"], ["status", "--help"], ["config", "set", "--help"], ["--version"]])
def test_help_is_exit_code_0(capsys: Any, words: list[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ValueError("oops"), 1, "a mistake of flannelctl itself, please report it: ValueError: oops ("),
    ],
)
def test_no_exception_leaves_it(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, message: str
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(main_module, "_run", fail)
    assert main(["plugins"]) == code
    assert message in capsys.readouterr().err


def test_a_reader_that_goes_away_is_not_told_about_it() -> None:
    # A real pipe whose reading end is closed: Python's own complaint at exit must not show either.
    with subprocess.Popen([*FLANNELCTL, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_plugins_lists_each_one_and_a_broken_one_is_exit_code_1(
    distribution: Any, filestore: None, capsys: Any
) -> None:
    assert main(["plugins", "--json"]) == (1 if any(p["error"] for p in json.loads(capsys.readouterr().out)) else 0)
    distribution("flannel-backend-bad", "[flannel.backends]\nbad = bad_backend\n", {"bad_backend": "import no_such"})
    assert main(["plugins"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "VERSION", "DISTRIBUTION", "ERROR"]
    assert any(line.split() == ["store", "filed", "1.2.3", "flannel-store-filed"] for line in lines)
    assert any("No module named 'no_such'" in line for line in lines)
    assert main(["plugins", "--json"]) == 1
    assert {"backend", "bad"} <= {value for plugin in json.loads(capsys.readouterr().out) for value in plugin.values()}


def test_without_a_plugin_it_says_where_they_come_from(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flannel_core.plugins.entry_points", lambda group: iter(()))
    assert main(["plugins"]) == 0
    assert "pip install 'flannel-core[all]'" in capsys.readouterr().out


def test_a_lab_whose_libraries_are_missing_names_the_extra(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "flannel_core.flannelctl.lab", raising=False)
    monkeypatch.setitem(sys.modules, "flannel_core.lab", None)
    assert main(["lab"]) == 1
    assert "pip install 'flannel-core[lab]'" in capsys.readouterr().err


def test_columns_align_by_what_a_terminal_shows(capsys: Any) -> None:
    output.show_table(("A", "B"), [("網路", 1), ("x", 2), ("", "")])
    assert capsys.readouterr().out == "A     B\n網路  1\nx     2\n\n"


def test_the_reference_pages_say_what_the_code_says() -> None:
    pages = Path(__file__).parents[2] / "docs" / "reference"
    due = [name for name, text in written(pages).items() if text != (pages / name).read_text(encoding="utf-8")]
    assert due == [], "run: python -m flannel_core.flannelctl.reference docs/reference"


def test_the_reference_has_an_example_of_every_mistake_in_a_configuration() -> None:
    source = Path(netconf.__file__).read_text(encoding="utf-8").splitlines()
    places = {
        number
        for number, line in enumerate(source, 1)
        if re.search(r"(?<!def )(_wrong|_mismatch|errors\.append)\(", line)
    }
    met = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != netconf.__file__:
            return None
        met.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert len(config_errors()) > 30
    finally:
        sys.settrace(before)
    assert len(places) > 10
    assert {number: source[number - 1].strip() for number in places - met} == {}


def test_the_errors_are_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "class Ours(FlannelError): ...\nclass UsageError(FlannelError): ...\n"
        "def fail(path, key):\n"
        "    raise Ours(f'{path}: cannot be read') from None\n"
        "    raise UsageError('`-x | -y` take no value')\n"
        "    raise ValueError('nobody sees this one')\n"
        "    raise Ours(f'{path}: {key}')\n"
    )
    page = error_reference(tmp_path, {"nothing": tmp_path / "none"})
    assert page.endswith(
        "\n## flanneld\n| error | code |\n|---|---|\n"
        "| `…: cannot be read` | 1 |\n| `` `-x \\| -y` take no value `` | 2 |\n"
    )


def test_the_reference_names_no_variable_that_no_code_reads() -> None:
    root = Path(__file__).parents[2]
    sources = [*root.glob("flannel_core/*.py"), *root.glob("backends/*/flannel_*/*.py"), *root.glob("stores/*/*/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = re.findall(r"`([A-Z_0-9]+)`", VARIABLES)
    assert len(named) > 8
    assert [name for name in named if f'"{name}"' not in code] == []
