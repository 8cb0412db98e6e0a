"""What becomes of a command's words."""

from __future__ import annotations

import pytest

from flannel_backend_extension.words import expanded, shown, words_of

SET = {"SUBNET": "10.5.2.0/24", "PUBLIC_IP": "192.0.2.2", "EVIL": "$(reboot); a b", "_x1": "under"}


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("$SUBNET", "10.5.2.0/24"),
        ("${SUBNET}", "10.5.2.0/24"),
        ("to:$SUBNET,via:${PUBLIC_IP}!", "to:10.5.2.0/24,via:192.0.2.2!"),
        ("$SUBNETS", ""),
        ("${SUBNET}S", "10.5.2.0/24S"),
        ("$_x1.", "under."),
        ("$EVIL", "$(reboot); a b"),
        ("a$$b$1c", "abc"),
        ("5$", "5$"),
        ("$ 5", "$ 5"),
        ("${}", ""),
        ("${SUBNET", "SUBNET"),
        ("$(id)", "$(id)"),
        ("'$SUBNET'", "'10.5.2.0/24'"),
    ],
)
def test_variables_are_replaced_in_a_word_and_nothing_else_is(word: str, becomes: str) -> None:
    assert expanded([word], SET) == [becomes]


def test_a_text_is_split_at_white_space_whatever_the_quotes() -> None:
    assert words_of("ip  route\tadd \"$SUBNET\" via '$PUBLIC_IP' ") == (
        "ip",
        "route",
        "add",
        '"$SUBNET"',
        "via",
        "'$PUBLIC_IP'",
    )
    assert words_of("") == words_of([]) == ()


def test_a_list_is_a_list_of_words() -> None:
    assert words_of(["sh", "-c", "read vtep; echo $vtep"]) == ("sh", "-c", "read vtep; echo $vtep")


def test_words_are_shown_as_they_would_be_typed() -> None:
    assert shown(("ip", "route", "add", "$SUBNET")) == "ip route add $SUBNET"
    assert shown(("sh", "-c", "a b")) == "sh -c 'a b'"
