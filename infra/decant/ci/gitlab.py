"""GitLab: notes on merge requests and issues by its REST API.

Reference: https://docs.gitlab.com/api/rest/
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

from decant.ci.api_client import ApiClient, check_token, check_url
from decant.ci.forge import Entry, Job, Thread
from decant.errors import CiError, ForgeError, UnclearWriteError

NOT_SET = """GITLAB_TOKEN is not set, so GitLab takes no comment and no issue.
A job's own token (CI_JOB_TOKEN) may not write them.
Make a project access token with the role Reporter and the scope `api` (Settings, Access tokens), and store it as the
masked variable GITLAB_TOKEN (Settings, CI/CD, Variables)."""
NO_REQUEST = """This pipeline is not about a merge request, so there is nowhere to comment.
Let this job run for the source merge_request_event, or name one: make ci-comment PR=12"""
NOT_VALID = """GITLAB_TOKEN is not valid: it was revoked, or its time is over.
Make a new project access token (Settings, Access tokens) and store it as the variable GITLAB_TOKEN."""
MISSING = "GITLAB_TOKEN needs the scope `api` and at least the role Reporter in this project (Settings, Access tokens)."
# GitLab carries out a line such as "/merge" in a text. A word that starts a line is followed by an invisible space.
COMMAND = re.compile(r"^([ \t]*)/(?=[a-z])", re.MULTILINE)
INVISIBLE = "\u200b"


class GitLab:
    """One project, as the holder of GITLAB_TOKEN sees it."""

    def __init__(self, environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises CiError."""
        self._environ = environ
        # For a merge request from a fork, GitLab runs the pipeline in the fork; the request is the target project's.
        self._project = environ.get("CI_MERGE_REQUEST_PROJECT_ID") or self._need("CI_PROJECT_ID")
        if not environ.get("GITLAB_TOKEN", "").strip():
            raise CiError(NOT_SET)
        token = check_token("GITLAB_TOKEN", environ["GITLAB_TOKEN"])
        url = check_url("CI_API_V4_URL", self._need("CI_API_V4_URL"))
        self.api = ApiClient("GitLab", url, token, {"PRIVATE-TOKEN": token}, sleep=sleep)

    def _need(self, variable: str) -> str:
        if not self._environ.get(variable):
            raise CiError(f"{variable} is not set. GitLab's runner sets it; pass it on to this program.")
        return self._environ[variable]

    @cached_property
    def job(self) -> Job:
        """The job that runs this program."""
        get = self._environ.get
        return Job(
            order=(int(self._need("CI_PIPELINE_ID")), int(get("CI_JOB_ID") or 1)),
            url=get("CI_JOB_URL") or get("CI_PIPELINE_URL") or "",
            # The first of each is set where GitLab has merged both branches for the pipeline.
            commit=get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or get("CI_COMMIT_SHA") or "",
            base=get("CI_MERGE_REQUEST_TARGET_BRANCH_SHA") or get("CI_MERGE_REQUEST_DIFF_BASE_SHA") or "",
            branch=get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME") or get("CI_COMMIT_BRANCH") or "",
        )

    def request_number(self) -> int:
        """The merge request that the pipeline is about. Raises CiError."""
        number = self._environ.get("CI_MERGE_REQUEST_IID", "")
        if not number.isdigit():
            raise CiError(NO_REQUEST)
        return int(number)

    def comments(self, number: int) -> Thread:
        """The notes of a merge request."""
        return _Notes(self, number)

    def issues(self, title: str) -> Thread:
        """The open issues; a new one gets this title."""
        return _Issues(self, title)

    def open_requests(self, branch: str) -> list[int]:
        """The numbers of the open merge requests into a branch. Raises ForgeError."""
        with self.explained("read its merge requests"):
            found = self.api.every(self.path("/merge_requests"), state="opened", target_branch=branch)
            return [int(request["iid"]) for request in found]

    def branch_head(self, branch: str) -> str:
        """The commit that a branch is at. Raises ForgeError."""
        with self.explained("read its branches"):
            answer = self.api.request("GET", self.path(f"/repository/branches/{quote(branch, safe='')}"))
            return str(answer.data["commit"]["id"])

    @cached_property
    def user(self) -> int:
        """The id of the user whom the token stands for; each project access token has one of its own."""
        with self.explained("say whose token this is"):
            return int(self.api.request("GET", "/user").data["id"])

    def path(self, rest: str) -> str:
        """A path in the project's part of the API."""
        return f"/projects/{quote(self._project, safe='')}{rest}"

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Say in an error what was refused, and what helps."""
        try:
            yield
        except UnclearWriteError:
            raise
        except ForgeError as error:
            text = f"GitLab did not {doing}: {error}"
            remedy = {401: NOT_VALID, 403: MISSING, 404: MISSING}.get(error.status, "")
            raise ForgeError(f"{text}\n{remedy}" if remedy else text, status=error.status) from None


def inert(text: str) -> str:
    """A text whose lines GitLab does not carry out as commands."""
    return COMMAND.sub(rf"\1{INVISIBLE}/", text)


class _Notes:
    def __init__(self, gitlab: GitLab, number: int) -> None:
        self._gitlab = gitlab
        self._path = gitlab.path(f"/merge_requests/{number}/notes")
        self._request = f"merge request {number}"

    def entries(self) -> Sequence[Entry]:
        with self._gitlab.explained(f"show the comments of {self._request}"):
            found = list(self._gitlab.api.every(self._path, sort="asc", order_by="created_at"))
        return [
            Entry(
                id=int(n["id"]),
                text=n["body"] or "",
                mine=n["author"]["id"] == self._gitlab.user,
                url=self._url(n["id"]),
            )
            for n in found
            if not n["system"]
        ]

    def read(self, id: int) -> str:
        with self._gitlab.explained(f"show the comments of {self._request}"):
            return str(self._gitlab.api.request("GET", f"{self._path}/{id}").data["body"])

    def create(self, text: str) -> Entry:
        with self._gitlab.explained(f"take a comment on {self._request}"):
            made = self._gitlab.api.request("POST", self._path, {"body": inert(text)}).data
        return Entry(id=int(made["id"]), text=inert(text), mine=True, url=self._url(made["id"]))

    def edit(self, id: int, text: str) -> None:
        with self._gitlab.explained(f"change a comment of {self._request}"):
            self._gitlab.api.request("PUT", f"{self._path}/{id}", {"body": inert(text)})

    def remove(self, id: int) -> None:
        with self._gitlab.explained(f"delete a comment of {self._request}"):
            self._gitlab.api.request("DELETE", f"{self._path}/{id}")

    def _url(self, id: int) -> str:
        return f"{self._request}, note {id}"


class _Issues:
    def __init__(self, gitlab: GitLab, title: str) -> None:
        self._gitlab = gitlab
        self._title = title

    def entries(self) -> Sequence[Entry]:
        with self._gitlab.explained("show its issues"):
            query = {"state": "opened", "scope": "all", "sort": "asc", "order_by": "created_at"}
            found = list(self._gitlab.api.every(self._gitlab.path("/issues"), **query))
        return [_issue(issue, self._gitlab.user) for issue in found]

    def read(self, id: int) -> str:
        with self._gitlab.explained("show its issues"):
            return str(self._gitlab.api.request("GET", self._gitlab.path(f"/issues/{id}")).data["description"])

    def create(self, text: str) -> Entry:
        with self._gitlab.explained("take an issue"):
            body = {"title": self._title, "description": inert(text)}
            made = self._gitlab.api.request("POST", self._gitlab.path("/issues"), body).data
        return _issue(made, self._gitlab.user)

    def edit(self, id: int, text: str) -> None:
        with self._gitlab.explained(f"change issue {id}"):
            self._gitlab.api.request("PUT", self._gitlab.path(f"/issues/{id}"), {"description": inert(text)})

    def remove(self, id: int) -> None:
        with self._gitlab.explained(f"close issue {id}"):
            self._gitlab.api.request("PUT", self._gitlab.path(f"/issues/{id}"), {"state_event": "close"})


def _issue(found: Mapping[str, Any], user: int) -> Entry:
    return Entry(
        id=int(found["iid"]),
        text=found.get("description") or "",
        mine=found["author"]["id"] == user,
        url=str(found["web_url"]),
    )
