"""The workflows: what they may do, and which of their steps run at which event. `make` is a stub that keeps its calls.

tests/engine/test_workflows.py runs the same steps with the real commands.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project_copy import REPOSITORY
from tests.support.workflow_expressions import UnknownExpressionError, evaluate, truth
from tests.support.workflow_runner import JobResult, Repository, Runner, Secrets

FOLDER = REPOSITORY / ".github/workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
JOBS = {f"{name}: {job}": content for name, text in WORKFLOWS.items() for job, content in text["jobs"].items()}
TARGETS = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
CANARIES = {"DIGITALOCEAN_TOKEN": "dop_v1_canary", "PULUMI_CONFIG_PASSPHRASE": "canary passphrase"}
NAMES = ("staging", "production", "staging-preview", "production-preview", "review", "nightly")

MAKE = """#!{python} -I
# Keeps each call with its variables, writes what the command would, and fails where the test says so.
import json, os, pathlib, sys
folder, target = pathlib.Path("{folder}"), sys.argv[1]
given = dict(word.split("=", 1) for word in sys.argv[2:])
with (folder / "calls").open("a") as calls:
    print(json.dumps({"argv": " ".join(sys.argv[1:]), "env": {**os.environ, **given}}), file=calls)
if target == "rehearse":
    pathlib.Path(given["CARD"]).mkdir()
    pathlib.Path(given["CARD"], "card.md").write_text("## The card")
failing = folder / "failing"
sys.exit(2 if failing.exists() and target in failing.read_text().split() else 0)
"""


class Site:
    """A repository with the workflows, a stub for `make`, and what GitHub knows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, folder / "source"
        (self.source / ".github").mkdir(parents=True)
        subprocess.run(["cp", "-r", str(FOLDER), str(self.source / ".github")], check=True)
        git = ["git", "-C", str(self.source), "-c", "user.name=t", "-c", "user.email=t@example.com"]
        for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"],
                     ["update-ref", "refs/pull/7/merge", "HEAD"]):  # fmt: skip
            subprocess.run([*git, *argv], check=True)
        (folder / "bin").mkdir()
        for name in ("make", "sudo"):
            program = folder / "bin" / name
            text = MAKE if name == "make" else '#!/bin/sh\nshift\nexec "$@"\n'
            program.write_text(text.replace("{folder}", str(folder)).replace("{python}", sys.executable))
            program.chmod(0o755)
        self.repository = Repository(
            full_name="octo/site", origin=self.source / ".git", artifacts=folder / "artifacts",
            variables={"PULUMI_BACKEND_URL": "s3://state"},
            environments={name: Secrets(variables={"AWS_ROLE": f"role-{name}"}, secrets=CANARIES) for name in NAMES},
        )  # fmt: skip

    def fail(self, *targets: str) -> None:
        (self.folder / "failing").write_text("".join(f"{target}\n" for target in targets))

    def run(self, workflow: str, event: str, **payload: Any) -> list[JobResult]:
        fork = payload.pop("fork", False)
        head = {"repo": {"full_name": "mallory/site" if fork else "octo/site"}}
        pull = {"number": 7, "head": head, "state": "open", "labels": [], **payload.pop("pull", {})}
        is_pull = event == "pull_request"
        content = {"action": "synchronize", **({"pull_request": pull} if is_pull else {}), **payload}
        github: dict[str, Any] = {
            "event_name": event, "repository": "octo/site", "event": content,
            "ref": "refs/pull/7/merge" if is_pull else "refs/heads/main", "base_ref": "main" if is_pull else "",
        }  # fmt: skip
        (self.folder / "calls").unlink(missing_ok=True)
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        runner = Runner(repository=self.repository, folder=self.folder, extra=lambda workspace: {"PATH": path})
        return runner.run(workflow, github, ref=github["ref"], environment={})

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def commands(self) -> list[str]:
        return [f"{call['env'].get('STACK', '')}: {call['argv']}" for call in self.calls]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def results(jobs: list[JobResult]) -> dict[str, str]:
    return {f"{job.name} {job.stack}".strip(): job.result for job in jobs}


