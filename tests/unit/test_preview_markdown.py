"""A summary as Markdown: what it looks like, that nothing of others' text acts, and that it fits."""

from __future__ import annotations

import re

import pytest

from decant.preview.markdown import LIMIT, inline, render
from decant.preview.section import Section
from decant.preview.summary import Summary


def summary(*sections: Section, verdict: str = "A new release goes live.") -> Summary:
    return Summary(stack="production", verdict=verdict, sections=sections)


def test_a_whole_comment() -> None:
    text = render(
        summary(
            Section(title="Data at risk", lines=("$DATA_DIR of web-1 is lost.",), urgent=True),
            Section(title="What is wrong", blocks=("first\n  second", "third"), urgent=True),
            Section(title="Machines", lines=("web-1 is replaced.", "web-2 is made.")),
            Section(title="Files", lines=("1 changed: `a_b.py`",)),
        ),
        "+ one\n~ two\n",
    )
    assert (
        text
        == """\
## Preview of stack `production`

**A new release goes live.**

### Data at risk

- **`$DATA_DIR` of web-1 is lost.**

### What is wrong

```text
first
  second
```
```text
third
```

- **Machines**:
  - web-1 is replaced.
  - web-2 is made.
- **Files**: 1 changed: `a_b.py`

<details><summary>What Pulumi says (2 lines)</summary>

```text
+ one
~ two
```

</details>
"""
    )


def test_without_pulumis_text_there_is_no_fold() -> None:
    assert render(summary(), "\n \n") == "## Preview of stack `production`\n\n**A new release goes live.**\n"


@pytest.mark.parametrize(
    ("sentence", "markdown"),
    [
        ("`a*b_c <x> & @org`", "`a*b_c <x> & @org`"),
        ("a*b_c~d|e", r"a\*b\_c\~d\|e"),
        ("[text](https://example.com)", "\\[text\\](https:\u200b//example.com)"),
        ("see HTTP://a.example, www.b.example", "see HTTP:\u200b//a.example, www.\u200bb.example"),
        ("![x](y)", r"!\[x\](y)"),
        ("<img src=x> & more", "&lt;img src=x&gt; &amp; more"),
        ("ask @octocat", "ask @\u200boctocat"),
        ("fixes #12 and !34", "fixes #\u200b12 and !\u200b34"),
        ("- not a list", r"\- not a list"),
        ("1. not a list", r"\1. not a list"),
        ("# not a heading", r"\# not a heading"),
        ("$DATA_DIR and $x$", r"`$DATA_DIR` and \$x\$"),
        ("two\nlines", "two lines"),
        ("/close", "/close"),
        ("a \x1b[31mred\u202e word", r"a \\x1b\[31mred\\u202e word"),
        ("a back\\slash", r"a back\\slash"),
    ],
)
def test_a_sentence_shows_exactly_its_text(sentence: str, markdown: str) -> None:
    assert inline(sentence) == markdown


def test_no_line_of_others_text_begins_a_line() -> None:
    """GitLab reads a line that begins with a slash as a command."""
    text = render(summary(Section(title="Warnings", lines=("/close", "/merge"))), "/close\n/merge")
    plain = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^\s*/", plain, re.MULTILINE)


def test_a_fence_is_longer_than_what_it_holds() -> None:
    text = render(summary(Section(title="What is wrong", blocks=("````\n<b>",), urgent=True)), "``` \n</details>")
    assert "\n`````text\n````\n<b>\n`````\n" in text
    assert "\n````text\n```\n</details>\n````\n" in text


def test_what_controls_a_terminal_is_not_in_a_block() -> None:
    text = render(summary(), "a\x1b[31mb\x07\tc")
    assert "a\\x1b[31mb\\x07" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)


# ------------------------------------------------------------------------------------------------ it fits


def test_what_does_not_fit_of_pulumis_text_is_counted() -> None:
    lines = [f"line {number:05} {'x' * 50}" for number in range(2000)]
    text = render(summary(), "\n".join(lines))
    assert LIMIT - 200 < len(text) <= LIMIT
    shown = re.findall(r"^line (\d+)", text, re.MULTILINE)
    assert shown == [f"{number:05}" for number in range(len(shown))]
    left = 2000 - len(shown)
    assert f"\n{left} more lines did not fit: `make preview STACK=production ARGS=--diff` shows all.\n" in text
    assert "(2000 lines)" in text
    assert text.endswith("\n</details>\n")
    assert text.count("```") == 2


@pytest.mark.parametrize("more", range(-3, 4))
def test_the_limit_is_exact(more: int) -> None:
    empty = len(render(summary(), "x"))
    text = render(summary(), "x" * (LIMIT - empty + 1 + more))
    assert len(text) == (LIMIT + more if more <= 0 else len(render(summary())))


def test_one_line_too_many() -> None:
    room = LIMIT - len(render(summary(), "x"))
    text = render(summary(), "y\n" * 5 + "x" * room)
    assert "1 more line did not fit" in text
    assert "\ny\n" in text
    assert len(text) <= LIMIT


def test_the_summary_comes_before_pulumis_text() -> None:
    lines = tuple(f"machine {number} " + "x" * 250 for number in range(190))
    text = render(summary(Section(title="Machines", lines=lines)), "line\n" * 10_000)
    assert all(line in text for line in lines)
    assert len(text) <= LIMIT


def test_a_summary_that_is_too_long_keeps_every_section() -> None:
    sections = [
        Section(title=f"Title {number}", lines=tuple("&" * 2_000 for _ in range(500)), blocks=("`x\n" * 20_000,) * 9)
        for number in range(9)
    ]
    urgent = [Section(title=s.title + "!", lines=s.lines, blocks=s.blocks, urgent=True) for s in sections]
    text = render(summary(*urgent, *sections))
    assert len(text) <= LIMIT
    assert all(s.title in text for s in (*urgent, *sections))
    assert "and 499 more" in text
    assert re.search(r"\d+ characters more", text)
