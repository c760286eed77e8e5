"""Masking: secrets of a release's environment are replaced in logs and error texts."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable

from decant_host.atomic import read_json
from decant_host.paths import RELEASES

SHORTEST = 4
"""Characters of a secret from which it is masked: a shorter one would mask half of the text."""


_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Sequences that set colors, move the cursor or set a title (ECMA-48, "Control functions")."""


def mask(release: str, text: str) -> str:
    """The text of a program for people: without its secrets, and without what would control a terminal.

    Each secret's value is replaced by `[NAME]`, in every form in which `_forms` expects it. That is done twice, because
    a color may begin inside of a value.
    """
    return masker(release)(text)


def masker(*releases: str) -> Callable[[str], str]:
    """`mask` for many texts, with the secrets of several releases, which are read once."""
    # The longest first, because one secret may begin with another.
    shown = sorted((pair for release in releases for pair in _shown_forms(release)), key=lambda pair: -len(pair[0]))
    return lambda text: _replace(shown, without_controls(_replace(shown, text)))


def without_controls(text: str) -> str:
    """The text without colors and the like; other control characters are escaped, but for tabs and ends of lines."""
    text = _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """The text on one line, without what would control a terminal."""
    return " ".join(without_controls(text).split())


def _shown_forms(release: str) -> list[tuple[str, str]]:
    """Each form of each secret of a release, with what is shown in its place."""
    environment = read_json(RELEASES / release / "environment.json")
    names = read_json(RELEASES / release / "release.json").get("secret_names", [])
    shown = {form: name for name in names for form in _forms(environment.get(name, ""))}
    return [(form, f"[{name}]") for form, name in shown.items()]


def _replace(shown: list[tuple[str, str]], text: str) -> str:
    for form, name in shown:
        text = text.replace(form, name)
    return text


def mask_urls(text: str) -> str:
    """The text without user names and passwords in URLs, which a file of requirements may hold."""
    return re.sub(r"(://)(?!git@[^/\s@]+(?:/|\s|$))[^/\s]+@", r"\1[...]@", text)


def masked_log(release: str, text: str) -> str:
    """A log for an error text: masked, then cut, then indented.

    Lines are cut because Pulumi's command provider hangs on a line over 64 KiB.
    """
    return "\n".join("    " + line[:1000] for line in mask(release, text).splitlines())


def _forms(value: str) -> set[str]:
    """How a value may appear in a log: plain, escaped by repr, JSON, URL or HTML, its lines, a URL's password."""
    import html
    from urllib.parse import quote, unquote, urlsplit

    forms = {value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {quote(value, safe=""), quote(value), html.escape(value)}
    forms |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 8}
    with contextlib.suppress(ValueError):
        password = urlsplit(value).password or ""
        forms |= {password, unquote(password)}  # drivers decode it before they put it into their errors
    forms.add(repr(value.encode())[2:-1])
    with contextlib.suppress(UnicodeEncodeError):  # an app that prints it as Latin-1; logs are read as UTF-8
        forms.add(value.encode("latin-1").decode("utf-8", "replace"))
    return {form for form in forms if len(form) >= SHORTEST}