# ------------------------------------------------------------------------------------------- what a file may hold


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_has_no_right_by_itself(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    assert "pull_request_target" not in WORKFLOWS[name][True]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_each_step_is_a_make_command(name: str) -> None:
    steps = [step for step in JOBS[name]["steps"] if "run" in step]
    for step in steps:
        if step["run"] == 'cat card/card.md >> "$GITHUB_STEP_SUMMARY"':
            continue
        found = re.fullmatch(r"(?:sudo --preserve-env=[A-Z_,]+ )?make ([a-z-]+)((?: [A-Z]+=[\w./-]+)*)", step["run"])
        assert found, step["run"]
        assert any(found[1] in targets.split() for targets in TARGETS), f"the Makefile has no {found[1]}"


@pytest.mark.parametrize("name", sorted(JOBS))
def test_secrets_reach_the_steps_that_need_them_and_no_other(name: str) -> None:
    job = JOBS[name]
    assert "secrets." not in json.dumps({key: value for key, value in job.items() if key != "steps"})
    assert "github.token" not in json.dumps({key: value for key, value in job.items() if key != "steps"})
    for step in job["steps"]:
        used = set(re.findall(r"secrets\.(\w+)", json.dumps(step)))
        command = step.get("run", "")
        if used:
            assert re.search(r"make (ci-login|preview|ssh-open|ssh-close|up|drift|review-\w+)\b", command), command
        if "github.token" in json.dumps(step):
            # They ask whether a run that left a lock or a rule is over.
            both = re.fullmatch(r"make (up ARGS=--yes|ssh-open|review-\w+( .*)?)", command)
            assert not used or both, f"{command} has the cloud's secrets as well"


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_job_with_secrets_is_in_an_environment_and_never_a_forks(name: str) -> None:
    job = JOBS[name]
    if "secrets." not in json.dumps(job["steps"]):
        assert "environment" not in job
        return
    assert "environment" in job
    assert "github.ref == 'refs/heads/main'" in job["if"] or "head.repo.full_name == github.repository" in job["if"]


def test_actions_are_the_known_ones_pinned_by_commits() -> None:
    used = set(re.findall(r"uses: (\S+) # (\S+)", "".join(path.read_text() for path in FOLDER.glob("*.yml"))))
    assert used == {
        ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
        ("actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
        ("actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
    }


def test_what_changes_a_stack_is_never_cancelled_in_the_middle() -> None:
    groups = {
        name: job["concurrency"]["group"]
        for name, job in JOBS.items()
        if re.search(r"make (up|review-up|review-down|review-reap)\b", json.dumps(job))
        and job["concurrency"]["cancel-in-progress"] is False
    }
    assert groups == {
        "deploy: staging": "deploy-staging",
        "deploy: production": "deploy-production",
        "review: up": "review-${{ github.event.pull_request.number }}",
        "review: down": "review-${{ github.event.pull_request.number }}",
        "drift: reap": "review-reap",
    }


# ------------------------------------------------------------------------------------------------- what runs when


def test_a_pull_request_is_previewed_with_the_stacks_own_role(site: Site) -> None:
    site.repository.variables = {**site.repository.variables, "PREVIEW_STACKS": '["staging", "production"]'}
    assert results(site.run("preview", "pull_request")) == {
        "preview staging": "success", "preview production": "success",
        "stale staging": "skipped", "stale production": "skipped",
    }  # fmt: skip
    assert site.commands == [
        f"{stack}: {command}"
        for stack in ("staging", "production")
        for command in ("install", "ci-login", "preview MARKDOWN=preview.md", "ci-comment MARKDOWN=preview.md")
    ]
    assert [call["env"].get("AWS_ROLE") for call in site.calls] == [
        None, "role-staging-preview", None, None, None, "role-production-preview", None, None,
    ]  # fmt: skip


def test_secrets_are_in_the_environment_of_the_preview_alone(site: Site) -> None:
    site.run("preview", "pull_request")
    assert {call["argv"].split()[0]: sorted(CANARIES.keys() & call["env"].keys()) for call in site.calls} == {
        "install": [], "ci-login": [], "preview": ["DIGITALOCEAN_TOKEN", "PULUMI_CONFIG_PASSPHRASE"], "ci-comment": [],
    }  # fmt: skip
    assert [call["argv"] for call in site.calls if "GITHUB_TOKEN" in call["env"]] == ["ci-comment MARKDOWN=preview.md"]


@pytest.mark.parametrize("failing", ["install", "ci-login", "preview"])
def test_a_preview_that_fails_is_commented_as_well(site: Site, failing: str) -> None:
    site.fail(failing)
    (preview, _) = site.run("preview", "pull_request")
    assert preview.result == "failure"
    assert site.commands[-1] == "staging: ci-comment MARKDOWN=preview.md"


def test_a_push_to_main_marks_the_comments_as_stale(site: Site) -> None:
    assert results(site.run("preview", "push")) == {"preview staging": "skipped", "stale staging": "success"}
    assert site.commands == ["staging: ci-stale"]


@pytest.mark.parametrize(
    ("workflow", "payload"),
    [
        ("preview", {}),
        ("review", {"action": "labeled", "label": {"name": "review"}, "pull": {"labels": [{"name": "review"}]}}),
        ("review", {"action": "closed"}),
    ],
)
def test_a_fork_starts_nothing_that_has_credentials(site: Site, workflow: str, payload: dict[str, Any]) -> None:
    assert set(results(site.run(workflow, "pull_request", fork=True, **payload)).values()) == {"skipped"}
    assert site.calls == []


def test_a_fork_is_rehearsed_without_any_secret_and_commented_by_mains_own_code(site: Site) -> None:
    rehearsed, commented = site.run("rehearse", "pull_request", fork=True)
    assert (rehearsed.result, commented.result) == ("success", "skipped")
    assert rehearsed.summary == "## The card"
    assert (site.folder / "artifacts/rehearsal/card.md").read_text() == "## The card"
    assert [call["argv"] for call in site.calls] == ["rehearse CARD=card"]
    assert not [name for call in site.calls for name in call["env"] if name in CANARIES or name == "GITHUB_TOKEN"]
    after = {"event": "pull_request", "head_repository": {"full_name": "mallory/site"}, "head_branch": "x"}
    assert results(site.run("forks", "workflow_run", action="completed", workflow_run=after)) == {"comment": "success"}
    assert [(call["argv"], "GITHUB_TOKEN" in call["env"]) for call in site.calls] == [("ci-fork", True)]
    own = {**after, "head_repository": {"full_name": "octo/site"}}
    assert results(site.run("forks", "workflow_run", action="completed", workflow_run=own)) == {"comment": "skipped"}


@pytest.mark.parametrize("failing", ["", "rehearse"])
def test_the_card_is_commented_by_a_job_that_runs_no_app(site: Site, failing: str) -> None:
    site.fail(failing)
    rehearsed, commented = site.run("rehearse", "pull_request")
    assert (rehearsed.result, commented.result) == ("failure" if failing else "success", "success")
    assert rehearsed.summary == "## The card"
    assert site.calls[-1]["argv"] == "ci-comment KEY=rehearsal MARKDOWN=card/card.md"
    assert [call["argv"] for call in site.calls if "GITHUB_TOKEN" in call["env"]] == [site.calls[-1]["argv"]]


DEPLOY = ["install", "ci-host-name", "ci-login", "ssh-open", "up ARGS=--yes", "ssh-close"]


def test_main_goes_to_staging_and_to_production_once_its_reviewers_agree(site: Site) -> None:
    site.repository.approved = frozenset({"staging"})
    assert results(site.run("deploy", "push")) == {"staging": "success", "production": "skipped"}
    assert site.commands == [f"staging: {command}" for command in DEPLOY]
    site.repository.approved = frozenset({"staging", "production"})
    assert results(site.run("deploy", "push")) == {"staging": "success", "production": "success"}
    assert site.commands == [f"{stack}: {command}" for stack in ("staging", "production") for command in DEPLOY]


@pytest.mark.parametrize("failing", ["ci-login", "ssh-open", "up"])
def test_ssh_is_closed_after_a_failure_and_production_is_left_alone(site: Site, failing: str) -> None:
    site.fail(failing)
    assert results(site.run("deploy", "push")) == {"staging": "failure", "production": "skipped"}
    assert site.commands[-1] == "staging: ssh-close"
    assert failing == site.calls[-2]["argv"].split()[0]


def test_a_repository_with_production_alone_deploys_it(site: Site) -> None:
    site.repository.variables = {**site.repository.variables, "DEPLOY_STACKS": '["production"]'}
    assert results(site.run("deploy", "push")) == {"staging": "skipped", "production": "success"}


@pytest.mark.parametrize(
    ("workflow", "event"), [("preview", "pull_request"), ("deploy", "push"), ("drift", "schedule")]
)
def test_a_repository_that_is_not_set_up_runs_nothing(site: Site, workflow: str, event: str) -> None:
    site.repository.variables = {}
    assert set(results(site.run(workflow, event)).values()) == {"skipped"}


def test_the_nightly_job_closes_its_issue(site: Site) -> None:
    jobs = results(site.run("drift", "schedule"))
    assert jobs == {"drift staging": "success", "drift production": "success", "reap": "success"}
    commands = ["install", "ci-login", "ssh-open", "drift FOR=preview MARKDOWN=drift.md", "ssh-close", "ci-issue-done"]
    assert site.commands[:6] == [f"staging: {command}" for command in commands]
    assert [command for command in site.commands if not command.startswith(("staging", "production"))] == [
        ": install", ": ci-host-name", "review: ci-login STACK=review", ": review-reap",
    ]  # fmt: skip
    assert site.calls[5]["env"]["TITLE"] == "Stack staging is not as its state says, or cannot be deployed"


@pytest.mark.parametrize("failing", ["install", "ci-login", "ssh-open", "drift"])
def test_the_nightly_job_opens_an_issue(site: Site, failing: str) -> None:
    site.fail(failing)
    assert results(site.run("drift", "schedule"))["drift staging"] == "failure"
    staging = [command for command in site.commands if command.startswith("staging")]
    assert staging[-2:] == ["staging: ssh-close", "staging: ci-issue BODY=drift.md"]


LABELLED = {"labels": [{"name": "bug"}, {"name": "review"}]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"action": "labeled", "label": {"name": "review"}, "pull": LABELLED}, "up"),
        ({"action": "labeled", "label": {"name": "bug"}, "pull": LABELLED}, ""),
        ({"action": "synchronize", "pull": LABELLED}, "up"),
        ({"action": "reopened", "pull": LABELLED}, "up"),
        ({"action": "synchronize", "pull": {"labels": [{"name": "bug"}]}}, ""),
        ({"action": "unlabeled", "label": {"name": "review"}}, "down"),
        ({"action": "unlabeled", "label": {"name": "bug"}, "pull": LABELLED}, ""),
        ({"action": "closed", "pull": {**LABELLED, "state": "closed"}}, "down"),
        ({"action": "closed", "pull": {"state": "closed"}}, "down"),
    ],
)
def test_a_review_stack_follows_its_label(site: Site, payload: dict[str, Any], expected: str) -> None:
    done = [
        name for name, result in results(site.run("review", "pull_request", **payload)).items() if result == "success"
    ]
    assert done == ([expected] if expected else [])
    wanted = [f"review-{expected} MARKDOWN=review.md", "ci-comment KEY=review MARKDOWN=review.md"]
    assert [call["argv"] for call in site.calls][3:] == (wanted if expected else [])
    assert {call["env"]["PR"] for call in site.calls} == ({"7"} if expected else set())


