"""Runs of CI: which one this is, the host name that carries it, and what its forge says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from decant.ci import api_client, runs
from decant.ci.run_state import run_is_over, seconds_left
from decant.ci.runs import Run, current_run, host_name, name_this_host, run_of
from decant.errors import CiError, ForgeError
from tests.support.fake_forge import forge
from tests.support.project_copy import REPOSITORY

GITHUB = Run(forge="github", id="17321", attempt="2")
GITLAB = Run(forge="gitlab", id="901", attempt="1")
ON_GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "17321", "GITHUB_RUN_ATTEMPT": "2"}
ON_GITLAB = {"GITLAB_CI": "true", "CI_JOB_ID": "901"}


@pytest.mark.parametrize(
    ("environ", "run"),
    [
        (ON_GITHUB, GITHUB),
        (ON_GITLAB, GITLAB),
        ({}, None),
        ({"GITHUB_RUN_ID": "17321"}, None),
        ({"CI_JOB_ID": "901"}, None),
    ],
)
def test_the_forges_variables_tell_the_run(environ: dict[str, str], run: Run | None) -> None:
    assert current_run(environ) == run


@pytest.mark.parametrize("run", [GITHUB, GITLAB])
def test_a_host_name_carries_the_run_and_two_jobs_have_different_ones(run: Run) -> None:
    name = host_name(run)
    assert run_of(name) == run
    assert name.startswith(f"decant-{run.forge}-{run.id}-{run.attempt}-")
    assert name != host_name(run)
    assert len(name) <= 64, "the longest that Linux takes"


@pytest.mark.parametrize(
    "host",
    ["laptop", "runnervm6qbrg", "decant-github-1-1", "decant-github-x-1-0a1b2c", "decant-github-1-1-0a1b2c.lan", ""],
)
def test_other_host_names_carry_no_run(host: str) -> None:
    assert run_of(host) is None


def test_runs_are_named_for_people() -> None:
    assert [str(GITHUB), str(GITLAB)] == ["run 17321 (attempt 2) on GitHub", "job 901 on GitLab"]
    assert [GITHUB.name, GITLAB.name] == ["github-17321-2", "gitlab-901-1"]


# ------------------------------------------------------------------------------------------------ the host name


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "_CONTAINER_FILES", (tmp_path / "container",))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run as root."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    return ran


def test_a_hosted_runner_gets_the_name_with_sudo(commands: list[list[str]]) -> None:
    said = name_this_host({**ON_GITHUB, "RUNNER_ENVIRONMENT": "github-hosted"})
    (command,) = commands
    assert command[:3] == ["sudo", "-n", "sh"]
    assert run_of(command[-1]) == GITHUB
    assert (
        said == f"The host name of this runner is {command[-1]} now, so that locks of Pulumi tell which run made them."
    )


def test_a_container_gets_the_name_as_root_without_sudo(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "container").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    name_this_host(ON_GITLAB)
    assert commands[0][0] == "sh"
    assert run_of(commands[0][-1]) == GITLAB


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({**ON_GITHUB, "RUNNER_ENVIRONMENT": "self-hosted"}, "This runner is used again after the job"),
        (ON_GITLAB, "This runner is used again after the job"),
        ({"RUNNER_ENVIRONMENT": "github-hosted"}, "This is no run of GitHub Actions or GitLab CI"),
    ],
)
def test_a_computer_that_stays_keeps_its_name(commands: list[list[str]], environ: dict[str, str], words: str) -> None:
    assert name_this_host(environ).startswith(words)
    assert commands == []


def test_a_runner_that_may_not_be_named_says_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess([], 1, "", "hostname: you must be root to change the host name\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    said = name_this_host({**ON_GITHUB, "RUNNER_ENVIRONMENT": "github-hosted"})
    assert said == (
        "This runner keeps its host name, because it cannot be changed: hostname: you must be root to change the host"
        " name. A job that is killed then leaves a lock that `make unlock` alone lets go: docs/state.md."
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change the host name in a namespace of its own")
def test_the_name_is_really_given(tmp_path: Path) -> None:
    """In a namespace, so that this computer keeps its name and its /etc/hosts."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    script = f'mount --bind {hosts} /etc/hosts && "{sys.executable}" -m decant.ci.runs && hostname'
    done = subprocess.run(
        ["unshare", "--uts", "--mount", "sh", "-ec", script],
        capture_output=True, text=True, check=False, cwd=REPOSITORY / "infra",
        env={**os.environ, **ON_GITHUB, "RUNNER_ENVIRONMENT": "github-hosted"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name = done.stdout.splitlines()[-1]
    assert run_of(name) == GITHUB
    assert hosts.read_text() == f"127.0.0.1 localhost\n127.0.1.1 {name}\n"


# ------------------------------------------------------------------------------------------------ the forge


def ago(seconds: float) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%fZ}"


def environ(url: str) -> dict[str, str]:
    return {
        "GITHUB_API_URL": url, "GITHUB_REPOSITORY": "carol/shop", "GITHUB_TOKEN": "ghs_not_a_real_one",
        "CI_API_V4_URL": url, "CI_PROJECT_ID": "7", "GITLAB_TOKEN": "glpat_not_a_real_one",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "over"),
    [("completed", True), ("in_progress", False), ("queued", False), ("waiting", False), ("pending", False)],
)
def test_a_run_on_github_is_over_when_it_is_completed(status: str, over: bool) -> None:
    with forge((200, {"status": status, "conclusion": None, "updated_at": ago(121)})) as (url, asked):
        assert run_is_over(GITHUB, environ(url)) is over
    assert asked == [("/repos/carol/shop/actions/runs/17321/attempts/2", "Bearer ghs_not_a_real_one")]


