"""What a user sees at the end: where the app answers, what answered, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decant.errors import NotServingError
from decant.rollout import look


def card(*, outputs: Mapping[str, Any], title: str, lines: Sequence[tuple[str, str]], seconds: float) -> str:
    """Ask the stack's URL and tell what answered. `lines` are pairs of a label and a text.

    Raises NotServingError when the front page is not served by the release that is said to be live.
    """
    url, release = outputs["url"], outputs["release"]
    seen = look(url + "/")
    if seen.release != release:
        raise NotServingError(
            f"{url}/ gave {seen.why}"
            + (f" from release {seen.release}" if seen.release else "")
            + f", not release {release}",
            seen.release,
        )
    machines = ", ".join(f"{m['name']} ({m['address']})" for m in outputs["machines"])
    rows = [
        ("url", url + "/"),
        ("answered", f"{seen.why}, release {seen.release}, in {1000 * seen.seconds:.0f} ms"),
        ("machines", machines),
        *lines,
        ("took", f"{seconds:.1f} s"),
    ]
    width = max(len(label) for label, _ in rows)
    body = "\n".join(f"  {label:<{width}}  {text}" for label, text in rows)
    rule = "-" * 72
    return f"{rule}\n  {title}\n{rule}\n{body}\n{rule}"
