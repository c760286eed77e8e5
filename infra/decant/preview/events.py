"""What the engine tells of a run: the steps it takes and the messages it shows, from `pulumi preview --event-log FILE`.

Pulumi has that option where PULUMI_DEBUG_COMMANDS is true. The log has one JSON object a line, of the type EngineEvent:
https://github.com/pulumi/pulumi/blob/master/sdk/go/common/apitype/events.go
The engine masks secrets in it; here they are `Hidden.SECRET`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

# How the engine writes a secret, and a value that is known only after the run:
# https://github.com/pulumi/pulumi/blob/master/sdk/go/common/resource/sig/sig.go
# https://github.com/pulumi/pulumi/blob/master/pkg/resource/stack/deployment.go
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one
UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
COLOR = re.compile(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*[A-Za-z]")


class Hidden(Enum):
    """What stands for a value that the log does not show."""

    SECRET = "[secret]"  # noqa: S105 - what is shown in the place of one
    UNKNOWN = "[not known yet]"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class State:
    """A resource before or after a step. Values are plain JSON, or `Hidden`."""

    id: str = ""
    """Empty for a resource that does not exist yet."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    protected: bool = False
    """Whether the engine refuses to delete it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens to one resource. A replacement is several: `create-replacement`, `replace`, `delete-replaced`."""

    op: str
    """The engine's name for it: `same`, `create`, `update`, `replace`, `create-replacement`, `delete-replaced`,
    `delete`, `read`, `refresh`."""
    urn: str
    type: str
    """The resource's type, such as `command:remote:Command`."""
    name: str
    """The resource's name, such as `web-1`."""
    old: State | None = None
    """None for a resource that is made."""
    new: State | None = None
    """None for a resource that is deleted."""
    changed: tuple[str, ...] = ()
    """Paths of the properties that change, such as `rootBlockDevice.volumeSize`, sorted."""
    causes: tuple[str, ...] = ()
    """Those of them that make a new resource necessary."""


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """A message of the run, without colors."""

    severity: str
    """`error`, `warning`, `info` or `info#err`."""
    message: str
    urn: str = ""
    """The resource that it is about; empty where it is about none."""

    @property
    def name(self) -> str:
        """The name of the resource that it is about."""
        return name_of(self.urn)


@dataclass(frozen=True, kw_only=True)
class Events:
    """Steps in the order in which the engine began them, and messages in the order in which they came."""

    steps: tuple[Step, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def read_events(path: Path) -> Events:
    """The events of a log. There are none where the engine has written no log, because it failed before it began.

    A last line that was cut off, because the engine was killed, is left out.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Events()
    steps: dict[tuple[str, str, str], Step] = {}
    diagnostics: dict[Diagnostic, None] = {}
    for event in _objects(text):
        for kind in ("resourcePreEvent", "resOutputsEvent"):
            if kind in event:
                # The second event of a step knows its outputs. It comes when the step ends; the order is of the first.
                step = _step(event[kind]["metadata"])
                key = (step.op, step.urn, step.old.id if step.old else "")
                steps[key] = _completed(steps.get(key), step)
        if "diagnosticEvent" in event and (diagnostic := _diagnostic(event["diagnosticEvent"])):
            diagnostics[diagnostic] = None
    return Events(steps=tuple(steps.values()), diagnostics=tuple(diagnostics))


def name_of(urn: str) -> str:
    """The name of the resource with this URN, whose last part it is."""
    return urn.split("::", 3)[-1]


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.split("\n"):  # and not at other characters that separate lines, which JSON texts may hold
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict):
            yield event


def _step(metadata: Mapping[str, Any]) -> Step:
    changed = metadata.get("detailedDiff") or metadata.get("diffs") or ()
    return Step(
        op=metadata["op"],
        urn=metadata["urn"],
        type=metadata["type"],
        name=name_of(metadata["urn"]),
        old=_state(metadata.get("old")),
        new=_state(metadata.get("new")),
        changed=tuple(sorted(changed)),
        causes=tuple(sorted(metadata.get("keys") or ())),
    )


def _completed(begun: Step | None, ended: Step) -> Step:
    """A step as both of its events tell it. That of a component's outputs has no list of changes."""
    if begun is None:
        return ended
    return replace(ended, changed=ended.changed or begun.changed, causes=ended.causes or begun.causes)


def _state(known: Mapping[str, Any] | None) -> State | None:
    if known is None:
        return None
    return State(
        id=known.get("id") or "",
        inputs=_shown(known.get("inputs") or {}),
        outputs=_shown(known.get("outputs") or {}),
        protected=bool(known.get("protect")),
    )


def _shown(value: Any) -> Any:
    """A value with `Hidden` in the place of what is secret or not known yet."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET_SIGNATURE:
            return Hidden.SECRET
        return {name: _shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return Hidden.UNKNOWN if value == UNKNOWN_TEXT else value


def _diagnostic(event: Mapping[str, Any]) -> Diagnostic | None:
    """A message; None for one that the terminal shows only for a moment, and for one that is for developers."""
    message = COLOR.sub("", str(event.get("message", ""))).strip()
    if event.get("ephemeral") or event.get("severity") == "debug" or not message:
        return None
    return Diagnostic(severity=str(event.get("severity", "")), message=message, urn=event.get("urn") or "")
