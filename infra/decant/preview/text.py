"""Text of a summary: sentences in which backticks enclose names and commands, for every renderer to read."""

from __future__ import annotations

from collections.abc import Sequence

from decant.app.files import escaped
from decant.app.shown import hide_values

LONGEST_NAME = 120
"""Characters of a name or a command that are shown."""

NAMED = 12
"""How many names a sentence lists; the rest is counted."""


def code(text: str) -> str:
    """A name or command between backticks. What could control a terminal, or end the code, is replaced."""
    line = escaped(" ".join(text.split())).replace("`", "'")
    shown = line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 3] + "..."
    return f"`{shown or '(empty)'}`"


def command(text: str) -> str:
    """A command of the app's as code, without values that may be secret."""
    return code(hide_values(text))


def listed(names: Sequence[str], *, most: int = NAMED) -> str:
    """Names as code, with commas: `a`, `b` and 3 more."""
    shown = ", ".join(code(name) for name in names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 file, 2 files."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def parts(sentence: str) -> list[tuple[str, bool]]:
    """The pieces of a sentence, each with whether it is code. A backtick without its partner is no mark."""
    pieces = sentence.split("`")
    if len(pieces) % 2 == 0:
        return [(sentence.replace("`", "'"), False)]
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]
