"""Whether a run of CI is over, as its forge says."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import quote

from decant.ci.api_client import check_url
from decant.ci.runs import Run
from decant.errors import StackError

TIMEOUT = 20.0  # seconds for one answer
ATTEMPTS = 3
ENDED_JOBS = ("success", "failed", "canceled", "skipped")  # GitLab's words: https://docs.gitlab.com/api/jobs/


def run_is_over(run: Run, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a run has ended, with all of its jobs.

    Raises:
        CiError: the forge's address is none that may get a token.
        StackError: the forge cannot be asked, or knows no such run. The text says what is missing.
    """
    if run.forge == "gitlab":
        api = check_url("CI_API_V4_URL", _needed(environ, "CI_API_V4_URL"))
        url = api + f"/projects/{_needed(environ, 'CI_PROJECT_ID')}/jobs/{run.id}"
        found = _ask(url, {"PRIVATE-TOKEN": _needed(environ, "GITLAB_TOKEN")})
        return found.get("status") in ENDED_JOBS
    api = check_url("GITHUB_API_URL", environ.get("GITHUB_API_URL") or "https://api.github.com")
    repository = quote(_needed(environ, "GITHUB_REPOSITORY"))
    url = f"{api}/repos/{repository}/actions/runs/{run.id}/attempts/{run.attempt}"
    token = _needed(environ, "GITHUB_TOKEN")
    found = _ask(url, {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"})
    return found.get("status") == "completed"


def _needed(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise StackError(f"{variable} is not set: give it to this step of the workflow")
    return value


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Nothing follows a redirect: urllib would send the token along."""
        del req, fp, code, msg, headers, newurl


def _ask(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The forge's answer. Raises StackError, whose text does not have the token."""
    opener = urllib.request.build_opener(_NoRedirect)
    why = ""
    for _ in range(ATTEMPTS):
        try:
            with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT) as answer:  # noqa: S310 (the forge's own variable)
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            why = f"{url} answers with status {error.code}"
            if error.code in (401, 403, 404):
                why += ": may the token read it (on GitHub: permissions: actions: read)?"
                break
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"{url} does not answer: {type(error).__name__}"
    raise StackError(why)
