"""What a release holds, recorded for comparison: a preview says what the next release changes.

Values of variables, secrets and settings are recorded as HMACs with a key of the stack. So a preview can tell which of
them change, and the record, which is a secret output of the stack anyway, has none of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pulumi

from decant.app.commit import commit_of
from decant.app.model import App
from decant.clouds.costs import CostOutput
from decant.deploy.last_outputs import last_output
from decant.deploy.release import Release

OUTPUT = "contents"
"""The output of the stack."""

PREVIEW_VARIABLE = "DECANT_PREVIEW_FILE"
"""Names the file that a preview writes: outputs that depend on the rollout are not known then."""

FORMAT = 1
HISTORY = 5
"""How many releases that were live a machine keeps; it runs the release command of none of them again."""

# Not compared as settings: told as variables, as secrets, as a rollback, and what `make destroy` keeps.
_TOLD_ELSEWHERE = frozenset({"decant:env", "decant:secrets", "decant:release", "decant:savedCertificate"})
# Parts of a release's description that are recorded by themselves, or that a setting alone decides.
_NOT_SERVING = frozenset(
    {"entry", "python", "release_command", "request_timeout", "health_path", "health_timeout", "workers", "threads"}
)


class ReleaseContents(TypedDict):
    """What one release holds. Values that may be secret are keyed digests."""

    release: str
    """Its id; empty in a preview that cannot know it yet."""
    commit: str | None
    """The commit that it was first deployed from (see `app/commit.py`)."""
    entry: str
    python: str
    release_command: str | None
    files: dict[str, str]
    """The digest of each file of the app folder that is shipped."""
    packages: dict[str, str]
    """What is asked for of each package: a version, a range, a URL."""
    variables: dict[str, str]
    secrets: dict[str, str]
    serving: dict[str, str]
    """The rest of the release's description, by its own names: how a machine installs and serves the app."""


class Record(TypedDict):
    """What the stack holds since its last `up` that succeeded."""

    format: int
    key: str
    """A digest that shows whether other digests were made with the same key."""
    settings: dict[str, str]
    """The stack's settings by their whole names."""
    history: list[str]
    """Ids of the releases that were live, the live one first; HISTORY at most."""
    live: ReleaseContents | None
    """None where `decant:release` has put a release live that this record does not know."""
    before: ReleaseContents | None
    """The release that was live before."""


class Preview(TypedDict):
    """What a preview knows of the release that an `up` would put live."""

    key: str
    """As in Record; empty where the stack's key is not made yet, and then all digests are."""
    settings: dict[str, str]
    pinned: str | None
    """The release that `decant:release` names; `contents` is of the app folder all the same."""
    contents: ReleaseContents
    cost: CostOutput | None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The app folder and the settings of a stack, as they are compared. Its repr shows no value."""

    app: App
    release: Release
    commit: str | None
    settings: Mapping[str, Any] = field(repr=False)
    """All settings of the stack as Pulumi holds them, by their whole names."""

    def of_release(self, key: str, release: str) -> ReleaseContents:
        """What the release holds. With an empty `key`, all keyed digests are empty."""
        config = self.release.config
        return {
            "release": release,
            "commit": self.commit,
            "entry": self.app.web.wsgi_app,
            "python": self.app.python.version,
            "release_command": self.app.web.release_command,
            "files": dict(self.release.bundle.digests),
            "packages": dict(self.app.packages.versions),
            "variables": _digests(key, self.release.env),
            "secrets": _digests(key, self.release.settings.secrets),
            "serving": _digests(key, {k: v for k, v in config.items() if k not in _NOT_SERVING}),
        }

    def of_settings(self, key: str) -> dict[str, str]:
        """The stack's settings, without those that are told in another way."""
        return _digests(key, {k: v for k, v in self.settings.items() if k not in _TOLD_ELSEWHERE})

    def record(self, key: str, live: str, last: Record | None) -> Record:
        """The record after an `up` that has put release `live` live. `last` is the record before."""
        contents: ReleaseContents | None = self.of_release(key, live)
        known = {one["release"]: one for one in (last["live"], last["before"]) if one} if last else {}
        if self.release.settings.release:
            contents = known.get(live)
        elif contents and live in known:
            contents["commit"] = known[live]["commit"]
        history = last["history"] if last else []
        same = last is not None and history[:1] == [live]
        return {
            "format": FORMAT,
            "key": key_digest(key),
            "settings": self.of_settings(key),
            "history": [live, *(one for one in history if one != live)][:HISTORY],
            "live": contents,
            "before": (last["before"] if same else last["live"]) if last else None,
        }


def _digests(key: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _digest(key, name, value) for name, value in sorted(values.items())}


def _digest(key: str, name: str, value: Any) -> str:
    if not key:
        return ""
    secret = hashlib.sha256(b"decant contents\0" + key.encode()).digest()
    text = json.dumps([name, value], sort_keys=True, separators=(",", ":"), default=str)
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:16]


def key_digest(key: str) -> str:
    """What shows whether two records were made with the same key."""
    return _digest(key, "", None)


def encode(record: Record) -> str:
    """A record as the text that the state holds."""
    return base64.b64encode(zlib.compress(json.dumps(record, sort_keys=True).encode(), 9)).decode()


def decode(text: Any) -> Record | None:
    """A record from that text; None where there is none, or one of another version of Decant."""
    if not isinstance(text, str):
        return None
    try:
        record: Record = json.loads(zlib.decompress(base64.b64decode(text)))
        return record if record["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


def read_contents(app: App, release: Release, settings: Mapping[str, Any]) -> Contents:
    """What the app folder and the settings hold now."""
    return Contents(app=app, release=release, commit=commit_of(app.folder), settings=settings)


def recorded(contents: Contents, key: pulumi.Input[str], live: pulumi.Output[str]) -> pulumi.Output[str]:
    """The record as an output of the stack: it is encrypted in the state, and shown as `[secret]`."""
    parts = pulumi.Output.all(key, live, pulumi.Output.from_input(last_output(OUTPUT)))
    return pulumi.Output.secret(parts.apply(partial(_next_record, contents)))


def _next_record(contents: Contents, parts: list[Any]) -> str:
    key, live, last = parts
    return encode(contents.record(key, live, decode(last)))


def tell_preview(contents: Contents, key: pulumi.Input[str], cost: CostOutput | None) -> None:
    """In a preview, write what is known to the file that PREVIEW_VARIABLE names; nothing where it names none.

    It is written at once, for a preview that fails later, and again with digests. Without the stack's key, which a new
    stack's preview does not know, there are none.
    """
    path = os.environ.get(PREVIEW_VARIABLE)
    if not path or not pulumi.runtime.is_dry_run():
        return
    write = partial(_write_preview, Path(path), contents, cost)
    write("", "")

    async def complete() -> Any:
        write(await pulumi.Output.from_input(key).future() or "", await contents.release.id.future() or "")

    pulumi.Output.from_input(complete())  # Pulumi waits for it at the end of the program


def _write_preview(path: Path, contents: Contents, cost: CostOutput | None, key: str, release: str) -> None:
    preview: Preview = {
        "key": key_digest(key),
        "settings": contents.of_settings(key),
        "pinned": contents.release.settings.release,
        "contents": contents.of_release(key, release),
        "cost": cost,
    }
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(preview, file)
    unfinished.replace(path)


def read_preview(path: Path) -> Preview | None:
    """What a preview has written; None where it failed before it knew anything."""
    if not path.exists():
        return None
    preview: Preview = json.loads(path.read_text(encoding="utf-8"))
    return preview
