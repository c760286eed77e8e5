"""What happens to each resource in a run, as one change: the engine tells a replacement as several steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decant.preview.events import State, Step

SAME, MADE, CHANGED, REPLACED, DELETED = "same", "made", "changed", "replaced", "deleted"
_MADE = ("create", "import")
# What the engine names as a cause where somebody asked for a replacement, or where another resource goes.
_NO_INPUTS = {"id", "deletedWith"}
_REPLACED = ("create-replacement", "replace", "delete-replaced", "import-replacement")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A resource before and after the run."""

    kind: str
    """The engine's type of the resource."""
    name: str
    what: str
    """`SAME`, `MADE`, `CHANGED`, `REPLACED` or `DELETED`."""
    before: State | None
    after: State | None
    changed: tuple[str, ...] = ()
    """The inputs that change, by the first part of their path, sorted."""
    causes: tuple[str, ...] = ()
    """Those of them that make a new resource necessary; empty where somebody asked for a replacement."""
    deleted_first: bool = False
    """Whether a replacement is made only after the old one is gone."""
    left_over: bool = False
    """Whether an old one, which an earlier run has replaced and could not delete, goes as well."""

    @property
    def title(self) -> str:
        """The last part of the kind, and the name."""
        return f"{self.kind.rpartition(':')[2]} {self.name}"


def changes_of(steps: Iterable[Step]) -> list[Change]:
    """One change for each resource, in the order of the names; numbers count as numbers.

    Steps that only read something are left out.
    """
    by_urn: dict[str, list[Step]] = {}
    for step in steps:
        by_urn.setdefault(step.urn, []).append(step)
    found = [change for own in by_urn.values() if (change := _change(own))]
    return sorted(found, key=lambda change: natural(change.name))


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts web-10 after web-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _change(steps: Sequence[Step]) -> Change | None:
    ops = [step.op for step in steps]
    replacing = [step for step in steps if step.op in _REPLACED]
    if any(op in ("create-replacement", "replace", "import-replacement") for op in ops):
        return _merged(REPLACED, replacing, left_over="delete" in ops or ops.count("delete-replaced") > 1)
    for step in steps:
        if step.op in _MADE:
            return _merged(MADE, [step])
        if step.op in ("update", "same"):
            return _merged(CHANGED if step.op == "update" else SAME, [step], left_over=_deletes(ops))
    deleted = [step for step in steps if step.op in ("delete", "delete-replaced")]
    return _merged(DELETED, deleted[:1]) if deleted else None


def _deletes(ops: Sequence[str]) -> bool:
    """Whether a resource that stays has a step that deletes another one in its place."""
    return "delete" in ops or "delete-replaced" in ops


def _merged(what: str, steps: Sequence[Step], *, left_over: bool = False) -> Change:
    ops = [step.op for step in steps]
    first_made = next((place for place, op in enumerate(ops) if op.endswith("-replacement")), len(ops))
    return Change(
        kind=steps[0].type,
        name=steps[0].name,
        what=what,
        before=next((step.old for step in steps if step.old), None),
        after=None if what == DELETED else next((step.new for step in steps if step.new), None),
        changed=_tops(path for step in steps for path in step.changed),
        causes=_tops(path for step in steps for path in step.causes if path not in _NO_INPUTS),
        deleted_first=what == REPLACED and "delete-replaced" in ops[:first_made],
        left_over=left_over,
    )


def _tops(paths: Iterable[str]) -> tuple[str, ...]:
    """The first part of each path: `rootBlockDevice` of `rootBlockDevice.volumeSize` and of `tags["a.b"]`."""
    return tuple(sorted({re.split(r"[.\[]", path, maxsplit=1)[0] for path in paths if path}))
