"""Words and variables in Go's syntax, and a refusal where Go would read something else than was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.command_line import decode, go_integer, options_of, read_environment, read_words
from flannel_core.errors import UsageError


class Ship(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "nameless"
    masts: Annotated[int, msgspec.Meta(ge=1, le=7)] = 3
    sails: bool = False
    flag: bool = True
    crew: tuple[str, ...] = ()
    log_file: Path | None = None
    depth: float | None = None
    rig: Literal["sloop", "brig"] = "sloop"
    verbosity: Annotated[int, msgspec.Meta(extra={"option": "v"})] = 0


OPTIONS = options_of(Ship)
KNOWN = {option.name: option for option in OPTIONS}


def read(*words: str, **environ: str) -> Ship:
    found = read_words(words, KNOWN)
    return decode(Ship, OPTIONS, found | read_environment(environ, OPTIONS, found))


def refused(*words: str, **environ: str) -> str:
    with pytest.raises(UsageError) as raised:
        read(*words, **environ)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Ship()),
        (["-name=Ida"], Ship(name="Ida")),
        (["--name=Ida"], Ship(name="Ida")),
        (["-name", "Ida"], Ship(name="Ida")),
        (["--name", "Ida"], Ship(name="Ida")),
        (["--name="], Ship(name="")),
        (["--name", ""], Ship(name="")),
        (["--name=a=b"], Ship(name="a=b")),
        (["--name=two\nlines"], Ship(name="two\nlines")),
        (["--name", "-dashed"], Ship(name="-dashed")),
        (["--name", "-"], Ship(name="-")),
        (["--name=--sails"], Ship(name="--sails")),
        (["--name=a", "--name=b"], Ship(name="b")),
        (["--sails"], Ship(sails=True)),
        (["--sails=false", "-flag=0"], Ship(flag=False)),
        (["--masts", "0x5", "-v=2"], Ship(masts=5, verbosity=2)),
        (["--crew=a,b", "-crew", "c"], Ship(crew=("a,b", "c"))),
        (["--log-file", "/x/y"], Ship(log_file=Path("/x/y"))),
        (["--depth", "2.5"], Ship(depth=2.5)),
        (["--rig", "brig"], Ship(rig="brig")),
        (["--sails", "--"], Ship(sails=True)),
    ],
)
def test_words_are_read_as_go_reads_them(words: list[str], expected: Ship) -> None:
    assert read(*words) == expected


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"])
def test_a_switch_takes_gos_booleans(text: str) -> None:
    assert read(f"--sails={text}").sails is (text[0] in "1tT")


@pytest.mark.parametrize("text", ["", "yes", "on", "tRUE", "2", " true"])
def test_a_switch_takes_nothing_else(text: str) -> None:
    assert refused(f"--sails={text}") == f"--sails={text} does not fit: expected true or false"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--sails", "false"],
            "unexpected 'false' after --sails, which takes no separate word; write --sails=false if",
        ),
        (["Ida"], "unexpected 'Ida'; every option begins with a dash"),
        (["-"], "unexpected '-'"),
        (["--", "Ida"], "unexpected '--'"),
        (["---name=x"], "unexpected '---name=x'"),
        (["--=x"], "unexpected '--=x'"),
        (["--nme=x"], "unknown option --nme; did you mean --name?"),
        (["--LOG_FILE=x"], "unknown option --LOG_FILE; did you mean --log-file?"),
        (["--zzzzzz"], "unknown option --zzzzzz; --help lists what there is"),
        (["--na"], "unknown option --na"),
        (["-name"], "-name needs a value: -name=VALUE"),
        (["--name", "--sails"], "--name needs a value, and --sails is an option itself"),
        (["--masts=8"], "--masts=8 does not fit: expected an integer from 1 to 7"),
        (["-masts=three"], "-masts=three does not fit: expected an integer from 1 to 7"),
        (["--masts="], "--masts= does not fit: expected an integer from 1 to 7"),
        (["-v=many"], "-v=many does not fit: expected an integer"),
        (["--masts=bad", "--masts=2"], "--masts=bad does not fit"),
        (["--rig=galley"], "--rig=galley does not fit: expected sloop or brig"),
        (["--depth=deep"], "--depth=deep does not fit: expected a number"),
        (["--depth=null"], "--depth=null does not fit: expected a number"),
        (["--masts=\x1b[31m"], "--masts=\\x1b[31m does not fit"),
    ],
)
def test_what_go_misreads_is_refused_with_what_would_be_right(words: list[str], message: str) -> None:
    assert message in refused(*words)


def test_a_variable_stands_in_for_an_option_and_the_command_line_wins() -> None:
    environ = {"FLANNELD_NAME": "Ida", "FLANNELD_SAILS": "true", "FLANNELD_LOG_FILE": "/x", "FLANNELD_V": "3"}
    assert read(**environ) == Ship(name="Ida", sails=True, log_file=Path("/x"), verbosity=3)
    assert read("--name=Eva", "--sails=false", **environ) == Ship(name="Eva", log_file=Path("/x"), verbosity=3)


def test_an_empty_variable_counts_as_unset() -> None:
    assert read(FLANNELD_NAME="", FLANNELD_MASTS="", FLANNELD_SAILS="") == Ship()


def test_a_repeatable_option_takes_a_variable_whole() -> None:
    assert read(FLANNELD_CREW="a,b").crew == ("a,b",)
    assert read("--crew=c", FLANNELD_CREW="a,b").crew == ("c",)


def test_a_bad_variable_is_refused_by_its_name() -> None:
    assert refused(FLANNELD_MASTS="9") == "FLANNELD_MASTS=9 does not fit: expected an integer from 1 to 7"
    assert refused(FLANNELD_SAILS="yes") == "FLANNELD_SAILS=yes does not fit: expected true or false"


def test_an_option_without_a_default_is_asked_for() -> None:
    class Needy(msgspec.Struct):
        port: Annotated[int, msgspec.Meta(description="where to")]

    with pytest.raises(UsageError, match=r"--x-port is needed \(where to\)"):
        decode(Needy, options_of(Needy, prefix="x-"), {})


def test_operands_are_gathered_where_they_are_wanted() -> None:
    files: list[str] = []
    read_words(["a", "--sails", "b", "--name", "c", "-"], KNOWN, operands=files)
    assert files == ["a", "b", "-"]
    with pytest.raises(UsageError, match="write --sails=false"):
        read_words(["--sails", "false"], KNOWN, operands=files)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("010", 8),
        ("0o17", 15),
        ("0O17", 15),
        ("0_7", 7),
        ("0b101", 5),
        ("0x_ff", 255),
        ("0XfF", 255),
        ("-0x10", -16),
        ("1_000", 1000),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integers_are_gos(text: str, value: int) -> None:
    assert go_integer(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "08",
        "1__0",
        "_1",
        "1_",
        "0x",
        "0x_",
        "1e3",
        "1.0",
        "--1",
        "٣",
        "0b2",
        "9223372036854775808",
        "1\n",
    ],
)
def test_what_go_takes_for_no_integer_is_none(text: str) -> None:
    assert go_integer(text) is None


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["", "#x", "#o", "#b", "_", "#_x", "#_b"]))
def test_an_integer_comes_back_from_each_way_of_writing_it(value: int, how: str) -> None:
    text = f"{value:_}" if how == "_" else format(value, how)
    assert go_integer(text) == value


WORDS: Any = st.one_of(
    st.text(max_size=8),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["-", "--", "---", ""]),
        st.sampled_from([*KNOWN, "zz", ""]),
        st.sampled_from(["", "=", "=1", "=false", "=x", "=\x00"]),
    ),
)


@given(st.lists(WORDS, max_size=6))
def test_any_line_is_read_or_refused_on_one_line(words: list[str]) -> None:
    message = ""
    try:
        read(*words)
    except UsageError as error:
        message = str(error)
    assert message.isprintable()
