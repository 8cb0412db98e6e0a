"""flannelctl install-cni: everything is there, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flannel_core.flannelctl.main import main

DELEGATES = ("bridge", "host-local", "portmap")


class Target:
    """Where a runtime looks; ``put`` installs into it."""

    def __init__(self, directory: Path, program: Path) -> None:
        self.bin = directory / "bin"
        self.conf = directory / "net.d"
        self.program = program
        self.conflist = directory / "cni-conf.json"
        self.bin.mkdir()
        for name in DELEGATES:
            (self.bin / name).touch()

    def put(self, *words: object) -> int:
        options = ["--bin-dir", self.bin, "--conf-dir", self.conf, "--program", self.program, *words]
        return main(["install-cni", *map(str, options)])

    def put_conflist(self, value: Any) -> int:
        self.conflist.write_text(value if isinstance(value, str) else json.dumps(value))
        return self.put("--conflist", self.conflist)

    @property
    def written(self) -> bool:
        return self.conf.exists() or (self.bin / "flannel").exists()


@pytest.fixture
def target(tmp_path: Path, program: Path) -> Target:
    return Target(tmp_path, program)


def conflist(*plugins: Any, **keys: Any) -> dict[str, Any]:
    return {"name": "cbr0", "cniVersion": "1.0.0", "plugins": list(plugins), **keys}


def test_the_configuration_of_go_flannels_manifests(target: Target, capsys: Any) -> None:
    assert target.put() == 0
    written = json.loads((target.conf / "10-flannel.conflist").read_text())
    assert (written["name"], written["cniVersion"]) == ("cbr0", "0.3.1")
    assert written["plugins"] == [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    assert (target.bin / "flannel").read_bytes() == target.program.read_bytes()
    assert f"wrote {target.conf}/10-flannel.conflist" in capsys.readouterr().out
    assert [path.name for path in target.conf.iterdir()] == ["10-flannel.conflist"], "no temporary file"


def test_a_configuration_of_ones_own_is_taken_as_it_stands(target: Target) -> None:
    (target.bin / "ipvlan").touch()
    text = json.dumps(conflist({"type": "flannel", "delegate": {"type": "ipvlan"}, "x": 1}), indent=7)
    assert target.put_conflist(text) == 0
    assert (target.conf / "10-flannel.conflist").read_text() == text


@pytest.mark.parametrize(
    ("plugins", "missing"),
    [
        ([{"type": "flannel"}, {"type": "tuning"}], "tuning"),
        ([{"type": "flannel", "delegate": {"type": "ipvlan"}}], "ipvlan"),
        ([{"type": "flannel", "ipam": {"type": "dhcp"}}], "dhcp"),
        ([{"type": "flannel"}, {"type": "macvlan", "ipam": {"type": "static"}}], "macvlan, static"),
    ],
)
def test_a_plugin_that_is_called_and_not_there(
    target: Target, capsys: Any, plugins: list[dict[str, Any]], missing: str
) -> None:
    assert target.put_conflist(conflist(*plugins)) == 1
    assert f"{target.bin} lacks {missing}, which {target.conflist} calls" in capsys.readouterr().err
    assert not target.written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no CNI configuration list: Input data was truncated"),
        ({"name": "a"}, "missing required field `plugins`"),
        (conflist(), "Expected `array` of length >= 1"),
        (conflist({"type": 5}), "Expected `str`, got `int` - at `$.plugins[0].type`"),
        (conflist({"type": "../flannel"}), "at `$.plugins[0].type`"),
        (conflist({"type": "bridge"}), "none of its plugins has the type 'flannel'"),
        (conflist({"type": "flannel", "delegate": {"type": "a/b"}}), "'a/b' is no type of a plugin"),
        (conflist({"type": "flannel", "delegate": {"type": 5}}), "5 is no type of a plugin"),
        (conflist({"type": "flannel"}, cniVersion="9.0.0"), "does not support cniVersion 9.0.0, only 0.1.0"),
    ],
    ids=repr,
)
def test_a_configuration_that_cannot_be(target: Target, capsys: Any, text: Any, words: str) -> None:
    assert target.put_conflist(text) == 1
    assert words in capsys.readouterr().err
    assert not target.written


def test_a_program_that_is_not_there(target: Target, capsys: Any) -> None:
    target.program = target.conf / "nowhere"
    assert target.put() == 1
    assert "the CNI plugin is not there; `make cni` builds it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF of another machine", "does not run on this host: [Errno 8] Exec format error"),
        (b"#!/bin/sh\necho hello\n", "is no CNI plugin: it does not say what versions it supports"),
    ],
)
def test_a_program_that_is_no_plugin_of_this_host(
    target: Target, capsys: Any, tmp_path: Path, content: bytes, words: str
) -> None:
    target.program = tmp_path / "other"
    target.program.write_bytes(content)
    target.program.chmod(0o755)
    assert target.put() == 1
    assert f"{target.program}: {words}" in capsys.readouterr().err
    assert not target.written


def test_a_configuration_that_comes_before_ours_is_named(target: Target, capsys: Any) -> None:
    target.conf.mkdir()
    for name in ("05-other.conflist", "87-podman.conflist", "00-notes.txt"):
        (target.conf / name).touch()
    assert target.put() == 0
    said = capsys.readouterr().err
    assert f"{target.conf}/05-other.conflist comes before 10-flannel.conflist" in said
    assert "podman" not in said
    assert "notes" not in said


def test_a_directory_that_cannot_be_written(target: Target, capsys: Any) -> None:
    target.conf.write_text("in the way")
    assert target.put() == 1
    assert f"{target.conf}/10-flannel.conflist: cannot be written: " in capsys.readouterr().err


def test_a_running_plugin_can_be_replaced(target: Target) -> None:
    (target.bin / "flannel").symlink_to("/bin/sleep")
    assert target.put() == 0
    assert not (target.bin / "flannel").is_symlink()
    assert Path("/bin/sleep").read_bytes() != target.program.read_bytes()
