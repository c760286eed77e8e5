"""GitHub: comments on pull requests and issues by its REST API.

Reference: https://docs.github.com/en/rest
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from decant.app.files import escaped
from decant.ci.api_client import ApiClient, check_token, check_url
from decant.ci.forge import Entry, Job, Thread
from decant.errors import CiError, ForgeError, UnclearWriteError

VERSION = "2022-11-28"
COMMIT = re.compile(r"[0-9a-f]{40,64}")
NOT_SET = """GITHUB_TOKEN is not set, so GitHub takes no comment and no issue. Give it to this step of the workflow:

    env:
      GITHUB_TOKEN: ${{ github.token }}"""
NO_REQUEST = """This run is not about a pull request: its event is {event}, so there is nowhere to comment.
Run this step for the event pull_request, or name one: make ci-comment PR=12"""
NOT_VALID = """GITHUB_TOKEN is not valid: it belongs to another job, or has ended with its job.
Give this job's own to the step:

    env:
      GITHUB_TOKEN: ${{ github.token }}"""
MISSING = """The token needs the permission `{permission}`. Add it to the workflow's job:

    permissions:
      {lines}"""
FORK = """The pull request comes from a fork, and GitHub gives such a run a token that can only read.
Comment from a workflow with the trigger workflow_run, which runs after this one and checks out no code of the fork."""
NO_ISSUES = "Issues are switched off in {repository}. Switch them on: Settings, General, Features, Issues."


class GitHub:
    """One repository, as the holder of GITHUB_TOKEN sees it."""

    def __init__(
        self, environ: Mapping[str, str], *, project: Path, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`project` is the folder that the job has checked out. Raises CiError."""
        self._environ = environ
        self._project = project
        self.repository = self._need("GITHUB_REPOSITORY")
        if not environ.get("GITHUB_TOKEN", "").strip():
            raise CiError(NOT_SET)
        token = check_token("GITHUB_TOKEN", environ["GITHUB_TOKEN"])
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": VERSION,
        }
        api = check_url("GITHUB_API_URL", environ.get("GITHUB_API_URL") or "https://api.github.com")
        graphql = environ.get("GITHUB_GRAPHQL_URL") or "https://api.github.com/graphql"
        self.api = ApiClient("GitHub", api, token, headers, sleep=sleep)
        self._graphql = ApiClient("GitHub", check_url("GITHUB_GRAPHQL_URL", graphql), token, headers, sleep=sleep)
        self.event = _read_event(environ)

    def _need(self, variable: str) -> str:
        if not self._environ.get(variable):
            raise CiError(f"{variable} is not set. GitHub's runner sets it; pass it on to this program.")
        return self._environ[variable]

    @cached_property
    def job(self) -> Job:
        """The run that this is a job of; for the event workflow_run, the run that it follows."""
        url = f"{self._environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{self.repository}/actions/runs/"
        followed = self.event.get("workflow_run")
        if followed:
            order = (int(followed["id"]), int(followed["run_attempt"]))
            own = not self._is_fork(followed.get("head_repository"))
            return Job(order=order, url=f"{url}{order[0]}", commit=_commit(followed.get("head_sha")), trusted=own)
        order = (int(self._need("GITHUB_RUN_ID")), int(self._environ.get("GITHUB_RUN_ATTEMPT") or 1))
        url += str(order[0])
        pull = self.event.get("pull_request")
        if not pull:
            ref = self._environ.get("GITHUB_REF", "")
            branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
            return Job(order=order, url=url, commit=_commit(self._environ.get("GITHUB_SHA")), branch=branch)
        head = _commit(pull["head"]["sha"])
        base = _merged_base(self._project, head) or _commit(pull["base"]["sha"])
        return Job(order=order, url=url, commit=head, base=base, branch=str(pull["base"]["ref"]))

    def request_number(self) -> int:
        """The pull request that the event is about. Raises CiError, ForgeError."""
        pull = self.event.get("pull_request")
        issue = self.event.get("issue")
        if pull:
            return int(pull["number"])
        if issue and "pull_request" in issue:
            return int(issue["number"])
        followed = self.event.get("workflow_run")
        if followed:
            return self._followed_request(followed)
        raise CiError(NO_REQUEST.format(event=self._environ.get("GITHUB_EVENT_NAME") or "unknown"))

    def _followed_request(self, followed: Mapping[str, Any]) -> int:
        """The pull request of a run that this one follows.

        GitHub does not name that of a fork. What the fork's own run says about it is not to be trusted, so the open
        pull requests are asked which one has the run's commit as its head.
        """
        owner = followed["head_repository"]["owner"]["login"]
        head = f"{owner}:{followed['head_branch']}"
        with self.explained("read its pull requests", "pull-requests: write"):
            pulls = list(self.api.every(self.path("/pulls"), state="open", head=head))
        numbers = [int(pull["number"]) for pull in pulls if pull["head"]["sha"] == followed["head_sha"]]
        if not numbers:
            raise CiError("The pull request of the run that this one follows is closed, or has newer commits.")
        return numbers[0]

    def comments(self, number: int) -> Thread:
        """The comments of a pull request."""
        return _Comments(self, number)

    def issues(self, title: str) -> Thread:
        """The open issues; a new one gets this title."""
        return _Issues(self, title)

    def open_requests(self, branch: str) -> list[int]:
        """The numbers of the open pull requests into a branch. Raises ForgeError."""
        with self.explained("read its pull requests", "pull-requests: write"):
            return [int(pull["number"]) for pull in self.api.every(self.path("/pulls"), state="open", base=branch)]

    def branch_head(self, branch: str) -> str:
        """The commit that a branch is at. Raises ForgeError."""
        with self.explained("read its branches", "contents: read"):
            answer = self.api.request("GET", self.path(f"/git/ref/heads/{quote(branch)}"))
            return str(answer.data["object"]["sha"])

    @cached_property
    def login(self) -> str:
        """Who the token stands for: GITHUB_TOKEN may not ask for GET /user, but may ask this."""
        with self.explained("say whose token this is", ""):
            answer = self._graphql.request("POST", "", {"query": "query { viewer { login } }"}, makes=False)
        try:
            return str(answer.data["data"]["viewer"]["login"])
        except (KeyError, TypeError):
            raise ForgeError(
                "GitHub does not say whose token GITHUB_TOKEN is, so no comment can be found again."
            ) from None

    def path(self, rest: str) -> str:
        """A path in the repository's part of the API."""
        return f"/repos/{quote(self.repository)}{rest}"

    @contextmanager
    def explained(self, doing: str, permission: str) -> Iterator[None]:
        """Say in an error what was refused, and what helps. `permission` is as a workflow writes it."""
        try:
            yield
        except UnclearWriteError:
            raise
        except ForgeError as error:
            text = f"GitHub did not {doing} in {self.repository}: {error}"
            remedy = self._remedy(error, permission)
            raise ForgeError(f"{text}\n{remedy}" if remedy else text, status=error.status) from None

    def _remedy(self, error: ForgeError, permission: str) -> str:
        if error.status == 401:
            return NOT_VALID
        if error.status == 410:
            return NO_ISSUES.format(repository=self.repository)
        lacking = error.status == 403 and "not accessible" in str(error)
        if not permission or not (lacking or error.status == 404):
            return ""
        if lacking and self._from_fork():
            return FORK
        unseen = "" if lacking else "Either there is no such thing, or the token does not see it. "
        lines = sorted({"contents: read", permission})  # naming one takes away all that are not named
        return unseen + MISSING.format(permission=permission, lines="\n      ".join(lines))

    def _from_fork(self) -> bool:
        pull = self.event.get("pull_request")
        return pull is not None and self._is_fork(pull["head"].get("repo"))

    def _is_fork(self, repository: Mapping[str, Any] | None) -> bool:
        """Whether it is another one than this; None is a fork that was deleted."""
        return not repository or str(repository["full_name"]).lower() != self.repository.lower()


