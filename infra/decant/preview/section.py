"""A section of a summary, as all renderers take it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title with sentences (see `text.py`), or with blocks of text whose lines stay as they are."""

    title: str
    lines: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    urgent: bool = False
    """Whether it is shown so that nobody overlooks it."""