def test_every_request_and_every_push_to_main_is_tested(site: Site) -> None:
    for event, fork in (("pull_request", True), ("pull_request", False), ("push", False)):
        assert results(site.run("test", event, fork=fork)) == {"test": "success"}
        assert site.commands == [": test"]


# -------------------------------------------------------------------------------------- the runner of these tests


@pytest.mark.parametrize("text", ["runner.os == 'x'", "startsWith('a', 'b')", "1 == 'x'", "a b", "'open", "github.x ="])
def test_an_expression_that_is_not_known_is_an_error(text: str) -> None:
    with pytest.raises(UnknownExpressionError):
        evaluate(text, {"github": {}}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'A' == 'a' && !null", True),
        ("github.none == '' || false", True),
        ("github.list.*.name", ["x", "y"]),
        ("(1 != 1) || 'it''s'", "it's"),
        ("false && github.list", False),
    ],
)
def test_expressions_have_githubs_values(text: str, expected: object) -> None:
    assert evaluate(text, {"github": {"list": [{"name": "x"}, {"name": "y"}]}}, {}) == expected


def test_lists_are_true_and_empty_texts_are_false() -> None:
    values: list[Any] = [[], {}, "", 0, None, "x", 1]
    assert [truth(value) for value in values] == [True, True, False, False, False, True, True]


