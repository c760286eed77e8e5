"""Names and commands in the sentences of a summary."""

from __future__ import annotations

import pytest

from decant.preview.text import code, command, count, listed, parts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "`a b`"),
        ("a`b", "`a'b`"),
        ("a\n\tb", "`a b`"),
        ("a\x1b[31m", "`a\\x1b[31m`"),
        ("a\u202eb", "`a\\u202eb`"),
        ("", "`(empty)`"),
        ("x" * 120, "`" + "x" * 120 + "`"),
        ("x" * 121, "`" + "x" * 117 + "...`"),
    ],
)
def test_a_name_is_one_line_between_backticks(text: str, shown: str) -> None:
    assert code(text) == shown


def test_values_in_a_command_are_left_out() -> None:
    assert command("A=canary flask --key=canary db upgrade") == "`A=... flask --key=... db upgrade`"
    assert command("tool https://me:canary@example.com/x") == "`tool https://...@example.com/x`"


def test_twelve_names_are_listed_and_the_rest_is_counted() -> None:
    names = [str(number) for number in range(14)]
    assert listed(names[:2]) == "`0`, `1`"
    assert listed(names[:12]).count("`") == 24
    assert listed(names) == listed(names[:12]) + " and 2 more"


def test_numbers_have_their_noun() -> None:
    assert [count(1, "file"), count(2, "file"), count(0, "entry", "entries")] == ["1 file", "2 files", "0 entries"]


def test_a_sentence_falls_into_text_and_code() -> None:
    assert parts("a `b` c") == [("a ", False), ("b", True), (" c", False)]
    assert parts("`b`") == [("b", True)]
    assert parts("it's a ` alone") == [("it's a ' alone", False)]