class _Comments:
    def __init__(self, github: GitHub, number: int) -> None:
        self._github = github
        self._number = number

    def entries(self) -> Sequence[Entry]:
        path = self._github.path(f"/issues/{self._number}/comments")
        with self._explained("show"):
            found = list(self._github.api.every(path))
        return [_entry(comment, comment["id"], self._github.login) for comment in found]

    def read(self, id: int) -> str:
        with self._explained("show"):
            return str(self._github.api.request("GET", self._github.path(f"/issues/comments/{id}")).data["body"])

    def create(self, text: str) -> Entry:
        path = self._github.path(f"/issues/{self._number}/comments")
        with self._explained("take"):
            made = self._github.api.request("POST", path, {"body": text}).data
        return Entry(id=int(made["id"]), text=text, mine=True, url=str(made["html_url"]))

    def edit(self, id: int, text: str) -> None:
        with self._explained("change"):
            self._github.api.request("PATCH", self._github.path(f"/issues/comments/{id}"), {"body": text})

    def remove(self, id: int) -> None:
        with self._explained("delete"):
            self._github.api.request("DELETE", self._github.path(f"/issues/comments/{id}"))

    def _explained(self, doing: str) -> AbstractContextManager[None]:
        return self._github.explained(f"{doing} comments of pull request {self._number}", "pull-requests: write")


