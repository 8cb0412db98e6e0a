"""Log lines: klog's shape, JSON, and that one record is one line whatever is in it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from datetime import datetime

import pytest

from flannel_core.klog import JsonFormatter, StateLog, TextFormatter

KLOG_LINE = re.compile(r"^([IWEF])(\d{4}) (\d\d:\d\d:\d\d\.\d{6}) ([ \d]{7,}) ([\w.]+\.py):(\d+)\] (.*)$")
HOSTILE = ["a\nI0101 00:00:00.000000       1 forged.py:1] b", "\x1b[2J", "\x07\x00", "‮gnp", "\ud800", "\u2028", "\x85"]


class Lines:
    """A logger whose lines can be read back."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        self.log = logging.Logger("flannel_core.test")
        self.log.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().split("\n")[:-1]


@pytest.fixture
def text() -> Lines:
    return Lines(TextFormatter())


@pytest.fixture
def structured() -> Lines:
    return Lines(JsonFormatter())


@pytest.mark.parametrize(
    ("level", "letter"), [("debug", "I"), ("info", "I"), ("warning", "W"), ("error", "E"), ("critical", "F")]
)
def test_a_text_line_has_the_shape_of_klog(text: Lines, level: str, letter: str) -> None:
    getattr(text.log, level)("Wrote subnet file to %s", "/run/flannel/subnet.env")
    match = KLOG_LINE.match(text.lines[0])
    assert match is not None
    assert match[1] == letter
    assert match[4] == f"{os.getpid():7d}"
    assert match[5] == "test_klog.py"
    assert match[7] == "Wrote subnet file to /run/flannel/subnet.env"


def test_the_time_of_a_text_line_is_the_local_one_of_the_record(text: Lines) -> None:
    record = text.log.makeRecord("flannel_core", logging.INFO, "/x/main.py", 228, "hello", (), None)
    record.created = datetime(2025, 11, 24, 8, 49, 30, 250_000).timestamp()
    assert TextFormatter().format(record).startswith("I1124 08:49:30.250000 ")
    assert TextFormatter().format(record).endswith(" main.py:228] hello")


@pytest.mark.parametrize("message", HOSTILE)
def test_a_record_is_one_line_whatever_is_in_it(text: Lines, structured: Lines, message: str) -> None:
    for lines in (text, structured):
        lines.log.info("a lease said %s", message)
        assert len(lines.lines) == 1
        assert lines.lines[0].isprintable()


def test_words_in_any_language_stay_as_they_are(text: Lines) -> None:
    text.log.info("node Zürich-東京 joined")
    assert text.lines[0].endswith("] node Zürich-東京 joined")


def test_an_exception_is_told_on_the_same_line_without_a_traceback(text: Lines) -> None:
    try:
        dict[str, str]()["key\nof two lines"]
    except KeyError:
        text.log.exception("Something broke")
    (line,) = text.lines
    assert re.search(r"\] Something broke: KeyError: 'key\\+nof two lines' \(raised at test_klog\.py:\d+\)$", line)
    assert "Traceback" not in line


def test_a_json_line_says_the_same_in_fields(structured: Lines) -> None:
    structured.log.warning("no route to %s", "10.5.3.0/24")
    entry = json.loads(structured.lines[0])
    assert datetime.fromisoformat(entry.pop("ts")).tzinfo is not None
    assert isinstance(entry.pop("line"), int)
    assert entry == {
        "level": "warning",
        "logger": "flannel_core.test",
        "msg": "no route to 10.5.3.0/24",
        "file": "test_klog.py",
        "pid": os.getpid(),
    }


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [(0, ["started"]), (1, ["wrote 3 routes", "started"])],
)
def test_v_makes_our_loggers_talk_and_not_the_libraries_below(verbosity: int, expected: list[str]) -> None:
    script = (
        "import logging; from flannel_core import klog;"
        f"klog.configure('json', {verbosity});"
        "logging.getLogger('botocore.auth').debug('secret');"
        "logging.getLogger('flannel_backend_vxlan').debug('wrote 3 routes');"
        "logging.getLogger('flannel_core.agent').info('started')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert [json.loads(line)["msg"] for line in done.stderr.splitlines()] == expected


def test_a_state_is_said_once_until_it_changes(text: Lines) -> None:
    state = StateLog(text.log)
    assert state.say("config", logging.WARNING, "no config")
    assert not state.say("config", logging.WARNING, "no config")
    assert state.say("store", logging.WARNING, "no config")
    assert state.say("config", logging.INFO, "config found")
    assert state.say("config", logging.WARNING, "no config")
    assert len(text.lines) == 4


def test_the_end_of_a_state_is_said_only_if_its_beginning_was(text: Lines) -> None:
    state = StateLog(text.log)
    assert not state.over("store", "the store answers again")
    state.say("store", logging.WARNING, "the store is silent")
    assert state.over("store", "the store answers again")
    assert not state.over("store", "the store answers again")
    assert [KLOG_LINE.sub(r"\1 \7", line) for line in text.lines] == [
        "W the store is silent",
        "I the store answers again",
    ]


def test_a_state_names_the_place_that_said_it(text: Lines) -> None:
    StateLog(text.log).say("config", logging.INFO, "found")
    assert " test_klog.py:" in text.lines[0]
