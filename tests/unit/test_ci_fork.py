"""The comment on a fork's pull request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decant.ci import __main__ as ci_main
from tests.support.github_api import EVERYTHING, GitHubApi

SHA = "5" * 40


def run(github: GitHubApi, folder: Path, conclusion: str | None, **changes: Any) -> int:
    environ = github.environment("workflow_run", folder, number=7, **changes)
    path = Path(environ["GITHUB_EVENT_PATH"])
    path.write_text(path.read_text().replace('"workflow_run": {', f'"workflow_run": {{"conclusion": "{conclusion}", '))
    return ci_main.main(["fork"], environ, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("conclusion", "said"),
    [
        (
            "success",
            "**The rehearsal of this pull request says that its app serves.** It puts the app live on throwaway "
            "machines, without any cred",
        ),
        (
            "failure",
            "**The rehearsal of this pull request failed.** The app was to be put live on throwaway machines, ",
        ),
        ("timed_out", "**The rehearsal of this pull request did not come to an end.** It puts the app live, without "),
    ],
)
def test_a_reviewer_is_told_what_ran_and_what_did_not(tmp_path: Path, conclusion: str, said: str) -> None:
    with GitHubApi() as github:
        github.pull(7, head="x<!-- -->@carol", sha=SHA, fork="mallory/site")
        for _ in range(2):
            assert run(github, tmp_path, conclusion) == 0
        (text,) = github.comments_of(7)
    assert said in text
    assert "on [the page of the run](https://github.com/octo/site/actions/runs/499)." in text
    assert "The workflow that ran is the fork's own." in text, "a fork can let it end well without doing anything"
    assert f"pushes commit `{SHA}` to a branch of this repository" in text
    assert "it needs the secrets of the stacks, and a fork gets none" in text
    assert "mallory" not in text
    assert "@carol" not in text


def test_a_newer_commit_is_not_commented_with_an_older_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with GitHubApi() as github:
        pull = github.pull(7, sha=SHA, fork="mallory/site")
        environ = github.environment("workflow_run", tmp_path, number=7)
        pull["head"]["sha"] = "6" * 40
        assert ci_main.main(["fork"], environ, sleep=lambda seconds: None) == 1
        assert github.comments_of(7) == []
    assert "is closed, or has newer commits" in capsys.readouterr().err


def test_without_a_run_to_follow_the_workflow_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with GitHubApi(permissions=EVERYTHING) as github:
        github.pull(7)
        environ = github.environment("pull_request", tmp_path, number=7)
        assert ci_main.main(["fork"], environ) == 1
    assert ".github/workflows/forks.yml" in capsys.readouterr().err
