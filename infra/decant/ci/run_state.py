"""Whether a run of CI is over, as its forge says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from decant.ci.api_client import ApiClient, check_token, check_url
from decant.ci.runs import Run
from decant.errors import CiError, ForgeError

ENDED_JOBS = ("success", "failed", "canceled", "skipped")  # GitLab's words: https://docs.gitlab.com/api/jobs/
GRACE = timedelta(minutes=2)
"""How long a program may run on after its forge says that the run has ended: a forced cancel, or a lost runner."""


def run_is_over(
    run: Run, environ: Mapping[str, str] = os.environ, *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Whether a run has ended so long ago that nothing of it runs any more. Raises CiError, ForgeError."""
    ended = run_ended(run, environ, sleep=sleep)
    return ended is not None and not seconds_left(ended)


def seconds_left(ended: datetime) -> float:
    """How long something of a run may still run that ended then; 0 where nothing does."""
    left = (ended + GRACE - datetime.now(UTC)).total_seconds()
    return max(0.0, min(left, GRACE.total_seconds()))  # the forge's clock may go ahead of this one


def run_ended(
    run: Run, environ: Mapping[str, str] = os.environ, *, sleep: Callable[[float], None] = time.sleep
) -> datetime | None:
    """When a run has ended, with all of its jobs, as the forge says; None where it has not.

    Raises:
        CiError: a variable is missing, or the forge's address is none that may get a token.
        ForgeError: the forge cannot be asked, or knows no such run. The text says what is missing.
    """
    if run.forge == "gitlab":
        token = check_token("GITLAB_TOKEN", _needed(environ, "GITLAB_TOKEN"))
        api = check_url("CI_API_V4_URL", _needed(environ, "CI_API_V4_URL"))
        client = ApiClient("GitLab", api, token, {"PRIVATE-TOKEN": token}, sleep=sleep)
        job = _ask(client, f"/projects/{_needed(environ, 'CI_PROJECT_ID')}/jobs/{run.id}")
        return _time(job, "finished_at") if job.get("status") in ENDED_JOBS else None
    token = check_token("GITHUB_TOKEN", _needed(environ, "GITHUB_TOKEN"))
    api = check_url("GITHUB_API_URL", environ.get("GITHUB_API_URL") or "https://api.github.com")
    client = ApiClient("GitHub", api, token, {"Authorization": f"Bearer {token}"}, sleep=sleep)
    repository = quote(_needed(environ, "GITHUB_REPOSITORY"))
    found = _ask(client, f"/repos/{repository}/actions/runs/{run.id}/attempts/{run.attempt}")
    return _time(found, "updated_at") if found.get("status") == "completed" else None


def _needed(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise CiError(f"{variable} is not set: give it to this step of the workflow")
    return value


def _time(found: Mapping[str, Any], name: str) -> datetime:
    """The time of a run's end. Raises ForgeError."""
    try:
        return datetime.fromisoformat(str(found.get(name))).astimezone(UTC)
    except ValueError:
        raise ForgeError(f"the run has ended, and {name} does not say when: {found.get(name)!r}") from None


def _ask(client: ApiClient, path: str) -> Mapping[str, Any]:
    """What the forge says of a run or a job. Raises ForgeError."""
    try:
        answer = client.request("GET", path).data
    except ForgeError as error:
        if error.status not in (401, 403, 404):
            raise
        hint = "may the token read it (on GitHub: permissions: actions: read)?"
        raise ForgeError(f"{path} answers with status {error.status}: {hint}", status=error.status) from None
    return answer if isinstance(answer, dict) else {}
