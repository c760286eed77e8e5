"""What a stack has recorded of its release, and what a preview tells, for tests."""

from __future__ import annotations

from typing import Any

from decant.clouds.costs import CostOutput
from decant.deploy.contents import FORMAT, Preview, Record, ReleaseContents
from decant.preview.events import State, Step

LIVE = "aaaaaaaaaaaa"
NEXT = "bbbbbbbbbbbb"
OLD = "cccccccccccc"


def release(id: str = LIVE, **changes: Any) -> ReleaseContents:
    return {
        "release": id,
        "commit": None,
        "entry": "wsgi:app",
        "python": "3.13",
        "release_command": None,
        "files": {"wsgi.py": "1", "requirements.txt": "1"},
        "packages": {"flask": "3.1.0"},
        "variables": {"DEBUG": "1"},
        "secrets": {"TOKEN": "1"},
        "serving": {"gunicorn": "1", "runtime": "1"},
        **changes,  # type: ignore[typeddict-item]
    }


def record(live: ReleaseContents | None = None, **changes: Any) -> Record:
    return {
        "format": FORMAT,
        "key": "k",
        "settings": {"decant:cloud": "1"},
        "history": [LIVE, OLD],
        "live": live or release(),
        "before": release(OLD),
        **changes,  # type: ignore[typeddict-item]
    }


def preview(contents: ReleaseContents | None = None, **changes: Any) -> Preview:
    return {
        "key": "k",
        "settings": {"decant:cloud": "1"},
        "pinned": None,
        "contents": contents or release(),
        "cost": None,
        **changes,  # type: ignore[typeddict-item]
    }


def cost(amount: float | None, date: str = "2026-11-28") -> CostOutput:
    return {"usdPerMonth": amount, "items": [], "pricesOf": date}


def step(op: str, kind: str, name: str) -> Step:
    """A step of the app's own: its inputs do not matter."""
    old = None if op == "create" else State(id="id")
    new = None if op.startswith("delete") else State(id="id")
    return Step(op=op, urn=f"urn:pulumi:dev::shop::{kind}::{name}", type=kind, name=name, old=old, new=new)


def rolled_out(*stages: str, op: str = "update") -> tuple[Step, ...]:
    """The steps of a rollout: `stages` are the operations of the stage steps, one for each machine."""
    staged = (step(one, "command:remote:Command", f"web-{n}-stage") for n, one in enumerate(stages or ("update",), 1))
    return (*staged, step(op, "command:local:Command", "rollout"))
