"""Text from outside, on its way to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.5.3.0/24", "10.5.3.0/24"),
        ("Grüße 你好", "Grüße 你好"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\ud800", "\\ud800"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"caf\xc3\xa9", "café"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut() -> None:
    assert printable("x" * 100, 10) == "x" * 9 + "…"


def test_text_that_just_fits_is_not_cut() -> None:
    assert printable("x" * 10, 10) == "x" * 10


@given(text=st.text() | st.binary(), limit=st.integers(1, 50))
def test_the_result_is_always_one_short_printable_line(text: str | bytes, limit: int) -> None:
    assert printable(text, limit).isprintable()
    assert len(printable(text, limit)) <= limit
