"""flannelctl config: everything wrong at once; and a configuration into a store and out of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from flannel_core.flannelctl import open_store
from flannel_core.flannelctl.main import main

TUNNEL = """
    from typing import Annotated

    import msgspec

    from flannel_core.backend import Announcement, Backend
    from flannel_core.hookspecs import hookimpl

    class Options(msgspec.Struct, frozen=True):
        Lanes: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
        Toll: bool = False

    class Tunnel(Backend):
        Options = Options
        async def prepare(self, host, previous, *, dry_run):
            return Announcement(mtu=1400)
        def local(self, node):
            return ()
        def peer(self, node, lease):
            return ()

    @hookimpl
    def flannel_backend():
        return Tunnel
    """
VALID = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "tunnel", "Lanes": 2}}\n'


@pytest.fixture(autouse=True)
def tunnel(distribution: Any) -> None:
    distribution("flannel-backend-tunnel", "[flannel.backends]\ntunnel = tunnel_backend\n", {"tunnel_backend": TUNNEL})


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: bytes) -> str:
        path = tmp_path / "net-conf.json"
        path.write_bytes(text)
        return str(path)

    return write


def test_a_valid_configuration_is_exit_code_0(written: Any, capsys: Any) -> None:
    file = written(VALID)
    assert main(["config", "check", file]) == 0
    assert capsys.readouterr() == (f"{file}: valid\n", "")


def test_all_that_is_wrong_is_said_at_once(written: Any, capsys: Any) -> None:
    file = written(
        b'{"Network": "10.5.0.0/29", "EnableIPv6": 3, "Backend": {"Type": "Tunnel", "lanes": 9, "Toll": "x"}}'
    )
    assert main(["config", "check", file]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    for key in ("Network", "EnableIPv6", "Backend.Lanes", "Backend.Toll"):
        assert any(f": {key} is " in line for line in lines), key


def test_the_same_as_json(written: Any, capsys: Any) -> None:
    file = written(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "tunnel", "Lanes": 9, "Lnes": 1}}')
    assert main(["config", "check", file, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["source"], said["ok"]) == (file, False)
    assert [(e["key"], e["value"]) for e in said["errors"]] == [("Backend.Lanes", "9")]
    assert said["warnings"] == ["Backend.Lnes is not known and has no effect"]


def test_an_unknown_key_of_the_backend_is_a_warning(written: Any, capsys: Any) -> None:
    file = written(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "tunnel", "Lnes": 1}}')
    assert main(["config", "check", file]) == 0
    assert f"{file}: warning: Backend.Lnes is not known" in capsys.readouterr().out


def test_an_uninstalled_backend_is_named_with_its_extra(written: Any, distribution: Any, capsys: Any) -> None:
    info = distribution("flannel-core", "", version="9.9")
    with (info / "METADATA").open("a") as metadata:
        metadata.write("Requires-Dist: flannel-backend-pigeon; extra == 'pigeon'\n")
    assert main(["config", "check", written(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "Pigeon"}}')]) == 1
    out = capsys.readouterr().out
    assert "Backend.Type is \"pigeon\": the backend 'pigeon' is not installed" in out
    assert "pip install 'flannel-core[pigeon]'" in out


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"Backend": 3}',
        b'{"Backend": {"Type": 3}}',
        b"\x1b[31m",
    ],
    ids=["empty", "cut", "list", "null", "binary", "deep", "no-object", "no-type", "escape"],
)
def test_what_is_no_configuration_is_named_and_nothing_breaks(written: Any, capsys: Any, text: bytes) -> None:
    file = written(text)
    assert main(["config", "check", file]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"{file}: ")
    assert "\x1b" not in out


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: Any) -> None:
    assert main(["config", "check", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"flannelctl: {tmp_path}/none: cannot be read: No such file or directory\n"
    assert main(["config", "check", str(tmp_path)]) == 1


def test_a_configuration_goes_into_a_store_and_comes_out_of_it(
    written: Any, filestore: None, tmp_path: Path, capfdbinary: Any
) -> None:
    store = ["--store", "filed", f"--filed-file={tmp_path}/store"]
    assert main(["config", "set", *store, written(VALID)]) == 0
    assert main(["config", "set", written(VALID), *store]) == 0
    assert (tmp_path / "store").read_bytes() == VALID
    capfdbinary.readouterr()
    assert main(["config", "show", *store]) == 0
    assert capfdbinary.readouterr().out == VALID


def test_the_variables_of_flanneld_name_the_store_too(
    written: Any, filestore: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLANNELD_STORE", "filed")
    monkeypatch.setenv("FLANNELD_FILED_FILE", f"{tmp_path}/store")
    assert main(["config", "set", written(VALID)]) == 0
    assert (tmp_path / "store").read_bytes() == VALID


def test_a_configuration_from_standard_input(filestore: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ["--store", "filed", f"--filed-file={tmp_path}/store"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(VALID)))
    assert main(["config", "set", "-", *store]) == 0
    assert (tmp_path / "store").read_bytes() == VALID


def test_standard_input_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(VALID)))
    assert main(["config", "check", "-"]) == 0
    assert "standard input: valid" in capsys.readouterr().out


def test_an_invalid_configuration_never_reaches_the_store(
    written: Any, filestore: None, tmp_path: Path, capsys: Any
) -> None:
    file = written(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "tunnel", "Lanes": 9}}')
    assert main(["config", "set", file, "--store=filed", f"--filed-file={tmp_path}/store"]) == 1
    assert "Backend.Lanes is 9" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_text_in_a_store_cannot_command_the_terminal(
    filestore: None, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").write_bytes(b'{"a":\x1b[31m\n1}')
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["config", "show", "--store=filed", f"--filed-file={tmp_path}/store"]) == 0
    assert capsys.readouterr().out == '{"a":\\x1b[31m\n1}\n'


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "--store=filed"], 1, "/nowhere: there is no network configuration yet"),
        (["show", "--store=filed", "--filed-file=away"], 1, "the store filed does not answer: connection refused"),
        (["show", "--store=filed", "--filed-file=silent"], 1, "does not answer within 0 s: nobody is at home"),
        (["show", "--store=filed", "--filed-fil=x"], 2, "did you mean --filed-file?"),
        (["show", "--store=filed", "word"], 2, "unexpected 'word'"),
        (["show", "--store=nowhere"], 1, "the store 'nowhere' is not installed"),
        (["set", "--store=filed"], 2, "config set takes one file"),
        (["set", "--store=filed", "a", "b"], 2, "config set takes one file"),
        (["set", "--store=filed", "/none"], 1, "/none: cannot be read"),
    ],
)
def test_what_a_store_cannot_answer_is_one_line(
    filestore: None, capsys: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.setattr(open_store, "STORE_SECONDS", 0.2)
    assert main(["config", *words]) == code
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_a_store_that_holds_no_configuration_says_so(
    distribution: Any, filestore: None, written: Any, capsys: Any
) -> None:
    module = "from filed_store import FileStore, hookimpl\nclass Bare(FileStore):\n    capabilities = frozenset()\n"
    module += "@hookimpl\ndef flannel_store():\n    return Bare\n"
    distribution("flannel-store-bare", "[flannel.stores]\nbare = bare_store\n", {"bare_store": module})
    assert main(["config", "set", written(VALID), "--store=bare"]) == 1
    assert "the store bare holds no configuration that could be set" in capsys.readouterr().err
