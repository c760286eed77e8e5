"""A summary as text for a terminal."""

from __future__ import annotations

from decant.preview.section import Section
from decant.preview.summary import Summary
from decant.preview.terminal import render

RULE = "-" * 72


def test_a_whole_summary() -> None:
    text = render(
        Summary(
            stack="dev",
            verdict="A new release goes live.",
            sections=(
                Section(title="Data at risk", lines=("$DATA_DIR is lost.",), urgent=True),
                Section(title="What is wrong", blocks=("first\n  second\x1b",), urgent=True),
                Section(title="Files", lines=("1 changed: `a.py`", "word " * 30)),
            ),
        )
    )
    words = " ".join(["word"] * 21)
    assert text.splitlines() == [
        RULE, "  Preview of stack dev", RULE, "  A new release goes live.", "", "  DATA AT RISK",
        "    $DATA_DIR is lost.", "", "  WHAT IS WRONG", "    first", "      second\\x1b", "", "  Files",
        "    1 changed: a.py", f"    {words}", "    " + " ".join(["word"] * 9), RULE,
    ]  # fmt: skip
