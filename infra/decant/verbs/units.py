"""Times, sizes and tables as the verbs show them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

NOTHING = "-"


def size(count: float | None) -> str:
    """Bytes for people: 512 MB, 3.4 GB."""
    if count is None:
        return NOTHING
    megabytes = count / (1 << 20)
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def duration(seconds: float) -> str:
    """A time span in its largest unit that leaves at least 2: 90 s, 5 min, 3 h, 12 days."""
    seconds = max(0, seconds)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(time: float | None) -> str:
    """A Unix time in UTC, which no reader has to translate between machines."""
    if time is None:
        return NOTHING
    return f"{datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M:%S}Z"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows below their heads, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, *rows]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in lines)