@pytest.mark.parametrize(
    ("status", "over"),
    [("success", True), ("failed", True), ("canceled", True), ("skipped", True), ("running", False),
     ("pending", False), ("canceling", False)],
)  # fmt: skip
def test_a_job_on_gitlab_is_over_when_it_has_ended(status: str, over: bool) -> None:
    with forge((200, {"status": status, "finished_at": ago(121)})) as (url, asked):
        assert run_is_over(GITLAB, environ(url)) is over
    assert asked == [("/projects/7/jobs/901", "glpat_not_a_real_one")]


@pytest.mark.parametrize(
    ("run", "answer"),
    [(GITHUB, {"status": "completed", "finished_at": "2026-01-01T00:00:00Z"}),
     (GITLAB, {"status": "failed", "updated_at": "2026-01-01T00:00:00Z"})],
)  # fmt: skip
def test_a_run_that_has_just_ended_may_still_have_a_pulumi_that_runs(run: Run, answer: dict[str, Any]) -> None:
    """GitHub calls a run completed as soon as it is cancelled by force, or its runner is lost."""
    when = "updated_at" if run is GITHUB else "finished_at"
    for seconds, over in ((0, False), (110, False), (121, True)):
        with forge((200, {**answer, when: ago(seconds)})) as (url, _):
            assert run_is_over(run, environ(url)) is over, seconds
    with forge((200, {**answer, when: None})) as (url, _), pytest.raises(ForgeError, match=f"and {when} does not say"):
        run_is_over(run, environ(url))


def test_what_is_left_of_the_two_minutes_is_told() -> None:
    now = datetime.now(UTC)
    assert 99 < seconds_left(now - timedelta(seconds=20)) <= 100
    assert seconds_left(now - timedelta(seconds=120)) == 0
    assert seconds_left(now + timedelta(hours=3)) == 120, "the forge's clock goes ahead"


def test_a_forge_that_stumbles_is_asked_again() -> None:
    with forge((502, {}), (502, {}), (200, {"status": "completed", "updated_at": ago(121)})) as (url, asked):
        assert run_is_over(GITHUB, environ(url), sleep=lambda _: None)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "times", "words"),
    [
        (404, 1, "attempts/2 answers with status 404: may the token read it (on GitHub: permissions: actions: read)?"),
        (403, 1, "attempts/2 answers with status 403: may the token read it (on GitHub: permissions: actions: read)?"),
        (401, 1, "attempts/2 answers with status 401: may the token read it (on GitHub: permissions: actions: read)?"),
        (302, 1, "GitHub sends to another address, which gets no token"),
        (503, api_client.ATTEMPTS, "GitHub has an error of its own (503)"),
    ],
)
def test_a_forge_that_does_not_tell_proves_nothing(status: int, times: int, words: str) -> None:
    with (
        forge((status, {"status": "completed"})) as (url, asked),
        pytest.raises(ForgeError, match=re.escape(words)) as raised,
    ):
        run_is_over(GITHUB, environ(url), sleep=lambda _: None)
    assert "ghs_" not in str(raised.value)
    assert len(asked) == times


@pytest.mark.parametrize(
    ("run", "variable"),
    [(GITHUB, "GITHUB_TOKEN"), (GITHUB, "GITHUB_REPOSITORY"), (GITLAB, "GITLAB_TOKEN"), (GITLAB, "CI_API_V4_URL")],
)
def test_what_is_missing_to_ask_is_named(run: Run, variable: str) -> None:
    with pytest.raises(CiError, match=f"{variable} is not set: give it to this step of the workflow"):
        run_is_over(run, {**environ("http://127.0.0.1:1"), variable: " "})


@pytest.mark.parametrize(("run", "variable"), [(GITHUB, "GITHUB_API_URL"), (GITLAB, "CI_API_V4_URL")])
def test_a_token_goes_to_no_address_without_tls(run: Run, variable: str) -> None:
    with pytest.raises(CiError, match=f"^{variable} is http://forge.example: it must be a URL that starts with https"):
        run_is_over(run, {**environ("http://127.0.0.1:1"), variable: "http://forge.example"})
