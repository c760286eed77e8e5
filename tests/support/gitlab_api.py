"""GitLab's REST API with one project in memory: notes of merge requests, issues and branches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.support.forge_api import Call, ForgeApi, Refused, Reply, now

Json = dict[str, Any]
BODY_LIMIT = 1_000_000
GUEST, REPORTER = 10, 20  # access levels; a reporter may open and close issues of others


@dataclass(frozen=True)
class Token:
    """Who a token stands for: each project access token has a user of its own."""

    user: int
    scope: str = "api"
    level: int = REPORTER


class GitLabApi(ForgeApi):
    """One project. Tests read and change `notes`, `issues`, `requests` and `branches` directly."""

    prefix = "/api/v4"
    page_size = 20

    def __init__(self, project: int = 77, *, token: str = "glpat-canary0123456789abcd") -> None:
        super().__init__()
        self.project = project
        self.token = token
        self.tokens = {token: Token(900)}
        self.requests: dict[int, Json] = {}
        self.issues: dict[int, Json] = {}
        self.notes: dict[int, Json] = {}
        self.branches = {"main": "b" * 40}
        self.carried_out: list[str] = []
        """Quick actions: GitLab carries out a line such as "/close" in a text, instead of showing it."""
        self.ids = itertools.count(3001)
        self.routes = self._routes()

    def _routes(self) -> list[tuple[str, str, Callable[..., Reply]]]:
        notes = r"/merge_requests/(\d+)/notes"
        return [
            ("GET", notes, self._list_notes),
            ("POST", notes, self._add_note),
            ("GET", notes + r"/(\d+)", lambda call, n, id: Reply(200, self._found(self.notes, id, "Note"))),
            ("PUT", notes + r"/(\d+)", self._edit_note),
            ("DELETE", notes + r"/(\d+)", self._delete_note),
            ("GET", r"/merge_requests", self._list_requests),
            ("GET", r"/repository/branches/([^/]+)", self._branch),
            ("GET", r"/issues", self._list_issues),
            ("POST", r"/issues", self._add_issue),
            ("GET", r"/issues/(\d+)", lambda call, n: Reply(200, self._found(self.issues, n, "Issue"))),
            ("PUT", r"/issues/(\d+)", self._edit_issue),
        ]

    # What a test arranges and reads

    def request(self, number: int, *, base: str = "main") -> Json:
        """Open a merge request."""
        self.requests[number] = {"iid": number, "state": "opened", "target_branch": base}
        return self.requests[number]

    def note(self, number: int, body: str, *, user: int = 5, system: bool = False) -> Json:
        """Somebody comments."""
        id = next(self.ids)
        self.notes[id] = {
            "id": id, "noteable_iid": number, "body": body, "author": {"id": user}, "system": system,
            "created_at": now(),
        }  # fmt: skip
        return self.notes[id]

    def notes_of(self, number: int, user: int = 900) -> list[str]:
        """The texts of the notes that `user` left, oldest first."""
        return [n["body"] for n in self.notes.values() if n["noteable_iid"] == number and n["author"]["id"] == user]

    def environment(
        self, *, number: int = 0, token: str | None = None, pipeline: int = 800, job: int = 1
    ) -> dict[str, str]:
        """The variables of a job, as a runner sets them, and GITLAB_TOKEN, which the project's settings hold."""
        found = {
            "CI": "true", "GITLAB_CI": "true", "CI_API_V4_URL": self.url + self.prefix,
            "CI_PROJECT_ID": str(self.project), "CI_PIPELINE_ID": str(pipeline), "CI_JOB_ID": str(job),
            "CI_JOB_URL": f"https://gitlab.com/octo/site/-/jobs/{job}", "CI_COMMIT_SHA": "c" * 40,
            "GITLAB_TOKEN": self.token if token is None else token,
        }  # fmt: skip
        if not number:
            return {**found, "CI_COMMIT_BRANCH": "main"}
        return {
            **found, "CI_MERGE_REQUEST_IID": str(number), "CI_MERGE_REQUEST_PROJECT_ID": str(self.project),
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": self.requests[number]["target_branch"],
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": self.branches["main"],
        }  # fmt: skip

    # Requests

    def answer(self, call: Call) -> Reply:
        token = self.tokens.get(call.headers.get("private-token", ""))
        if token is None:
            raise Refused(401, {"message": "401 Unauthorized"})
        if token.scope != "api" and (token.scope != "read_api" or call.method != "GET"):
            text = "The request requires higher privileges than provided by the access token."
            raise Refused(403, {"error": "insufficient_scope", "error_description": text, "scope": "api"})
        self._token = token
        if call.path == "/user":
            return Reply(200, {"id": token.user, "username": f"project_{self.project}_bot"})
        for method, pattern, route in self.routes:
            found = re.fullmatch(rf"/projects/{self.project}{pattern}", call.path)
            if found and method == call.method:
                return route(call, *(int(g) if g.isdigit() else unquote(g) for g in found.groups()))
        self.unknown.append(str(call))
        raise Refused(404, {"error": "404 Not Found"})

    def _found(self, things: Mapping[int, Json], key: int, what: str) -> Json:
        if key not in things:
            raise Refused(404, {"message": f"404 {what} Not Found"})
        return things[key]

    def _text(self, call: Call, field: str) -> str:
        body = call.body.get(field)
        if not isinstance(body, str) or not body.strip():
            raise Refused(400, {"message": {field: ["can't be blank"]}})
        if len(body) > BODY_LIMIT:
            raise Refused(400, {"message": {field: [f"is too long (maximum is {BODY_LIMIT} characters)"]}})
        shown: list[str] = []
        for line in body.splitlines():
            (self.carried_out if re.match(r"\s*/[a-z]", line) else shown).append(line)
        return "\n".join(shown)

    def _list_notes(self, call: Call, number: int) -> Reply:
        self._found(self.requests, number, "Merge Request")
        notes = [n for n in self.notes.values() if n["noteable_iid"] == number]
        return self.page(call, notes if call.query.get("sort") == "asc" else reversed(notes))

    def _add_note(self, call: Call, number: int) -> Reply:
        self._found(self.requests, number, "Merge Request")
        return Reply(201, self.note(number, self._text(call, "body"), user=self._token.user))

    def _own_note(self, id: int) -> Json:
        note = self._found(self.notes, id, "Note")
        if note["author"]["id"] != self._token.user:  # a reporter may not touch the notes of others
            raise Refused(403, {"message": "403 Forbidden"})
        return note

    def _edit_note(self, call: Call, number: int, id: int) -> Reply:
        self._own_note(id)["body"] = self._text(call, "body")
        return Reply(200, self.notes[id])

    def _delete_note(self, call: Call, number: int, id: int) -> Reply:
        self._own_note(id)
        del self.notes[id]
        return Reply(204)

    def _list_requests(self, call: Call) -> Reply:
        wanted = call.query
        found = [
            r for r in self.requests.values() if r["target_branch"] == wanted.get("target_branch", r["target_branch"])
        ]
        return self.page(call, [r for r in reversed(found) if wanted.get("state", "all") in ("all", r["state"])])

    def _branch(self, call: Call, name: str) -> Reply:
        if name not in self.branches:
            raise Refused(404, {"message": "404 Branch Not Found"})
        return Reply(200, {"name": name, "commit": {"id": self.branches[name]}})

    def issue(self, title: str, description: str, *, user: int = 5) -> Json:
        """Somebody opens an issue."""
        number = next(self.ids)
        self.issues[number] = {
            "iid": number, "state": "opened", "title": title, "description": description, "author": {"id": user},
            "web_url": f"https://gitlab.com/octo/site/-/issues/{number}",
        }  # fmt: skip
        return self.issues[number]

    def _list_issues(self, call: Call) -> Reply:
        return self.page(
            call, [i for i in self.issues.values() if call.query.get("state", "all") in ("all", i["state"])]
        )

    def _add_issue(self, call: Call) -> Reply:
        return Reply(201, self.issue(call.body["title"], self._text(call, "description"), user=self._token.user))

    def _edit_issue(self, call: Call, number: int) -> Reply:
        issue = self._found(self.issues, number, "Issue")
        if self._token.level < REPORTER:
            raise Refused(403, {"message": "403 Forbidden"})
        if "description" in call.body:
            issue["description"] = self._text(call, "description")
        if call.body.get("state_event") == "close":
            issue["state"] = "closed"
        return Reply(200, issue)
