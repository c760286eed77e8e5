"""Comments and issues on GitLab."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.ci import __main__ as ci
from decant.ci import comment
from decant.ci.gitlab import GitLab, inert
from tests.support.ci_job import CiJob
from tests.support.forge_api import Call, Mood, Reply
from tests.support.gitlab_api import GUEST, GitLabApi, Token

BASE = "b" * 40
MOVED = "d" * 40
STALE = f"{comment.STALE} {comment.FRESHEN}"


def text(body: str, *, key: str = "decant/production", run: str = "800.1", base: str = BASE) -> str:
    url = f"https://gitlab.com/octo/site/-/jobs/{run.partition('.')[2]}"
    return (
        f"<!-- decant key={key} run={run} base={base} -->\n\n{body}\n\n"
        f"<sub>Commit {'c' * 40}, [log of the run]({url})</sub>"
    )


@pytest.fixture
def gitlab() -> Iterator[GitLabApi]:
    with GitLabApi() as api:
        api.request(12)
        yield api
        assert api.unknown == []


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CiJob:
    return CiJob(tmp_path, capsys)


def test_a_merge_request_gets_one_comment_which_is_edited(gitlab: GitLabApi, job: CiJob) -> None:
    assert job.comment(gitlab.environment(number=12), "first") == 0
    assert gitlab.notes_of(12) == [text("first")]
    [id] = gitlab.notes
    assert job.out == f"Pull request 12 has the comment: merge request 12, note {id}\n"
    assert job.comment(gitlab.environment(number=12, job=2), "second") == 0
    assert gitlab.notes_of(12) == [text("second", run="800.2")]
    assert list(gitlab.notes) == [id]


def test_the_comment_is_found_among_a_thousand(gitlab: GitLabApi, job: CiJob) -> None:
    for number in range(950):
        gitlab.note(12, f"note {number}", system=number % 2 == 0)
    job.comment(gitlab.environment(number=12), "first")
    for number in range(50):
        gitlab.note(12, f"note {number}")
    assert job.comment(gitlab.environment(number=12, pipeline=801), "second") == 0
    assert gitlab.notes_of(12) == [text("second", run="801.1")]
    assert gitlab.said("POST") == ["POST /projects/77/merge_requests/12/notes"]


def test_a_comment_of_somebody_else_is_never_touched(gitlab: GitLabApi, job: CiJob) -> None:
    gitlab.note(12, text("forged"))
    gitlab.note(12, text("said by the system"), user=900, system=True)
    assert job.comment(gitlab.environment(number=12), "ours") == 0
    assert gitlab.notes_of(12, user=5) == [text("forged")]
    assert gitlab.notes_of(12) == [text("said by the system"), text("ours")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_an_error_of_gitlab_twice_leaves_one_comment(gitlab: GitLabApi, job: CiJob, method: str, after: bool) -> None:
    if method != "POST":
        gitlab.note(12, text("old", run="700.1"), user=900)
        gitlab.note(12, text("older", run="600.1"), user=900)
    gitlab.fail(502, times=2, method=method, path="notes", after=after)
    assert job.comment(gitlab.environment(number=12), "text") == 0
    assert gitlab.notes_of(12) == [text("text")]


def test_a_limit_is_waited_out(gitlab: GitLabApi, job: CiJob) -> None:
    gitlab.moods.append(Mood(2, "POST", "notes", lambda: Reply(429, "Retry later\n", {"Retry-After": "11"})))
    assert job.comment(gitlab.environment(number=12), "text") == 0
    assert gitlab.notes_of(12) == [text("text")]
    assert job.sleeps == [11.0, 11.0]


def test_two_jobs_that_race_leave_one_comment(gitlab: GitLabApi, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    def before(call: Call) -> None:
        if call.method == "POST":
            both.wait()

    gitlab.before = before
    results = []

    def comment_as(pipeline: int) -> None:
        path = tmp_path / f"{pipeline}.md"
        path.write_text(f"of {pipeline}")
        argv = ["comment", "--stack=production", f"--markdown={path}"]
        results.append(ci.main(argv, gitlab.environment(number=12, pipeline=pipeline), sleep=lambda seconds: None))

    threads = [threading.Thread(target=comment_as, args=(pipeline,)) for pipeline in (800, 801)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [0, 0]
    assert gitlab.notes_of(12) == [text("of 801", run="801.1")]


def test_no_line_of_a_text_is_carried_out(gitlab: GitLabApi, job: CiJob) -> None:
    assert job.comment(gitlab.environment(number=12), "## Preview\n/merge\n  /close\n/ 2\na /approve") == 0
    assert gitlab.carried_out == []
    assert gitlab.notes_of(12) == [text("## Preview\n\u200b/merge\n  \u200b/close\n/ 2\na /approve")]
    argv = [f"--body={job.write('/close')}", "--title=drift"]
    assert job.run(gitlab.environment(), "issue", *argv) == 0
    assert job.run(gitlab.environment(), "issue", *argv) == 0
    assert job.run(gitlab.environment(), "issue-done", "--title=drift") == 0
    assert gitlab.carried_out == []


def test_a_text_without_commands_stays_as_it_is() -> None:
    assert inert("https://example.com/a\n//b\n/1\n") == "https://example.com/a\n//b\n/1\n"


def test_comments_are_marked_when_the_branch_moves(gitlab: GitLabApi, job: CiJob) -> None:
    gitlab.request(13, base="release")
    gitlab.request(14)["state"] = "merged"
    for number in (12, 13, 14):
        job.comment(gitlab.environment(number=number), "text")
    gitlab.branches["main"] = MOVED
    for _ in range(2):
        assert job.run(gitlab.environment(), "stale", "--stack=production") == 0
    assert gitlab.notes_of(12) == [text(f"{STALE}\n\ntext")]
    assert gitlab.notes_of(13) == gitlab.notes_of(14) == [text("text")]


def test_a_preview_is_marked_from_the_beginning_where_the_branch_moved_meanwhile(gitlab: GitLabApi, job: CiJob) -> None:
    environ = gitlab.environment(number=12)
    gitlab.branches["main"] = MOVED
    assert job.comment(environ, "text") == 0
    assert gitlab.notes_of(12) == [text(f"{STALE}\n\ntext")]
    merged = environ | {"CI_MERGE_REQUEST_TARGET_BRANCH_SHA": MOVED, "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": "c" * 40,
                        "CI_COMMIT_SHA": "e" * 40}  # fmt: skip
    assert job.comment(merged, "text") == 0
    assert gitlab.notes_of(12) == [text("text", base=MOVED)]


def test_an_issue_is_opened_once_then_edited_then_closed(gitlab: GitLabApi, job: CiJob) -> None:
    title = "--title=production has drifted"
    for body in ("one", "two"):
        assert job.run(gitlab.environment(), "issue", title, f"--body={job.write(body)}") == 0
    [issue] = gitlab.issues.values()
    assert issue["title"] == "production has drifted"
    assert issue["description"].splitlines()[2] == "two"
    gitlab.issue("production has drifted", issue["description"], user=5)
    assert job.run(gitlab.environment(), "issue-done", title) == 0
    assert [one["state"] for one in gitlab.issues.values()] == ["closed", "opened"]
    assert (
        issue["description"].splitlines()[3]
        == "> This is over: [log of the run](https://gitlab.com/octo/site/-/jobs/1)."
    )


def test_the_request_of_a_fork_is_the_target_projects(gitlab: GitLabApi, job: CiJob) -> None:
    environ = gitlab.environment(number=12) | {"CI_PROJECT_ID": "99"}
    assert job.comment(environ, "text") == 0
    assert gitlab.notes_of(12) == [text("text")]


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (
            Token(900, scope="read_api"),
            "GitLab did not take a comment on merge request 12: The request",
        ),
        (Token(900, scope="read_repository"), "GitLab did not show the comments of merge request 12: The request"),
    ],
)
def test_a_token_without_the_scope_is_told_what_it_needs(
    gitlab: GitLabApi, job: CiJob, token: Token, said: str
) -> None:
    gitlab.tokens["glpat-canary-small"] = token
    assert job.comment(gitlab.environment(number=12, token="glpat-canary-small"), "text") == 1
    assert said in job.err
    assert "\nGITLAB_TOKEN needs the scope `api` and at least the role Reporter in this project" in job.err
    assert "canary" not in job.err


def test_a_guest_cannot_close_an_issue_and_is_told(gitlab: GitLabApi, job: CiJob) -> None:
    gitlab.tokens[gitlab.token] = Token(900, level=GUEST)
    job.run(gitlab.environment(), "issue", "--title=t", f"--body={job.write('text')}")
    assert job.run(gitlab.environment(), "issue-done", "--title=t") == 1
    assert "at least the role Reporter" in job.err


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "GITLAB_TOKEN is not set, so GitLab takes no comment and no issue."),
        ("glpat-canary-old", "GITLAB_TOKEN is not valid: it was revoked, or its time is over."),
        ("glpat-canary x", "GITLAB_TOKEN holds a character that no token has."),
    ],
)
def test_a_token_that_is_not_taken_is_told(gitlab: GitLabApi, job: CiJob, token: str, said: str) -> None:
    assert job.comment(gitlab.environment(number=12, token=token), "text") == 1
    assert said in job.err
    assert "canary" not in job.err


def test_a_pipeline_without_a_merge_request_is_told(gitlab: GitLabApi, job: CiJob) -> None:
    assert job.comment(gitlab.environment(), "text") == 1
    assert job.err.startswith("\nThis pipeline is not about a merge request, so there is nowhere to comment.\n")


@pytest.mark.parametrize("variable", ["CI_API_V4_URL", "CI_PROJECT_ID", "CI_PIPELINE_ID"])
def test_a_variable_that_the_runner_sets_is_named(gitlab: GitLabApi, job: CiJob, variable: str) -> None:
    environ: dict[str, Any] = gitlab.environment(number=12)
    environ.pop("CI_MERGE_REQUEST_PROJECT_ID")
    del environ[variable]
    assert job.comment(environ, "text") == 1
    assert job.err == f"\n{variable} is not set. GitLab's runner sets it; pass it on to this program.\n"


def test_what_gitlab_refuses_field_by_field_is_shown(gitlab: GitLabApi) -> None:
    found = GitLab(gitlab.environment(number=12))
    with pytest.raises(Exception, match=r'take a comment on merge request 12: \{"body": \["can\'t be blank"\]\}'):
        found.comments(12).create(" ")
