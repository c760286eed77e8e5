"""Comments on GitHub: what a pull request looks like after jobs have commented, and what a refused job is told."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.ci import __main__ as ci
from decant.ci import comment
from decant.ci.github import GitHub
from tests.support.ci_job import CiJob
from tests.support.forge_api import Mood, Reply
from tests.support.github_api import BODY_LIMIT, BOT, EVERYTHING, READ_ONLY, GitHubApi

HEAD = "c" * 40
BASE = "b" * 40
MOVED = "d" * 40
CANARY = "ghs_canary"
FOREIGN = "> [!CAUTION]\n> A run of a fork wrote this text. It may say anything."
STALE_LINES = [
    "> [!WARNING]",
    "> **Stale**: the target branch has changed since. "
    "Push to the pull request, or run its checks again, for a current one.",
]


def text(body: str, *, key: str = "decant/production", run: str = "500.1", base: str = BASE, commit: str = HEAD) -> str:
    url = f"https://github.com/octo/site/actions/runs/{run.partition('.')[0]}"
    return (
        f"<!-- decant key={key} run={run} base={base} -->\n\n{body}\n\n"
        f"<sub>Commit {commit}, [log of the run]({url})</sub>"
    )


@pytest.fixture
def github() -> Iterator[GitHubApi]:
    with GitHubApi() as api:
        api.pull(12, sha=HEAD)
        yield api
        assert api.unknown == []


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[CiJob]:
    """A job; no output may ever hold the token."""
    made = CiJob(tmp_path, capsys)
    run, said = made.run, []

    def watched(*args: Any) -> int:
        status = run(*args)
        said.append(made.out + made.err)
        return status

    made.run = watched  # type: ignore[method-assign, assignment]
    yield made
    assert all(CANARY not in one for one in said)


@pytest.fixture
def environ(github: GitHubApi, tmp_path: Path) -> dict[str, str]:
    return github.environment("pull_request", tmp_path, number=12)


# ------------------------------------------------------------------------------------------------ one comment


def test_a_pull_request_gets_a_comment(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    assert job.comment(environ, "## Preview\n\nNothing changes.\n") == 0
    assert github.comments_of(12) == [text("## Preview\n\nNothing changes.")]
    [made] = github.comments.values()
    assert job.out == f"Pull request 12 has the comment: {made['html_url']}\n"


def test_the_next_push_edits_the_comment(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    job.comment(environ, "first")
    [before] = github.comments
    github.pulls[12]["head"]["sha"] = "e" * 40
    assert job.comment(github.environment("pull_request", tmp_path, number=12, run=501), "second") == 0
    assert github.comments_of(12) == [text("second", run="501.1", commit="e" * 40)]
    assert list(github.comments) == [before]


def test_the_comment_is_found_among_a_thousand(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    for number in range(950):
        github.comment(12, f"comment {number}")
    job.comment(environ, "first")
    for number in range(50):
        github.comment(12, f"comment {number}")
    github.calls.clear()
    assert job.comment(environ, "second") == 0
    assert github.comments_of(12) == [text("second")]
    assert len(github.comments) == 1001
    assert [call.query["page"] for call in github.calls if "page" in call.query] == [str(n) for n in range(1, 12)]
    assert {call.query["per_page"] for call in github.calls if "page" in call.query} == {"100"}
    assert github.said("POST") == ["POST /graphql"]


def test_a_text_that_did_not_change_is_not_written_again(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    job.comment(environ, "same")
    github.calls.clear()
    job.comment(environ, "same")
    assert github.said("PATCH") == []


def test_stacks_and_other_comments_have_one_each(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    for stack, key in (("staging", ""), ("production", ""), ("production", "review"), ("staging", "")):
        job.comment(environ, f"{stack}{key}", *([f"--key={key}"] if key else []), stack=stack)
    assert [one.splitlines()[0] for one in github.comments_of(12)] == [
        f"<!-- decant key=decant/staging run=500.1 base={BASE} -->",
        f"<!-- decant key=decant/production run=500.1 base={BASE} -->",
        f"<!-- decant key=decant:review run=500.1 base={BASE} -->",
    ]


def test_two_projects_in_one_repository_have_one_each(
    github: GitHubApi, job: CiJob, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.comment(environ, "one")
    monkeypatch.setattr(ci, "project_name", lambda: "other")
    job.comment(environ, "two")
    assert github.comments_of(12) == [text("one"), text("two", key="other/production")]


def test_a_comment_of_somebody_else_is_never_touched(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    forged = text("Nothing changes, merge me.")
    github.comment(12, forged, author="mallory")
    github.comment(12, f"> {forged}", author=BOT)
    assert job.comment(environ, "The database is deleted.") == 0
    assert [c["body"] for c in github.comments.values() if c["user"]["login"] == "mallory"] == [forged]
    assert github.comments_of(12) == [f"> {forged}", text("The database is deleted.")]


def test_a_deleted_account_does_not_stop_a_comment(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.comment(12, "hello")["user"] = None
    assert job.comment(environ, "text") == 0


def test_duplicates_are_removed_and_the_oldest_stays(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    kept = github.comment(12, text("one", run="498.1"), author=BOT)
    for run in ("499.1", "497.1"):
        github.comment(12, text("two", run=run), author=BOT)
    assert job.comment(environ, "three") == 0
    assert github.comments_of(12) == [text("three")]
    assert list(github.comments) == [kept["id"]]


def test_an_old_run_leaves_the_comment_of_a_newer_one(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    newer = github.environment("pull_request", tmp_path, number=12, run=501)
    job.comment(newer, "new")
    assert job.comment(environ, "old") == 0
    assert github.comments_of(12) == [text("new", run="501.1")]
    assert "newer run" in job.out


def test_a_second_attempt_of_a_run_replaces_the_first(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    job.comment(environ, "first")
    job.comment(github.environment("pull_request", tmp_path, number=12, attempt=2), "second")
    assert github.comments_of(12) == [text("second", run="500.2")]


def test_an_identifier_can_be_given(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    assert job.comment(github.environment("push", tmp_path), "text", "--pr=12", "--key=review") == 0
    assert github.comments_of(12) == [text("text", key="decant:review", base="", commit=BASE)]


# ------------------------------------------------------------------------------------------------ bad moods


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", ["502", "503", "cut"])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_an_error_of_github_twice_leaves_one_comment(
    github: GitHubApi, job: CiJob, environ: dict[str, str], method: str, how: str, after: bool
) -> None:
    """`after`: GitHub carried it out, and its answer got lost."""
    if method != "POST":
        github.comment(12, text("old", run="499.1"), author=BOT)
        github.comment(12, text("older", run="498.1"), author=BOT)
    if how == "cut":
        github.cut(times=2, method=method, path="comments", after=after)
    else:
        github.fail(int(how), times=2, method=method, path="comments", after=after)
    assert job.comment(environ, "text") == 0
    assert github.comments_of(12) == [text("text")]
    # The answer to a comment that was made is made up for by a look at the list, so a second one cannot get lost.
    assert job.sleeps == ({True: [2.0], False: [2.0, 2.0]}[after] if method == "POST" else [1.0, 2.0])


def test_a_comment_that_the_list_does_not_show_yet_is_not_made_again(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    github.before = lambda call: setattr(github, "lag", int(call.method == "GET" and bool(github.comments)))
    assert job.comment(environ, "text") == 0
    assert github.comments_of(12) == [text("text")]


def test_an_error_that_stays_is_told(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.fail(502, times=1000, path="comments")
    assert job.comment(environ, "text") == 1
    assert job.err == (
        "\nGitHub did not show comments of pull request 12 in octo/site: "
        "GitHub has an error of its own (502): HTTP status 502\n"
    )
    assert job.sleeps == [1.0, 2.0, 4.0, 8.0]


def test_a_comment_that_is_never_taken_is_told(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.fail(502, times=1000, method="POST", path="comments")
    assert job.comment(environ, "text") == 1
    assert job.err == "\nGitHub has an error of its own (502): HTTP status 502\n"
    assert len(github.said("POST")) == comment.ROUNDS


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_secondary_limit_is_waited_out(
    github: GitHubApi, job: CiJob, environ: dict[str, str], method: str, status: int
) -> None:
    github.secondary_limit(7, times=2, method=method, status=status)
    assert job.comment(environ, "text") == 0
    assert github.comments_of(12) == [text("text")]
    assert job.sleeps == [7.0, 7.0]


def test_a_secondary_limit_without_a_time_is_waited_out_by_the_minute(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    github.secondary_limit(None, times=2, method="POST")
    assert job.comment(environ, "text") == 0
    assert job.sleeps == [60.0, 120.0]


def test_a_limit_is_not_waited_out_for_ever(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.secondary_limit(140, times=100)
    assert job.comment(environ, "text", "--key=card") == 1
    assert job.sleeps == [140.0, 140.0]
    assert "You have exceeded a secondary rate limit" in job.err
    assert "Run this job again at " in job.err


def test_the_patience_is_for_all_requests_together(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.secondary_limit(140, times=1, method="GET")
    github.secondary_limit(140, times=1, method="POST")
    github.secondary_limit(140, times=1, method="GET")
    assert job.comment(environ, "text", "--key=card") == 1
    assert job.sleeps == [140.0, 140.0]


def test_a_limit_for_the_hour_says_when_it_ends(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.primary_limit(2400, times=100)
    assert job.comment(environ, "text", "--key=card") == 1
    assert job.sleeps == []
    assert "API rate limit exceeded for installation ID 41898282." in job.err
    assert "Run this job again at " in job.err


def test_a_limit_for_the_hour_that_ends_soon_is_waited_out(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    github.primary_limit(90)
    assert job.comment(environ, "text", "--key=card") == 0
    [pause] = job.sleeps
    assert 60 < pause <= 91


# ------------------------------------------------------------------------------------------------ lengths


def test_a_comment_of_the_greatest_length_is_taken_and_can_be_marked(
    github: GitHubApi, job: CiJob, tmp_path: Path
) -> None:
    environ = github.environment("pull_request", tmp_path, number=12, run=10**18, attempt=99)
    environ["GITHUB_SERVER_URL"] = "https://" + "g" * 200 + ".example.com"
    stack = "s" * 100
    body = "x" * comment.LONGEST_BODY
    assert job.comment(environ, body, stack=stack) == 0
    github.branches["main"] = MOVED
    assert job.run(github.environment("push", tmp_path), "stale", f"--stack={stack}") == 0
    [found] = github.comments_of(12)
    assert body in found
    assert found.splitlines()[2:4] == STALE_LINES
    assert len(found) <= BODY_LIMIT


def test_a_text_that_is_too_long_is_not_sent(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    job.comment(environ, "before")
    assert job.comment(environ, "x" * (comment.LONGEST_BODY + 1)) == 1
    notice = "The text is too long for a comment: 64,001 characters instead of 64,000."
    assert github.comments_of(12) == [text(f"### `decant/production`: no result\n\n{notice}")]
    assert all("xxx" not in str(call.body) for call in github.calls)
    assert "preview.md is 64,001 characters long, more than the 64,000 of a comment. The comment says so." in job.err


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_run_that_wrote_nothing_does_not_leave_the_comment_of_the_run_before(
    github: GitHubApi, job: CiJob, environ: dict[str, str], content: str | None
) -> None:
    job.comment(environ, "before")
    path = job.folder / "none.md"
    if content is not None:
        path.write_text(content)
    assert job.run(environ, "comment", "--stack=production", f"--markdown={path}") == 1
    notice = "The run ended before it wrote anything, so its log alone says what happened."
    assert github.comments_of(12) == [text(f"### `decant/production`: no result\n\n{notice}")]
    assert f"MARKDOWN: {path} {'is empty' if content is not None else 'cannot be read: No such file'}" in job.err


def test_a_file_has_to_be_named(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    assert job.run(environ, "comment", "--stack=production", "--markdown=") == 1
    assert job.err == "\nMARKDOWN is not set: name the file with the text, such as MARKDOWN=preview.md\n"
    assert github.calls == []


def test_the_run_shows_the_text_as_well(github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path) -> None:
    environ["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    job.comment(environ, "one")
    job.comment(environ, "two")
    assert (tmp_path / "summary.md").read_text() == "one\n\ntwo\n\n"
    (tmp_path / "summary.md").write_bytes(b"x" * (1024 * 1024 - 4))
    job.comment(environ, "three")
    assert (tmp_path / "summary.md").stat().st_size == 1024 * 1024 - 4


def test_the_run_shows_the_text_also_where_no_comment_is_allowed(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    environ |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GITHUB_TOKEN": ""}
    assert job.comment(environ, "one") == 1
    assert (tmp_path / "summary.md").read_text() == "one\n\n"


def test_a_text_that_is_no_text_is_taken(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "raw.md").write_bytes(b"a\x00b\xffc")
    assert job.run(environ, "comment", "--stack=production", f"--markdown={tmp_path / 'raw.md'}") == 0
    assert github.comments_of(12) == [text("a\ufffdb\ufffdc")]


# ------------------------------------------------------------------------------------------------ stale comments


def test_comments_are_marked_when_the_branch_moves(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    github.pull(13, base="main")
    github.branches["release"] = BASE
    github.pull(14, base="release")
    github.pull(15)["state"] = "closed"
    for number in (12, 14, 15):
        job.comment(github.environment("pull_request", tmp_path, number=number), "text")
    job.comment(environ, "text", stack="staging")
    github.branches["main"] = MOVED
    push = github.environment("push", tmp_path)
    assert job.run(push, "stale", "--stack=production") == 0
    assert job.out == "Pull requests whose preview of decant/production is now marked as stale: 12\n"
    [production, staging] = github.comments_of(12)
    assert production.splitlines()[2:6] == [*STALE_LINES, "", "text"]
    assert staging == text("text", key="decant/staging")
    assert github.comments_of(14) == github.comments_of(15) == [text("text")]


def test_a_mark_is_made_once_and_goes_with_the_next_preview(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    job.comment(environ, f"## Preview\n\n{comment.STALE} An app can write that, too.")
    for commit in (MOVED, "e" * 40):
        github.branches["main"] = commit
        job.run(github.environment("push", tmp_path), "stale", "--stack=production")
    [found] = github.comments_of(12)
    assert found.count(STALE_LINES[1]) == 1
    assert job.out.endswith("stale: none\n")
    github.pull(12, sha=HEAD)
    assert job.comment(github.environment("pull_request", tmp_path, number=12, run=502), "new") == 0
    assert github.comments_of(12) == [text("new", run="502.1", base="e" * 40)]


def test_a_preview_of_the_branch_as_it_is_now_is_not_marked(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    job.comment(environ, "text")
    assert job.run(github.environment("push", tmp_path), "stale", "--stack=production") == 0
    assert github.comments_of(12) == [text("text")]


def test_a_preview_is_marked_from_the_beginning_where_the_branch_moved_meanwhile(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    github.branches["main"] = MOVED
    assert job.comment(environ, "text") == 0
    [found] = github.comments_of(12)
    assert found.splitlines()[2:6] == [*STALE_LINES, "", "text"]
    assert job.comment(environ, "card", "--key=rehearsal") == 0
    assert github.comments_of(12)[1] == text("card", key="decant:rehearsal")


def test_a_branch_that_may_not_be_read_does_not_stop_the_comment(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    token = github.add_token("ghs_canary_no_contents", {"pull-requests": "write"})
    assert job.comment(github.environment("pull_request", tmp_path, number=12, token=token), "text") == 0
    assert github.comments_of(12) == [text("text")]


def test_one_pull_request_that_fails_does_not_keep_the_others_unmarked(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    github.pull(13)
    for number in (12, 13):
        job.comment(github.environment("pull_request", tmp_path, number=number), "text")
    github.branches["main"] = MOVED
    github.fail(502, times=5, path="issues/13/comments")
    assert job.run(github.environment("push", tmp_path), "stale", "--stack=production") == 1
    assert STALE_LINES[1] in github.comments_of(12)[0]
    assert job.err == (
        "\nThese pull requests could not be marked as stale:\n13: GitHub did not show comments of pull request 13 in "
        "octo/site: GitHub has an error of its own (502): HTTP status 502\n"
    )


def test_a_token_that_may_not_mark_is_told_once(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    github.pull(13)
    for number in (12, 13):
        job.comment(github.environment("pull_request", tmp_path, number=number), "text")
    github.branches["main"] = MOVED
    token = github.add_token("ghs_canary_read", READ_ONLY)
    assert job.run(github.environment("push", tmp_path, token=token), "stale", "--stack=production") == 1
    assert job.err.startswith(
        "\nGitHub did not change comments of pull request 13 in octo/site: Resource not accessible"
    )
    assert "pull request 12" not in job.err


def test_marking_needs_a_branch(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("push", tmp_path) | {"GITHUB_REF": "refs/tags/v1"}
    assert job.run(environ, "stale", "--stack=production") == 1
    assert "This run is not about a branch." in job.err


def git(folder: Path, *argv: str) -> str:
    who = ["-c", "user.name=carol", "-c", "user.email=carol@example.com", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *argv], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_base_is_what_github_has_merged_the_pull_request_with(github: GitHubApi, tmp_path: Path) -> None:
    """The event still names the branch's older commit; the checkout is shallow, as actions/checkout makes it."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "-q")
    git(origin, "commit", "-q", "--allow-empty", "-m", "old")
    git(origin, "checkout", "-q", "-b", "feature")
    git(origin, "commit", "-q", "--allow-empty", "-m", "change")
    git(origin, "checkout", "-q", "main")
    git(origin, "commit", "-q", "--allow-empty", "-m", "newer")
    git(origin, "merge", "-q", "--no-ff", "-m", "merge", "feature")
    head, base = git(origin, "rev-parse", "feature"), git(origin, "rev-parse", "HEAD^1")
    git(tmp_path, "clone", "-q", "--depth=1", origin.as_uri(), str(clone))
    github.pull(12, sha=head)
    environ = github.environment("pull_request", tmp_path, number=12)
    assert GitHub(environ, project=clone).job.base == base
    assert GitHub(environ, project=tmp_path / "nowhere").job.base == BASE
    github.pull(12, sha=HEAD)  # another one than what is checked out
    assert GitHub(github.environment("pull_request", tmp_path, number=12), project=clone).job.base == BASE