# --------------------------------------------------------------------------------------------------------- GitLab


def test_gitlab_runs_the_same_commands() -> None:
    text = yaml.safe_load((REPOSITORY / "ci/gitlab.yml").read_text())
    jobs = {name: job for name, job in text.items() if isinstance(job, dict) and not name.startswith(".")}

    def inherited(job: dict[str, Any], key: str) -> Any:
        return job[key] if key in job else inherited(text[job["extends"]], key) if "extends" in job else []

    assert {name: [*inherited(job, "script"), *inherited(job, "after_script")] for name, job in jobs.items()} == {
        "decant-test": ["make test"],
        "decant-rehearse": ["make rehearse CARD=card", "make ci-comment KEY=rehearsal MARKDOWN=card/card.md"],
        "decant-preview": [
            "make install", "make ci-login", "make preview MARKDOWN=preview.md", "make ci-comment MARKDOWN=preview.md",
        ],
        "decant-stale": ["make ci-stale"],
        "decant-staging": [f"make {command}" for command in DEPLOY],
        "decant-production": [f"make {command}" for command in DEPLOY],
        "decant-drift": [
            "make install", "make ci-login", "make ssh-open", "make drift FOR=preview MARKDOWN=drift.md",
            "make ci-issue-done",
            "make ssh-close", 'if [ "$CI_JOB_STATUS" != success ]; then make ci-issue BODY=drift.md; fi',
        ],
        "decant-reap": ["make install", "make ci-host-name", "make ci-login", "make review-reap"],
        "decant-review-up": [
            "make install", "make ci-host-name", "make ci-login", "make review-up MARKDOWN=review.md",
            "make ci-comment KEY=review MARKDOWN=review.md",
        ],
        "decant-review-down": [
            "make install", "make ci-host-name", "make ci-login", "make review-down MARKDOWN=review.md",
            "make ci-comment KEY=review MARKDOWN=review.md",
        ],
    }  # fmt: skip
    with_credentials = {name for name, job in jobs.items() if inherited(job, "id_tokens")}
    own = "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID"
    for name in with_credentials:
        for rule in jobs[name]["rules"]:
            assert own in rule["if"] or "$CI_DEFAULT_BRANCH" in rule["if"] or "schedule" in rule["if"], name
    assert {inherited(jobs[name], "interruptible") for name in ("decant-staging", "decant-production")} == {False}
    assert {inherited(jobs[name], "resource_group") for name in ("decant-staging", "decant-production")} == {
        "deploy-$STACK"
    }
