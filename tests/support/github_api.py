"""GitHub's REST API with one repository in memory: what `make ci-comment` and the workflows ask of it.

It pages, limits and refuses as GitHub does. Use it as

    with GitHubApi() as github:
        github.pull(12, head="feature", sha="1" * 40)
        run(["make", "ci-comment", ...], env=github.environment("pull_request", tmp_path, number=12))
        [comment] = github.comments_of(12)

References: https://docs.github.com/en/rest/issues/comments, .../rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.forge_api import Call, ForgeApi, Mood, Refused, Reply, now

Json = dict[str, Any]
BODY_LIMIT = 65_536
TITLE_LIMIT = 256
BOT = "github-actions[bot]"
EVERYTHING = {"contents": "read", "pull-requests": "write", "issues": "write"}
READ_ONLY = {"contents": "read", "pull-requests": "read", "issues": "read"}  # the token of a fork's pull request
LEVELS = {"": 0, "read": 1, "write": 2}


@dataclass(frozen=True)
class Token:
    """Who a token stands for, and its permissions as a workflow names them (`pull-requests`)."""

    login: str
    permissions: Mapping[str, str]
    app: bool = True
    """Whether it belongs to an app, as GITHUB_TOKEN does: such a token cannot ask for GET /user."""


class GitHubApi(ForgeApi):
    """One repository. Tests read and change `comments`, `issues`, `pulls` and `branches` directly."""

    def __init__(
        self,
        repository: str = "octo/site",
        *,
        token: str = "ghs_canary0123456789abcdefghijklmnopqrst",
        permissions: Mapping[str, str] = EVERYTHING,
        private: bool = True,
    ) -> None:
        super().__init__()
        self.repository = repository
        self.token = token
        self.private = private
        self.tokens = {token: Token(BOT, permissions)}
        self.pulls: dict[int, Json] = {}
        self.issues: dict[int, Json] = {}
        self.comments: dict[int, Json] = {}
        """All comments by their ids; `number` is the pull request or issue."""
        self.branches = {"main": "b" * 40}
        self.has_issues = True
        self.lag = 0
        """So many of the next lists do not show what was made last, as a read replica that is behind."""
        self.ids = itertools.count(1001)
        self.routes = self._routes()

    def _routes(self) -> list[tuple[str, str, str, Callable[..., Reply]]]:
        """Method, path, permissions of which one is enough ("issues=write"), and what answers."""
        either = "issues={0}; pull-requests={0}"
        read, write = either.format("read"), either.format("write")
        return [
            ("GET", r"/issues/(\d+)/comments", read, self._list_comments),
            ("POST", r"/issues/(\d+)/comments", write, self._add_comment),
            ("GET", r"/issues/comments/(\d+)", read, lambda call, id: Reply(200, self._comment(id))),
            ("PATCH", r"/issues/comments/(\d+)", write, self._edit_comment),
            ("DELETE", r"/issues/comments/(\d+)", write, self._delete_comment),
            ("GET", r"/pulls", "pull-requests=read", self._list_pulls),
            ("GET", r"/pulls/(\d+)", "pull-requests=read", lambda call, n: Reply(200, self._found(self.pulls, n))),
            ("GET", r"/git/ref/heads/(.+)", "contents=read", self._ref),
            ("GET", r"/issues", "issues=read", self._list_issues),
            ("POST", r"/issues", "issues=write", self._add_issue),
            ("GET", r"/issues/(\d+)", read, lambda call, n: Reply(200, self._found(self.issues, n))),
            ("PATCH", r"/issues/(\d+)", write, self._edit_issue),
            ("GET", r"/issues/(\d+)/labels", read, lambda call, n: self.page(call, self._labels(n))),
            ("POST", r"/issues/(\d+)/labels", write, self._add_labels),
            ("DELETE", r"/issues/(\d+)/labels/(.+)", write, self._remove_label),
        ]

    # What a test arranges and reads

    def pull(
        self,
        number: int,
        *,
        head: str = "feature",
        sha: str = "c" * 40,
        base: str = "main",
        fork: str = "",
        title: str = "A change",
        author: str = "carol",
        body: str = "",
    ) -> Json:
        """Open a pull request; `fork` is the name of the repository that it comes from, such as "mallory/site"."""
        repository = fork or self.repository
        self.pulls[number] = {
            "number": number, "state": "open", "title": title, "user": {"login": author}, "labels": [],
            "body": body, "html_url": f"https://github.com/{self.repository}/pull/{number}",
            "head": {"ref": head, "sha": sha, "label": f"{repository.partition('/')[0]}:{head}",
                     "repo": {"full_name": repository, "fork": bool(fork)}},
            "base": {"ref": base, "sha": self.branches[base], "repo": {"full_name": self.repository}},
        }  # fmt: skip
        return self.pulls[number]

    def comment(self, number: int, body: str, *, author: str = "carol") -> Json:
        """Somebody comments."""
        id = next(self.ids)
        made = {
            "id": id, "number": number, "body": body, "created_at": now(), "updated_at": now(),
            "user": {"login": author, "type": "Bot" if author.endswith("[bot]") else "User"},
            "html_url": f"https://github.com/{self.repository}/pull/{number}#issuecomment-{id}",
        }  # fmt: skip
        self.comments[id] = made
        return made

    def comments_of(self, number: int, author: str = BOT) -> list[str]:
        """The texts of the comments that `author` left, oldest first."""
        return [c["body"] for c in self.comments.values() if c["number"] == number and c["user"]["login"] == author]

    def add_token(self, token: str, permissions: Mapping[str, str], *, login: str = BOT, app: bool = True) -> str:
        self.tokens[token] = Token(login, permissions, app)
        return token

    def secondary_limit(
        self, retry_after: int | None = 7, *, times: int = 1, method: str = "", status: int = 403
    ) -> None:
        """The next requests are refused for coming too fast."""
        text = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.moods.append(Mood(times, method, "", lambda: Reply(status, _message(text, status), dict(headers))))

    def primary_limit(self, seconds: int, *, times: int = 1) -> None:
        """The hour's requests are used up; the next hour starts in so many seconds."""
        text = "API rate limit exceeded for installation ID 41898282."
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + seconds)}
        self.moods.append(Mood(times, "", "", lambda: Reply(403, _message(text, 403), dict(headers))))

    def environment(
        self, event: str, folder: Path, *, number: int = 0, token: str | None = None, run: int = 500, attempt: int = 1,
        action: str = "synchronize", payload: Json | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """The variables of a step, as a runner sets them, with the event's file in `folder`.

        GITHUB_TOKEN is there as well, which a workflow has to pass by itself (`env:`).
        """
        repository = {"full_name": self.repository, "default_branch": "main"}
        pull = self.pulls.get(number)
        content: Json = {"repository": repository, "action": action}
        if event == "workflow_run" and pull:
            content["workflow_run"] = {
                "id": run - 1, "run_attempt": 1, "head_sha": pull["head"]["sha"], "head_branch": pull["head"]["ref"],
                "event": "pull_request", "head_repository": {
                    **pull["head"]["repo"], "owner": {"login": pull["head"]["repo"]["full_name"].partition("/")[0]}
                },
                "html_url": f"https://github.com/{self.repository}/actions/runs/{run - 1}",
                "pull_requests": [] if pull["head"]["repo"]["fork"] else [{"number": number}],
            }  # fmt: skip
        elif pull:
            content |= {"number": number, "pull_request": pull}
        elif event == "push":
            content |= {"ref": "refs/heads/main", "after": self.branches["main"]}
        path = folder / f"event-{event}-{number}-{run}-{attempt}.json"
        path.write_text(json.dumps(content | (payload or {})), encoding="utf-8")
        return {
            "CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": self.repository,
            "GITHUB_EVENT_NAME": event, "GITHUB_EVENT_PATH": str(path), "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_API_URL": self.url, "GITHUB_GRAPHQL_URL": f"{self.url}/graphql",
            "GITHUB_RUN_ID": str(run), "GITHUB_RUN_ATTEMPT": str(attempt), "GITHUB_RUN_NUMBER": str(run - 400),
            "GITHUB_SHA": self.branches["main"], "GITHUB_REF_NAME": f"{number}/merge" if pull else "main",
            "GITHUB_REF": f"refs/pull/{number}/merge" if pull else "refs/heads/main", "GITHUB_ACTOR": "carol",
            "GITHUB_JOB": "preview", "GITHUB_WORKFLOW": "preview", "RUNNER_TEMP": str(folder),
            "GITHUB_TOKEN": self.token if token is None else token,
        }  # fmt: skip

    # Requests

    def answer(self, call: Call) -> Reply:
        if "user-agent" not in call.headers:
            raise Refused(403, "Request forbidden by administrative rules. Please set a User-Agent header.")
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        token = self.tokens.get(value) if scheme in ("Bearer", "token") else None
        if token is None:
            raise Refused(401, _message("Bad credentials", 401))
        if call.path == "/graphql":
            if not re.fullmatch(r"\s*query\s*{\s*viewer\s*{\s*login\s*}\s*}\s*", call.body.get("query", "")):
                raise Refused(200, {"errors": [{"message": "this double knows { viewer { login } } alone"}]})
            return Reply(200, {"data": {"viewer": {"login": token.login}}})
        if call.path == "/user":
            if token.app:
                raise Refused(403, _message("Resource not accessible by integration", 403))
            return Reply(200, {"login": token.login})
        return self._routed(call, token)

    def _routed(self, call: Call, token: Token) -> Reply:
        start = f"/repos/{self.repository}"
        for method, pattern, permissions, route in self.routes:
            found = re.fullmatch(re.escape(start) + pattern, call.path)
            if found and method == call.method:
                self._check_permission(token, permissions)
                self._login = token.login
                return route(call, *(int(g) if g.isdigit() else unquote(g) for g in found.groups()))
        self.unknown.append(str(call))
        raise Refused(404, _message("Not Found", 404))

    def _check_permission(self, token: Token, permissions: str) -> None:
        needed = [part.split("=") for part in permissions.split("; ")]
        if any(LEVELS[token.permissions.get(name, "")] >= LEVELS[level] for name, level in needed):
            return
        reading = all(level == "read" for _, level in needed)
        if reading and not self.private:
            return
        kind = "integration" if token.app else "personal access token"
        headers = {"X-Accepted-GitHub-Permissions": permissions.replace("-", "_")}
        raise Refused(403, _message(f"Resource not accessible by {kind}", 403), headers)

    def _found(self, things: Mapping[int, Json], key: int) -> Json:
        if key not in things:
            raise Refused(404, _message("Not Found", 404))
        return things[key]

    def _text(self, call: Call, resource: str) -> str:
        body = call.body.get("body")
        if not isinstance(body, str) or not body.strip():
            raise Refused(422, _invalid(resource, "missing_field", "body", "body cannot be blank"))
        if len(body) > BODY_LIMIT:
            text = f"Body is too long (maximum is {BODY_LIMIT} characters)"
            raise Refused(422, _invalid(resource, "unprocessable", "data", text))
        return body

    def _visible(self, things: Mapping[int, Json]) -> list[Json]:
        everything = list(things.values())
        if self.lag > 0:
            self.lag -= 1
            everything = everything[:-1]
        return everything

    # Comments

    def _comment(self, id: int) -> Json:
        return self._found(self.comments, id)

    def _thread(self, number: int) -> None:
        if number not in self.pulls:
            self._found(self.issues, number)

    def _list_comments(self, call: Call, number: int) -> Reply:
        self._thread(number)
        return self.page(call, [c for c in self._visible(self.comments) if c["number"] == number])

    def _add_comment(self, call: Call, number: int) -> Reply:
        self._thread(number)
        return Reply(201, self.comment(number, self._text(call, "IssueComment"), author=self._login))

    def _edit_comment(self, call: Call, id: int) -> Reply:
        self._comment(id).update(body=self._text(call, "IssueComment"), updated_at=now())
        return Reply(200, self._comment(id))

    def _delete_comment(self, call: Call, id: int) -> Reply:
        self._comment(id)
        del self.comments[id]
        return Reply(204)

    # Pull requests and branches

    def _list_pulls(self, call: Call) -> Reply:
        wanted = call.query
        return self.page(call, [
            pull
            for pull in reversed(self.pulls.values())
            if wanted.get("state", "open") in ("all", pull["state"])
            and wanted.get("base", pull["base"]["ref"]) == pull["base"]["ref"]
            and wanted.get("head", pull["head"]["label"]) == pull["head"]["label"]
        ])  # fmt: skip

    def _ref(self, call: Call, branch: str) -> Reply:
        if branch not in self.branches:
            raise Refused(404, _message("Not Found", 404))
        return Reply(200, {"ref": f"refs/heads/{branch}", "object": {"sha": self.branches[branch], "type": "commit"}})

    def _labels(self, number: int) -> list[Json]:
        found: list[Json] = (self.pulls.get(number) or self._found(self.issues, number))["labels"]
        return found

    def _add_labels(self, call: Call, number: int) -> Reply:
        labels = self._labels(number)
        labels += [{"name": name} for name in call.body["labels"] if {"name": name} not in labels]
        return Reply(200, labels)

    def _remove_label(self, call: Call, number: int, name: str) -> Reply:
        labels = self._labels(number)
        if {"name": name} not in labels:
            raise Refused(404, _message("Label does not exist", 404))
        labels.remove({"name": name})
        return Reply(200, labels)

    # Issues

    def _check_issues(self) -> None:
        if not self.has_issues:
            raise Refused(410, _message("Issues has been disabled in this repository.", 410))

    def _list_issues(self, call: Call) -> Reply:
        self._check_issues()
        # GitHub lists pull requests as issues, too.
        pulls = [{**pull, "pull_request": {"url": pull["html_url"]}} for pull in self.pulls.values()]
        state = call.query.get("state", "open")
        return self.page(
            call, [i for i in [*reversed(self._visible(self.issues)), *pulls] if state in ("all", i["state"])]
        )

    def _add_issue(self, call: Call) -> Reply:
        self._check_issues()
        title = call.body.get("title") or ""
        if not title or len(title) > TITLE_LIMIT:
            raise Refused(422, _invalid("Issue", "custom", "title", "title is too long (maximum is 256 characters)"))
        return Reply(201, self.issue(title, self._text(call, "Issue"), author=self._login))

    def issue(self, title: str, body: str, *, author: str = "carol") -> Json:
        """Somebody opens an issue."""
        number = next(self.ids)
        self.issues[number] = {
            "number": number, "state": "open", "title": title, "body": body, "labels": [],
            "user": {"login": author}, "html_url": f"https://github.com/{self.repository}/issues/{number}",
        }  # fmt: skip
        return self.issues[number]

    def _edit_issue(self, call: Call, number: int) -> Reply:
        issue = self._found(self.issues, number)
        if "body" in call.body:
            issue["body"] = self._text(call, "Issue")
        issue.update({key: call.body[key] for key in ("state", "state_reason", "title") if key in call.body})
        return Reply(200, issue)


def _message(text: str, status: int) -> Json:
    return {"message": text, "documentation_url": "https://docs.github.com/rest", "status": str(status)}


def _invalid(resource: str, code: str, field: str, text: str) -> Json:
    error = {"resource": resource, "code": code, "field": field, "message": text}
    return {**_message("Validation Failed", 422), "errors": [error]}
