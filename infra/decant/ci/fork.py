"""The comment on a fork's pull request: what its rehearsal came to, and why it has no preview.

Nothing of it comes from the fork's code: the forge itself says how the run ended, and of which commit it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from decant.ci.forge import Job
from decant.errors import CiError

KEY = "fork"
NO_RUN = """This run follows no other one, so there is no fork to comment on.
`make ci-fork` is for a workflow with the trigger workflow_run: .github/workflows/forks.yml"""

ENDED = {
    "success": "**The rehearsal of this pull request says that its app serves.** It puts the app live on throwaway"
    " machines",
    "failure": "**The rehearsal of this pull request failed.** The app was to be put live on throwaway machines",
}
"""What a run came to, by GitHub's word for it."""

TEXT = """### From a fork

{ended}, without any credentials. The card and a screenshot of the front page are on [the page of the run]({url}).
The workflow that ran is the fork's own. So the result means something only where the changes of `.github`, `Makefile`,
`infra`, `rehearsal` and `tools` are harmless.

There is no preview of what merging would change: it needs the secrets of the stacks, and a fork gets none. For one, a
maintainer who has read all changes pushes commit `{commit}` to a branch of this repository, and opens a pull
request from there."""


def conclusion(environ: Mapping[str, str]) -> str:
    """How the run ended that this one follows. Raises CiError where it follows none."""
    try:
        event = json.loads(Path(environ.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        event = {}
    followed = event.get("workflow_run")
    if not followed:
        raise CiError(NO_RUN)
    return str(followed.get("conclusion") or "")


def fork_text(ended: str, job: Job) -> str:
    """The comment, for a run that ended so."""
    found = ENDED.get(ended, "**The rehearsal of this pull request did not come to an end.** It puts the app live")
    return TEXT.format(ended=found, url=job.url, commit=job.commit)
