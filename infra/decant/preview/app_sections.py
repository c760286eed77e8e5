"""The sections of a summary about what a release holds: files, packages, names of values, and never a value."""

from __future__ import annotations

from collections.abc import Iterator

from decant.preview.app_changes import AppChanges, Change, Names, Package
from decant.preview.section import Section
from decant.preview.text import NAMED, code, command, count, listed


def app_sections(changes: AppChanges) -> Iterator[Section]:
    """One section for each kind of thing that changes."""
    yield from _section("App files", [_names(changes.files)])
    yield from _section("Packages", [_packages(changes.packages)])
    yield from _section("Variables", [_names(changes.variables)])
    yield from _section("Secrets", [_names(changes.secrets)])
    yield from _section("Settings", [_names(changes.settings)])
    yield from _section(
        "How it is served",
        [
            _change("the entry point", changes.entry),
            _change("Python", changes.python),
            _change("the release command", changes.release_command),
            f"{'; '.join(changes.serving)}" if changes.serving else "",
        ],
    )
    if not changes.values_known:
        text = (
            "The stack's key changes, or is not known yet, so it cannot be told which values of variables, secrets and"
            " settings change."
        )
        yield Section(title="Values", lines=(text,))


def _section(title: str, texts: list[str]) -> Iterator[Section]:
    lines = [text for text in texts if text]
    if lines:
        yield Section(title=title, lines=("; ".join(lines),))


def _names(names: Names) -> str:
    """For example: 2 changed: `a`, `b`; 1 added: `c`."""
    kinds = (("changed", names.changed), ("added", names.added), ("removed", names.removed))
    return "; ".join(f"{len(found)} {kind}: {listed(found)}" for kind, found in kinds if found)


def _packages(packages: tuple[Package, ...]) -> str:
    changed = [p for p in packages if p.old and p.new]
    added = [p for p in packages if not p.old]
    removed = [p for p in packages if not p.new]
    said = []
    if changed:
        shown = [code(f"{p.name} {p.old} → {p.new}") + (" (older)" if p.older else "") for p in changed[:NAMED]]
        said.append(f"{len(changed)} changed: {', '.join(shown)}{_more(changed)}")
    for kind, found in (("added", added), ("removed", removed)):
        if found:
            said.append(f"{len(found)} {kind}: {listed([f'{p.name} {p.new or p.old}' for p in found])}")
    return "; ".join(said)


def _more(found: list[Package]) -> str:
    return f" and {len(found) - NAMED} more" if len(found) > NAMED else ""


def _change(what: str, change: Change | None) -> str:
    if change is None:
        return ""
    old, new = (command(text) if text else "none" for text in (change.old, change.new))
    return f"{what} {old} → {new}"


def headline(changes: AppChanges) -> str:
    """How much changes, in a few words: 3 files, 1 package; empty where nothing of it does."""
    numbers = (
        (len(changes.files), "file"),
        (len(changes.packages), "package"),
        (len(changes.variables), "variable"),
        (len(changes.secrets), "secret"),
        (len(changes.settings), "setting"),
    )
    return ", ".join(count(number, what) for number, what in numbers if number)