class _Issues:
    def __init__(self, github: GitHub, title: str) -> None:
        self._github = github
        self._title = title

    def entries(self) -> Sequence[Entry]:
        with self._github.explained("show its issues", "issues: write"):
            found = list(self._github.api.every(self._github.path("/issues"), state="open", direction="asc"))
        # GitHub lists pull requests as issues, too.
        issues = [issue for issue in found if "pull_request" not in issue]
        return [_entry(issue, issue["number"], self._github.login) for issue in issues]

    def read(self, id: int) -> str:
        with self._github.explained("show its issues", "issues: write"):
            return str(self._github.api.request("GET", self._github.path(f"/issues/{id}")).data["body"])

    def create(self, text: str) -> Entry:
        with self._github.explained("take an issue", "issues: write"):
            body = {"title": self._title, "body": text}
            made = self._github.api.request("POST", self._github.path("/issues"), body).data
        return Entry(id=int(made["number"]), text=text, mine=True, url=str(made["html_url"]))

    def edit(self, id: int, text: str) -> None:
        with self._github.explained(f"change issue {id}", "issues: write"):
            self._github.api.request("PATCH", self._github.path(f"/issues/{id}"), {"body": text})

    def remove(self, id: int) -> None:
        with self._github.explained(f"close issue {id}", "issues: write"):
            self._github.api.request("PATCH", self._github.path(f"/issues/{id}"), {"state": "closed"})


def _entry(found: Mapping[str, Any], id: int, login: str) -> Entry:
    author = (found.get("user") or {}).get("login")  # null where the account was deleted
    return Entry(id=int(id), text=found.get("body") or "", mine=author == login, url=str(found["html_url"]))


def _read_event(environ: Mapping[str, str]) -> dict[str, Any]:
    """What GitHub says about the event; empty where it says nothing. Raises CiError."""
    path = environ.get("GITHUB_EVENT_PATH")
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CiError(f"GITHUB_EVENT_PATH is {escaped(path)}, which cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _commit(value: object) -> str:
    """A commit's hash; empty where it is none."""
    return value if isinstance(value, str) and COMMIT.fullmatch(value) else ""


def _merged_base(project: Path, head: str) -> str:
    """The commit of the target branch that GitHub has merged the head with for this run.

    The event names an older one where the branch has changed since the last push to the pull request. Empty where
    the folder has not checked out that merge.
    """
    command = ["git", "-C", str(project), "cat-file", "-p", "HEAD"]  # knows a shallow clone's parents as well
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
    parents = [
        line.removeprefix("parent ") for line in found.partition("\n\n")[0].splitlines() if line.startswith("parent ")
    ]
    return _commit(parents[0]) if len(parents) == 2 and parents[1] == head else ""
