"""The summary at the end of an `up` or a rehearsal: where the app answers, what answered, what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decant.errors import NotServingError
from decant.rollout.http_probe import BY_NAME, probe
from decant.rollout.route import Route


def summary(
    *,
    outputs: Mapping[str, Any],
    title: str,
    lines: Sequence[tuple[str, str]],
    seconds: float,
    route: Route = BY_NAME,
) -> str:
    """Ask the stack's URL once and return a table of what answered, ready to print.

    `outputs` are the stack's outputs; `url`, `release` and `machines` are read. `lines` are more rows: a label and a
    text each. `seconds` is how long the command took, and `route` the way to the URL.

    Raises:
        NotServingError: the front page is not served by the release that the outputs name.
    """
    url, release = outputs["url"], outputs["release"]
    result = probe(url + "/", route=route)
    if result.release != release:
        source = f" from release {result.release}" if result.release else ""
        raise NotServingError(f"{url}/ gave {result.why}{source}, not release {release}", result.release)
    rows = [
        ("url", url + "/"),
        ("answered", f"{result.why}, release {result.release}, in {1000 * result.seconds:.0f} ms"),
        ("machines", ", ".join(f"{m['name']} ({m['address']})" for m in outputs["machines"])),
        *_records(outputs.get("recordsToSet") or ()),
        *lines,
        ("took", f"{seconds:.1f} s"),
    ]
    width = max(len(label) for label, _ in rows)
    body = "\n".join(f"  {label:<{width}}  {text}" for label, text in rows)
    rule = "-" * 72
    return f"{rule}\n  {title}\n{rule}\n{body}\n{rule}"


def _records(records: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """A row for each DNS record that the user has to set."""
    width = max((len(one["name"]) for one in records), default=0)
    labels = ["set in DNS", *[""] * len(records)]
    return [
        (label, f"{one['name']:<{width}}  {one['type']}  {one['value']}")
        for label, one in zip(labels, records, strict=False)
    ]
