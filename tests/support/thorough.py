"""When the tests marked `thorough` run: on request, and in CI after a change of what they are about.

    python -m tests.support.thorough      record that all of them have passed (`make thorough` does so)

They take many minutes, so `make test` leaves them out. The record is a digest of the code that they are about. CI runs
them by itself while the digest of the checkout is another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tests.support.project_copy import REPOSITORY

RECORD = REPOSITORY / "tests" / "hosts" / "thorough.sha256"
ABOUT = (
    "infra/decant_host/*.py", "infra/decant/rollout/*.py", "infra/decant/host/systemd/*", "infra/decant/host/nginx/*",
    "infra/decant/host/gunicorn/*.py", "infra/decant/host/scripts/decant-host.sh", "infra/decant/clouds/*/*.py",
)  # fmt: skip


def digest(repository: Path = REPOSITORY) -> str:
    """A hash of the names and contents of the files that match ABOUT."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in ABOUT for path in repository.glob(pattern) if path.is_file()):
        found.update(f"{path.relative_to(repository)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def are_due(environment: Mapping[str, str] = os.environ, *, record: Path = RECORD, current: str | None = None) -> bool:
    """Whether CI has to run them: the code differs from the code that they passed with. CI services set `CI`."""
    if not environment.get("CI"):
        return False
    return not record.exists() or record.read_text(encoding="ascii").strip() != (current or digest())


if __name__ == "__main__":
    RECORD.write_text(digest() + "\n", encoding="ascii")
