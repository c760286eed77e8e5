"""The summary of a preview as Markdown for a comment on GitHub or GitLab.

Everything that comes from an app, a provider or Pulumi is somebody else's text: it is escaped, so that it makes no
link, no mention of a person, no HTML, and no command of GitLab's.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

from decant.app.files import escaped
from decant.preview.section import Section
from decant.preview.summary import Summary
from decant.preview.text import code, count, parts

LIMIT = 60_000
"""Characters of the whole text. GitHub takes 65,536."""

# How many lines a section shows, and how many characters a line and a block: the first that lets the summary fit.
_STEPS = ((200, 1_000, 12_000), (50, 1_000, 4_000), (20, 500, 1_500), (5, 300, 500), (1, 200, 200))
ZERO_WIDTH_SPACE = "\u200b"


def render(summary: Summary, diff: str = "") -> str:
    """The summary, and below it, folded, what Pulumi printed, as far as it fits. LIMIT characters at most."""
    made = (_summary(summary, *step) for step in _STEPS)
    text = next(text for text in made if len(text) <= LIMIT)
    return text + _folded(diff, LIMIT - len(text), summary.stack)


def _summary(summary: Summary, most: int, line: int, block: int) -> str:
    lines = [f"## Preview of stack {inline(code(summary.stack))}", "", f"**{inline(summary.verdict)}**", ""]
    for section in summary.sections:
        lines += _section(section, most, line, block)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section, most: int, longest_line: int, longest_block: int) -> Iterator[str]:
    shown = [inline(_cut(line, longest_line)) for line in section.lines[:most]]
    if len(section.lines) > most:
        shown.append(f"and {len(section.lines) - most} more")
    if section.urgent:
        yield from (f"### {section.title}", "")
        yield from (f"- **{line}**" for line in shown)
        for block in section.blocks[:most]:
            yield from _fence(_lines(_cut(block, longest_block)))
        if len(section.blocks) > most:
            yield from ("", f"and {len(section.blocks) - most} more")
        yield ""
    elif len(shown) == 1:
        yield f"- **{section.title}**: {shown[0]}"
    else:
        yield f"- **{section.title}**:"
        yield from (f"  - {line}" for line in shown)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} characters more)"


def _folded(printed: str, room: int, stack: str) -> str:
    """What Pulumi printed, in a fold; lines that do not fit are counted. Empty where there is no room for a fold."""
    lines = _lines(printed)
    kept = list(lines)
    while kept:
        left = len(lines) - len(kept)
        rest = f"{count(left, 'more line')} did not fit: {code(f'make preview STACK={stack} ARGS=--diff')} shows all."
        title = f"<summary>What Pulumi says ({count(len(lines), 'line')})</summary>"
        end = [inline(rest), ""] if left else []
        text = "\n".join(["", f"<details>{title}", "", *_fence(kept), "", *end, "</details>", ""])
        if len(text) <= room:
            return text
        del kept[_that_fit(kept, room - (len(text) - sum(len(line) + 1 for line in kept))) :]
    return ""


def _that_fit(lines: Sequence[str], room: int) -> int:
    """How many of the lines have space in so many characters; at least one less than all."""
    ends = accumulate(len(line) + 1 for line in lines)
    return min(len(lines) - 1, sum(1 for end in ends if end <= room))


def _fence(lines: Sequence[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, 1 + longest)
    return [f"{fence}text", *lines, fence]


def _lines(text: str) -> list[str]:
    """The lines of a text, without what controls a terminal and without lines that only move its cursor."""
    return [escaped(line.expandtabs()).rstrip() for line in text.strip("\n").splitlines()] if text.strip() else []


def inline(sentence: str) -> str:
    """One sentence as Markdown; its code stays code."""
    return "".join(f"`{piece}`" if is_code else _escape(piece) for piece, is_code in parts(" ".join(sentence.split())))


def _escape(text: str) -> str:
    """Somebody else's words, or ours, as Markdown that shows exactly them. Variables such as $DATA_DIR become code."""
    return "".join(
        f"`{piece}`" if number % 2 else _escape_plain(piece)
        for number, piece in enumerate(re.split(r"(\$[A-Z][A-Z0-9_]*)", text))
    )


def _escape_plain(text: str) -> str:
    shown = html.escape(escaped(text), quote=False)
    shown = re.sub(r"([\\*_\[\]~|$])", r"\\\1", shown)
    # At the start of a line these would begin a list, a heading or a quotation.
    shown = re.sub(r"^([-+#]|\d+[.)])(?=\s)", r"\\\1", shown)
    # A forge makes a link of an address, also without Markdown's brackets.
    shown = re.sub(r"(?i)\b(https?:|ftp:|www\.|mailto:|xmpp:)(?=\S)", rf"\1{ZERO_WIDTH_SPACE}", shown)
    # Mentions and references notify people and link elsewhere, also where Markdown escapes them.
    return re.sub(r"([@#!])(?=\w)", rf"\1{ZERO_WIDTH_SPACE}", shown)