# ------------------------------------------------------------------------------------------------ which pull request


def test_a_run_that_follows_a_forks_run_finds_its_pull_request(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    github.pull(20, head="feature", sha="a" * 40, fork="mallory/site")
    github.pull(21, head="feature", sha="f" * 40, fork="eve/site")
    environ = github.environment("workflow_run", tmp_path, number=20)
    assert job.comment(environ, "card", "--key=rehearsal") == 0
    shown = f"{FOREIGN}\n\n```text\ncard\n```"
    assert github.comments_of(20) == [text(shown, key="decant:rehearsal", run="499.1", base="", commit="a" * 40)]
    assert github.comments_of(12) == github.comments_of(21) == []


def test_the_text_of_a_forks_run_stays_text(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    """A fork can write what it wants into the file that its run hands over."""
    github.pull(20, sha="a" * 40, fork="mallory/site")
    environ = github.environment("workflow_run", tmp_path, number=20)
    body = "@octo/admins\n```\n![x](https://example.com/x.png)\n`````\n" + "`" * 50_000
    assert job.comment(environ, body, "--key=rehearsal") == 0
    quoted = f"@octo/admins\n'''\n![x](https://example.com/x.png)\n'''''\n{chr(39) * 50_000}"
    shown = f"{FOREIGN}\n\n```text\n{quoted}\n```"
    assert github.comments_of(20) == [text(shown, key="decant:rehearsal", run="499.1", base="", commit="a" * 40)]


def test_the_text_of_the_repositorys_own_run_is_markdown(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("workflow_run", tmp_path, number=12)
    assert job.comment(environ, "**card**", "--key=rehearsal") == 0
    assert github.comments_of(12) == [text("**card**", key="decant:rehearsal", run="499.1", base="")]


def test_a_pull_request_that_got_another_commit_is_not_commented_by_an_old_run(
    github: GitHubApi, job: CiJob, tmp_path: Path
) -> None:
    github.pull(20, sha="a" * 40, fork="mallory/site")
    environ = github.environment("workflow_run", tmp_path, number=20)
    github.pulls[20]["head"]["sha"] = "f" * 40
    assert job.comment(environ, "card", "--key=rehearsal") == 1
    assert job.err == "\nThe pull request of the run that this one follows is closed, or has newer commits.\n"


def test_a_comment_on_a_pull_request_is_about_it(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    payload = {"issue": {"number": 12, "pull_request": {}}}
    environ = github.environment("issue_comment", tmp_path, payload=payload)
    assert job.comment(environ, "text", "--key=review") == 0
    assert len(github.comments_of(12)) == 1


def test_a_run_without_a_pull_request_is_told(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    assert job.comment(github.environment("push", tmp_path), "text") == 1
    assert job.err == (
        "\nThis run is not about a pull request: its event is push, so there is nowhere to comment.\n"
        "Run this step for the event pull_request, or name one: make ci-comment PR=12\n"
    )


# ------------------------------------------------------------------------------------------------ refusals


def test_a_token_that_can_only_read_is_told_the_permission(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    token = github.add_token("ghs_canary_read", READ_ONLY)
    assert job.comment(github.environment("pull_request", tmp_path, number=12, token=token), "text") == 1
    assert job.err == (
        "\nGitHub did not take comments of pull request 12 in octo/site: Resource not accessible by integration\n"
        "The token needs the permission `pull-requests: write`. Add it to the workflow's job:\n\n"
        "    permissions:\n      contents: read\n      pull-requests: write\n"
    )


def test_a_token_without_any_permission_is_told_it(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    token = github.add_token("ghs_canary_none", {})
    environ = github.environment("pull_request", tmp_path, number=12, token=token)
    assert job.comment(environ, "text") == 1
    assert "GitHub did not show comments of pull request 12 in octo/site" in job.err
    assert job.err.endswith("\n    permissions:\n      contents: read\n      pull-requests: write\n")
    assert job.run(github.environment("push", tmp_path, token=token), "stale", "--stack=production") == 1
    assert "The token needs the permission `contents: read`." in job.err
    assert job.err.endswith("\n    permissions:\n      contents: read\n")


def test_a_forks_pull_request_is_told_why(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    github.pull(20, fork="mallory/site")
    token = github.add_token("ghs_canary_fork", READ_ONLY)
    assert job.comment(github.environment("pull_request", tmp_path, number=20, token=token), "text") == 1
    assert "The pull request comes from a fork, and GitHub gives such a run a token that can only read." in job.err
    assert "permissions:" not in job.err


def test_a_fork_that_was_deleted_is_a_fork(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    github.pull(20, fork="mallory/site")["head"]["repo"] = None
    token = github.add_token("ghs_canary_fork", READ_ONLY)
    assert job.comment(github.environment("pull_request", tmp_path, number=20, token=token), "text") == 1
    assert "comes from a fork" in job.err


def test_a_repository_that_the_token_does_not_see_is_told(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    assert job.comment(environ, "text", "--pr=99") == 1
    assert (
        "GitHub did not show comments of pull request 99 in octo/site: Not Found\n"
        "Either there is no such thing, or the token does not see it. The token needs the permission `pull-requests"
    ) in job.err


def test_a_token_that_is_not_valid_is_told(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("pull_request", tmp_path, number=12, token="ghs_canary_wrong")
    assert job.comment(environ, "text") == 1
    assert "Bad credentials\nGITHUB_TOKEN is not valid: it belongs to another job" in job.err
    assert "GITHUB_TOKEN: ${{ github.token }}" in job.err


@pytest.mark.parametrize("token", ["", "  \n"])
def test_a_missing_token_is_told_with_the_lines_that_give_it(
    github: GitHubApi, job: CiJob, environ: dict[str, str], token: str
) -> None:
    assert job.comment(environ | {"GITHUB_TOKEN": token}, "text") == 1
    assert job.err == (
        "\nGITHUB_TOKEN is not set, so GitHub takes no comment and no issue. Give it to this step of the workflow:\n\n"
        "    env:\n      GITHUB_TOKEN: ${{ github.token }}\n"
    )


def test_a_token_with_a_lines_end_is_taken(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    assert job.comment(environ | {"GITHUB_TOKEN": f"{github.token}\n"}, "text") == 0


def test_a_token_that_no_header_can_hold_is_told_without_showing_it(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    assert job.comment(environ | {"GITHUB_TOKEN": f"{github.token}\nX-Other: 1"}, "text") == 1
    assert job.err == "\nGITHUB_TOKEN holds a character that no token has. Store the token again, and only the token.\n"


def test_what_github_says_is_shown_without_the_token_and_on_one_line(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    message = {"message": f"no: Bearer {github.token}\n::add-mask::x\x1b[2J" + "y" * 400}
    github.moods.append(Mood(1, "", "comments", lambda: Reply(422, message)))
    assert job.comment(environ, "text") == 1
    said = job.err.removeprefix("\nGitHub did not show comments of pull request 12 in octo/site: ")
    assert said.startswith("no: Bearer [token]\\n::add-mask::x\\x1b[2Jyyy")
    assert len(said) == 301


def test_the_token_goes_to_no_other_address(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    with GitHubApi() as other:
        github.moods.append(Mood(9, "", "comments", lambda: Reply(302, "moved", {"Location": f"{other.url}/x"})))
        assert job.comment(environ, "text") == 1
        assert other.calls == []
        assert f"GitHub sends to another address, which gets no token: {other.url}/x" in job.err


@pytest.mark.parametrize("variable", ["GITHUB_API_URL", "GITHUB_GRAPHQL_URL"])
@pytest.mark.parametrize("url", ["http://github.example.com", "file:///etc/passwd", "ftp://127.0.0.1", ""])
def test_the_token_goes_over_https_alone(
    github: GitHubApi, job: CiJob, environ: dict[str, str], variable: str, url: str
) -> None:
    if not url:  # then it is GitHub's own
        found = GitHub(environ | {variable: ""}, project=job.folder)
        urls = {found.api.url, found._graphql.url}
        assert urls & {"https://api.github.com", "https://api.github.com/graphql"}
        return
    assert job.comment(environ | {variable: url}, "text") == 1
    assert job.err == f"\n{variable} is {url}: it must be a URL that starts with https://\n"


def test_an_answer_that_is_no_json_is_told(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.fail(200, path="comments")
    assert job.comment(environ, "text") == 1
    assert f"GitHub did not answer with JSON at {github.url}" in job.err


def test_an_event_that_cannot_be_read_is_told(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    Path(environ["GITHUB_EVENT_PATH"]).write_text("{")
    assert job.comment(environ, "text") == 1
    assert f"GITHUB_EVENT_PATH is {environ['GITHUB_EVENT_PATH']}, which cannot be read" in job.err


@pytest.mark.parametrize("variable", ["GITHUB_REPOSITORY", "GITHUB_RUN_ID"])
def test_a_variable_that_the_runner_sets_is_named(
    github: GitHubApi, job: CiJob, environ: dict[str, str], variable: str
) -> None:
    del environ[variable]
    assert job.comment(environ, "text") == 1
    assert job.err == f"\n{variable} is not set. GitHub's runner sets it; pass it on to this program.\n"


def test_on_ones_own_computer_nothing_is_sent(job: CiJob) -> None:
    assert job.comment({}, "text") == 1
    assert job.err == (
        "\nThis command runs in a workflow of GitHub or GitLab: neither GITHUB_ACTIONS nor GITLAB_CI is set here.\n"
        "On your own computer, write the text to a file and look at it: make preview STACK=name MARKDOWN=preview.md\n"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--stack=a b"], "STACK is a b: it must be a stack's name"),
        (["--stack=a-->"], "STACK is a-->: it must be"),
        (["--key=a-->b"], "KEY is a-->b: it must be"),
        (["--key=a\nb"], "KEY is a\\nb: it must be"),
        (["--key=" + "k" * 101], "KEY is k"),
        (["--pr=x"], "PR is x: it must be the number"),
        (["--pr=0"], "PR is 0: it must be the number"),
        (["--pr=../1"], "PR is ../1: it must be the number"),
        (["--pr=\u0661"], "PR is \u0661: it must be the number"),
    ],
)
def test_a_value_that_fits_nowhere_is_refused_before_anything_is_sent(
    github: GitHubApi, job: CiJob, environ: dict[str, str], argv: list[str], said: str
) -> None:
    assert job.comment(environ, "text", *argv) == 1
    assert said in job.err
    assert "POST" not in {call.method for call in github.calls}


def test_a_branchs_name_stays_one_part_of_the_path(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    name = "x?y=1#z/%2e%2e/..\u00e9"
    github.branches[name] = MOVED
    github.pull(30, base=name)
    assert job.comment(github.environment("pull_request", tmp_path, number=30), "text") == 0
    assert github.comments_of(30) == [text("text", base=MOVED)]
    environ = github.environment("push", tmp_path) | {"GITHUB_REF": f"refs/heads/{name}"}
    github.branches[name] = BASE
    assert job.run(environ, "stale", "--stack=production") == 0
    assert job.out.endswith("stale: 30\n")


# ------------------------------------------------------------------------------------------------ issues


def drift(job: CiJob, environ: dict[str, str], body: str, title: str = "production has drifted") -> int:
    return job.run(environ, "issue", f"--title={title}", f"--body={job.write(body)}")


def test_an_issue_is_opened_once_then_edited_then_closed(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    def night(run: int) -> dict[str, str]:
        return github.environment("schedule", tmp_path, run=run)

    assert drift(job, night(600), "one machine is gone") == 0
    [number] = github.issues
    assert job.out == f"The issue is open: https://github.com/octo/site/issues/{number}\n"
    assert drift(job, night(601), "two machines are gone") == 0
    assert list(github.issues) == [number]
    assert github.issues[number]["title"] == "production has drifted"
    assert github.issues[number]["body"].splitlines()[2] == "two machines are gone"
    assert job.run(night(602), "issue-done", "--title=production has drifted") == 0
    assert job.out == f"The issue is closed: https://github.com/octo/site/issues/{number}\n"
    assert github.issues[number]["state"] == "closed"
    assert github.issues[number]["body"].splitlines()[2:5] == [
        "> [!NOTE]",
        "> This is over: [log of the run](https://github.com/octo/site/actions/runs/602).",
        "",
    ]
    assert job.run(night(603), "issue-done", "--title=production has drifted") == 0
    assert job.out == "No such issue is open.\n"
    assert drift(job, night(604), "again") == 0
    assert [issue["state"] for issue in github.issues.values()] == ["closed", "open"]


def test_an_issue_of_somebody_else_is_never_touched(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("schedule", tmp_path)
    drift(job, environ, "ours")
    [ours] = github.issues
    forged = github.issue("production has drifted", github.issues[ours]["body"], author="mallory")
    assert job.run(environ, "issue-done", "--title=production has drifted") == 0
    assert (github.issues[ours]["state"], forged["state"]) == ("closed", "open")


def test_a_pull_request_is_no_issue(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("schedule", tmp_path)
    drift(job, environ, "ours")
    [ours] = github.issues
    github.pull(13, author=BOT, body=github.issues[ours]["body"])
    assert job.run(environ, "issue-done", "--title=production has drifted") == 0
    assert (github.issues[ours]["state"], github.pulls[13]["state"]) == ("closed", "open")
    assert github.said("PATCH") == [f"PATCH /repos/octo/site/issues/{ours}"] * 2


def test_issues_of_other_titles_stay(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("schedule", tmp_path)
    drift(job, environ, "one", "staging has drifted")
    drift(job, environ, "two", "production has drifted")
    assert job.run(environ, "issue-done", "--title=staging  has\ndrifted") == 0
    assert {issue["title"]: issue["state"] for issue in github.issues.values()} == {
        "staging has drifted": "closed",
        "production has drifted": "open",
    }


@pytest.mark.parametrize("after", [False, True])
def test_an_issue_is_made_once_where_the_answer_gets_lost(
    github: GitHubApi, job: CiJob, tmp_path: Path, after: bool
) -> None:
    github.fail(502, times=2, method="POST", path="issues", after=after)
    assert drift(job, github.environment("schedule", tmp_path), "text") == 0
    assert [issue["state"] for issue in github.issues.values()] == ["open"]


def test_issues_that_are_switched_off_are_told(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    github.has_issues = False
    assert drift(job, github.environment("schedule", tmp_path), "text") == 1
    assert "Issues are switched off in octo/site. Switch them on: Settings, General, Features, Issues." in job.err


def test_a_missing_permission_for_issues_is_told(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    token = github.add_token("ghs_canary_prs", {**EVERYTHING, "issues": "read"})
    assert drift(job, github.environment("schedule", tmp_path, token=token), "text") == 1
    assert "The token needs the permission `issues: write`." in job.err


@pytest.mark.parametrize(("title", "length"), [("", 0), ("\n ", 0), ("t" * 201, 201), ("\x1b" * 60, 240)])
def test_a_title_needs_a_length(
    github: GitHubApi, job: CiJob, environ: dict[str, str], title: str, length: int
) -> None:
    assert drift(job, environ, "text", title) == 1
    assert f"TITLE has {length} characters: an issue needs one of at most 200." in job.err
    assert github.calls == []


def test_a_night_that_wrote_nothing_opens_the_issue_all_the_same(github: GitHubApi, job: CiJob, tmp_path: Path) -> None:
    environ = github.environment("schedule", tmp_path)
    assert job.run(environ, "issue", "--title=a `b` --> c", f"--body={tmp_path / 'none.md'}") == 1
    [issue] = github.issues.values()
    assert issue["title"] == "a `b` --> c"
    assert issue["body"].splitlines()[2] == "### `a 'b' --> c`: no result"
    assert drift(job, environ, "text", "a `b` --> c") == 0
    assert len(github.issues) == 1


# ------------------------------------------------------------------------------------------------ races


@pytest.mark.parametrize("first", ["old", "new"], ids=["the older run is first", "the newer run is first"])
def test_two_jobs_that_race_leave_one_comment(
    github: GitHubApi, environ: dict[str, str], tmp_path: Path, first: str
) -> None:
    """Both have seen no comment before either makes one."""
    both = threading.Barrier(2, timeout=20)
    made = threading.Event()
    runs = {"old": (500, "old"), "new": (501, "new")}
    order = {run: index for index, (run, _) in enumerate(sorted(runs.values(), reverse=first == "new"))}

    def before(call: Any) -> None:
        if call.method == "POST" and "comments" in call.path:
            both.wait()
            run = int(call.body["body"].partition("run=")[2].partition(".")[0])
            if order[run]:
                made.wait(20)
        if call.method == "GET" and github.comments:
            made.set()

    github.before = before
    results: dict[str, int] = {}

    def comment_as(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "preview.md").write_text(name)
        variables = github.environment("pull_request", folder, number=12, run=runs[name][0])
        argv = ["comment", "--stack=production", f"--markdown={folder / 'preview.md'}"]
        results[name] = ci.main(argv, variables, sleep=lambda seconds: None)

    threads = [threading.Thread(target=comment_as, args=(name,)) for name in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {"old": 0, "new": 0}
    assert len([said for said in github.said("POST") if "comments" in said]) == 2
    assert github.comments_of(12) == [text("new", run="501.1")]


def between(github: GitHubApi, happens: Callable[[], None]) -> None:
    """Let something happen after a job has read the list, and before it does anything about it."""
    lists = f"/repos/{github.repository}/issues/12/comments"
    seen: list[str] = []

    def before(call: Any) -> None:
        if seen == [lists]:
            github.before = lambda call: None
            happens()
        seen.append(call.path)

    github.before = before


def test_a_newer_run_that_ends_while_the_list_is_read_keeps_its_text(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    found = github.comment(12, text("old", run="499.1"), author=BOT)
    del environ["GITHUB_EVENT_PATH"]  # so that the list is the first request
    between(github, lambda: found.update(body=text("newer", run="501.1")))
    assert job.comment(environ, "text", "--pr=12") == 0
    assert github.comments_of(12) == [text("newer", run="501.1")]
    assert "newer run" in job.out


def test_a_preview_that_ends_while_the_list_is_read_is_not_marked(
    github: GitHubApi, job: CiJob, environ: dict[str, str], tmp_path: Path
) -> None:
    job.comment(environ, "old")
    [found] = github.comments.values()
    github.branches["main"] = MOVED
    push = github.environment("push", tmp_path)
    calls: list[str] = []

    def before(call: Any) -> None:
        calls.append(call.path)
        if call.path.endswith(f"/issues/comments/{found['id']}") and call.method == "GET":
            found["body"] = text("new", base=MOVED)

    github.before = before
    assert job.run(push, "stale", "--stack=production") == 0
    assert github.comments_of(12) == [text("new", base=MOVED)]
    assert job.out.endswith("stale: none\n")


def test_a_comment_that_somebody_edits_away_is_told(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    found = github.comment(12, text("old", run="499.1"), author=BOT)
    del environ["GITHUB_EVENT_PATH"]
    between(github, lambda: found.update(body="edited by a person"))
    assert job.comment(environ, "text", "--pr=12") == 1
    assert job.err == "\nSomebody edits the comment at this moment.\nRun this job again.\n"
    assert github.comments_of(12) == ["edited by a person"]


def test_a_comment_that_another_job_deletes_is_looked_for_again(
    github: GitHubApi, job: CiJob, environ: dict[str, str]
) -> None:
    github.comment(12, text("old", run="499.1"), author=BOT)

    def before(call: Any) -> None:
        if call.method == "PATCH":
            github.comments.clear()

    github.before = before
    assert job.comment(environ, "text") == 0
    assert github.comments_of(12) == [text("text")]


def test_a_duplicate_that_another_job_deletes_is_gone(github: GitHubApi, job: CiJob, environ: dict[str, str]) -> None:
    github.comment(12, text("old", run="499.1"), author=BOT)
    second = github.comment(12, text("old", run="499.1"), author=BOT)["id"]

    def before(call: Any) -> None:
        if call.method == "DELETE":
            github.comments.pop(second, None)

    github.before = before
    assert job.comment(environ, "text") == 0
    assert github.comments_of(12) == [text("text")]


# ------------------------------------------------------------------------------------------------ the double itself


def ask(github: GitHubApi, path: str, method: str = "GET", token: str = "", **headers: str) -> Any:
    request = http.client.HTTPConnection("127.0.0.1", github.server.server_port, timeout=10)
    named = {"User-Agent": "test", "Authorization": f"Bearer {token or github.token}", **headers}
    request.request(method, path, headers=named)
    answer = request.getresponse()
    content = answer.read()
    return answer.status, dict(answer.headers), json.loads(content) if content else None


def test_the_double_pages_as_github_does(github: GitHubApi) -> None:
    for number in range(65):
        github.comment(12, str(number))
    path = "/repos/octo/site/issues/12/comments"
    status, headers, data = ask(github, path)
    assert (status, [c["body"] for c in data]) == (200, [str(n) for n in range(30)])
    assert headers["Link"] == (f'<{github.url}{path}?page=2>; rel="next", <{github.url}{path}?page=3>; rel="last"')
    _, headers, data = ask(github, f"{path}?per_page=500&page=1")
    assert (len(data), "Link" in headers) == (65, False)
    _, headers, data = ask(github, f"{path}?page=3")
    assert [c["body"] for c in data] == [str(n) for n in range(60, 65)]
    assert 'rel="next"' not in headers["Link"]


def test_the_double_knows_etags_and_user_agents(github: GitHubApi) -> None:
    path = "/repos/octo/site/issues/12/comments"
    _, headers, _ = ask(github, path)
    assert ask(github, path, **{"If-None-Match": headers["ETag"]})[0] == 304
    github.comment(12, "new")
    assert ask(github, path, **{"If-None-Match": headers["ETag"]})[0] == 200
    assert ask(github, "/user")[0] == 403
    assert ask(github, path, **{"User-Agent": ""})[0] == 200
