"""The summary of a preview as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from decant.app.files import escaped
from decant.preview.section import Section
from decant.preview.summary import Summary
from decant.preview.text import parts

WIDTH = 110
RULE = "-" * 72


def render(summary: Summary) -> str:
    """The whole summary."""
    lines = [RULE, f"  Preview of stack {summary.stack}", RULE, *_wrapped(plain(summary.verdict), "  ", "  ")]
    for section in summary.sections:
        lines += ["", *_section(section)]
    return "\n".join([*lines, RULE])


def plain(sentence: str) -> str:
    """A sentence without its marks, safe to print."""
    return "".join(escaped(piece) for piece, _ in parts(" ".join(sentence.split())))


def _section(section: Section) -> Iterator[str]:
    yield f"  {section.title.upper() if section.urgent else section.title}"
    for line in section.lines:
        yield from _wrapped(plain(line), "    ", "    ")
    for block in section.blocks:
        yield from (f"    {escaped(line.expandtabs())}" for line in block.splitlines())


def _wrapped(text: str, first: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
