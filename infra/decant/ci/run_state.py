"""Whether a run of CI is over, as its forge says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from decant.ci.api_client import ApiClient, check_token, check_url
from decant.ci.runs import Run
from decant.errors import CiError, ForgeError

ENDED_JOBS = ("success", "failed", "canceled", "skipped")  # GitLab's words: https://docs.gitlab.com/api/jobs/


def run_is_over(
    run: Run, environ: Mapping[str, str] = os.environ, *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Whether a run has ended, with all of its jobs.

    Raises:
        CiError: a variable is missing, or the forge's address is none that may get a token.
        ForgeError: the forge cannot be asked, or knows no such run. The text says what is missing.
    """
    if run.forge == "gitlab":
        token = check_token("GITLAB_TOKEN", _needed(environ, "GITLAB_TOKEN"))
        api = check_url("CI_API_V4_URL", _needed(environ, "CI_API_V4_URL"))
        client = ApiClient("GitLab", api, token, {"PRIVATE-TOKEN": token}, sleep=sleep)
        job = _ask(client, f"/projects/{_needed(environ, 'CI_PROJECT_ID')}/jobs/{run.id}")
        return job in ENDED_JOBS
    token = check_token("GITHUB_TOKEN", _needed(environ, "GITHUB_TOKEN"))
    api = check_url("GITHUB_API_URL", environ.get("GITHUB_API_URL") or "https://api.github.com")
    client = ApiClient("GitHub", api, token, {"Authorization": f"Bearer {token}"}, sleep=sleep)
    repository = quote(_needed(environ, "GITHUB_REPOSITORY"))
    return _ask(client, f"/repos/{repository}/actions/runs/{run.id}/attempts/{run.attempt}") == "completed"


def _needed(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise CiError(f"{variable} is not set: give it to this step of the workflow")
    return value


def _ask(client: ApiClient, path: str) -> str:
    """The status of a run or a job. Raises ForgeError."""
    try:
        answer = client.request("GET", path).data
    except ForgeError as error:
        if error.status not in (401, 403, 404):
            raise
        hint = "may the token read it (on GitHub: permissions: actions: read)?"
        raise ForgeError(f"{path} answers with status {error.status}: {hint}", status=error.status) from None
    return str(answer.get("status")) if isinstance(answer, dict) else ""
