"""Runs the workflows of .github/workflows as GitHub's runner does: conditions, matrices, environments, steps in order.

Each job gets a fresh clone, a token with the job's permissions, and the variables and secrets of its environment alone.
`run:` steps really run; the few actions that our workflows use are played here. What a workflow uses and this does not
know is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.runner_machine import RunnerMachine
from tests.support.workflow_expressions import condition, contains, fill, from_json, shown

Json = dict[str, Any]
WORKFLOW_KEYS = {"name", "on", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 reads `on` as true
JOB_KEYS = {
    "name", "if", "needs", "runs-on", "timeout-minutes", "strategy", "environment", "concurrency", "permissions",
    "env", "steps",
}  # fmt: skip
STEP_KEYS = {"name", "id", "if", "uses", "with", "run", "env"}
# What a runner itself sets, of which steps may depend.
KEPT = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PULUMI_HOME")


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What one environment of the repository holds."""

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step: its name, how it ended ("success", "failure", "skipped"), what it printed and the environment it had."""

    name: str
    outcome: str
    log: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(kw_only=True)
class JobResult:
    """A job of one matrix combination. `result` is "success", "failure", "skipped" or, if its machine died, "lost"."""

    name: str
    result: str
    stack: str = ""
    steps: list[StepResult] = field(default_factory=list)
    summary: str = ""

    @property
    def log(self) -> str:
        return "".join(step.log for step in self.steps)

    @property
    def outcomes(self) -> dict[str, str]:
        return {step.name: step.outcome for step in self.steps}

    def step(self, name: str) -> StepResult:
        (found,) = [step for step in self.steps if step.name == name]
        return found


@dataclass(kw_only=True)
class Repository:
    """The repository as GitHub knows it: where the commits are, and its variables, environments and kept artifacts."""

    full_name: str
    origin: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    environments: Mapping[str, Secrets] = field(default_factory=dict)
    artifacts: Path = Path()
    approved: frozenset[str] | None = None
    """Environments whose reviewers have agreed; None: there are no reviewers."""


@dataclass(kw_only=True)
class Runner:
    """Runs workflows of a repository."""

    repository: Repository
    folder: Path
    extra: Callable[[Path], Mapping[str, str]] = lambda workspace: {}
    """Variables that a test adds for every step in a clone, such as another PATH."""
    prepare: Callable[[Path], None] = lambda workspace: None
    """Called with each fresh clone before its first `run:` step."""
    token: Callable[[Mapping[str, str]], str] = lambda permissions: "token"
    """Makes the job's token from its permissions."""
    own_machines: bool = False
    """Whether each job has a machine of its own (tests/support/runner_machine.py), for which this must be root."""
    dies: Callable[[str, str], bool] = lambda step, log: False
    """Asked again and again while a step runs, with its name and what it has printed: whether the machine dies now."""
    longest: float = 900

    def run(self, workflow: str, github: Json, *, ref: str, environment: Mapping[str, str]) -> list[JobResult]:
        """Run all jobs of a workflow. `github` is the context, `ref` what the event's checkout gives."""
        text = subprocess.run(
            ["git", "--git-dir", str(self.repository.origin), "show", f"{self._own(workflow, github, ref)}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        content = yaml.safe_load(text)
        _only(content, WORKFLOW_KEYS, workflow)
        if not self._starts(content[True] if True in content else content["on"], github):
            return []
        results: list[JobResult] = []
        for name, job in content["jobs"].items():
            _only(job, JOB_KEYS, f"{workflow}: {name}")
            for matrix in self._matrix(job, github):
                results.append(_Job(self, name, job, matrix, github, ref, environment, results).run())
        return results

    def _own(self, workflow: str, github: Json, ref: str) -> str:
        """Where the workflow's own text comes from: main for events that run with main's rights."""
        trusted = github["event_name"] in ("workflow_run", "schedule", "workflow_dispatch")
        return f"{'main' if trusted else ref}:.github/workflows/{workflow}.yml"

    @staticmethod
    def _starts(triggers: Any, github: Json) -> bool:
        """Whether the event starts the workflow: its name, branch and type."""
        triggers = triggers if isinstance(triggers, dict) else {triggers: None}
        name = github["event_name"]
        if name not in triggers:
            return False
        wanted: Json = triggers[name] or {} if isinstance(triggers[name], dict) or triggers[name] is None else {}
        branch = github.get("base_ref") or github["ref"].removeprefix("refs/heads/")
        if "branches" in wanted and branch not in wanted["branches"]:
            return False
        types = wanted.get("types") or (["opened", "synchronize", "reopened"] if name == "pull_request" else None)
        return types is None or github["event"].get("action") in types

    def _matrix(self, job: Json, github: Json) -> list[Json]:
        strategy = job.get("strategy", {})
        _only(strategy, {"fail-fast", "matrix"}, "strategy")
        if not strategy:
            return [{}]
        assert strategy["fail-fast"] is False, "one stack's failure must not end another's deploy"
        ((key, values),) = strategy["matrix"].items()
        filled = fill(values, {"vars": self.repository.variables, "github": github}, {"fromJSON": from_json})
        return [{key: value} for value in filled]


def _only(found: Mapping[Any, Any], known: set[Any], where: str) -> None:
    assert set(found) <= known, f"{where} uses {set(found) - known}, which tests/support/workflow_runner.py lacks"


def _is_of_a_fork(github: Json) -> bool:
    pull = github["event"].get("pull_request")
    return bool(pull) and pull["head"]["repo"]["full_name"] != github["repository"]


class _Job:
    def __init__(
        self, runner: Runner, name: str, job: Json, matrix: Json, github: Json, ref: str,
        environment: Mapping[str, str], before: list[JobResult],
    ) -> None:  # fmt: skip
        self.runner, self.job, self.github, self.ref, self.given = runner, job, github, ref, environment
        needed = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        self.needs = [result.result for result in before if result.name in needed]
        self.contexts: Json = {
            "github": github, "matrix": matrix, "vars": dict(runner.repository.variables), "secrets": {},
        }  # fmt: skip
        self.result = JobResult(name=name, result="success", stack=shown(matrix.get("stack", "")))
        self.workspace = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=runner.folder))
        self.prepared = False

    def functions(self, failed: bool, skipped: bool = False) -> dict[str, Callable[..., Any]]:
        return {
            "success": lambda: not failed and not skipped, "failure": lambda: failed, "always": lambda: True,
            "cancelled": lambda: False, "contains": contains, "fromJSON": from_json,
        }  # fmt: skip

    def run(self) -> JobResult:
        functions = self.functions("failure" in self.needs, "skipped" in self.needs)
        # A job's own condition sees neither the environment nor its secrets.
        contexts = {name: self.contexts[name] for name in ("github", "vars")}
        if not condition(self.job.get("if", "success()"), contexts, functions) or not self._enter_environment():
            self.result.result = "skipped"
            return self.result
        permissions = self.job.get("permissions", {})
        if _is_of_a_fork(self.github):  # GitHub takes every right to write from the token of a fork's pull request
            permissions = dict.fromkeys(permissions, "read")
        self.token = self.runner.token(permissions)
        self.github = {**self.github, "token": self.token}
        self.contexts["github"] = self.github
        summary = self.workspace.with_suffix(".summary")
        summary.write_text("")
        self.machine = RunnerMachine() if self.runner.own_machines else None
        try:
            for step in self.job["steps"]:
                _only(step, STEP_KEYS, f"step {step.get('name') or step.get('uses')}")
                if self.result.result != "lost":
                    self._step(step, summary)
        finally:
            if self.machine:
                self.machine.kill()
        self.result.summary = summary.read_text()
        return self.result

    def _enter_environment(self) -> bool:
        """Take the environment's variables and secrets; False where its reviewers have not agreed."""
        wanted = self.job.get("environment")
        if wanted is None:
            return True
        if isinstance(wanted, dict):
            _only(wanted, {"name", "deployment"}, "environment")
            wanted = wanted["name"]
        name = fill(wanted, self.contexts, self.functions(False))
        repository = self.runner.repository
        if repository.approved is not None and name not in repository.approved:
            return False
        if _is_of_a_fork(self.github):
            return True  # a fork's run gets no secret and no variable of an environment
        held = repository.environments.get(name, Secrets())
        self.contexts["vars"] |= held.variables
        self.contexts["secrets"] = dict(held.secrets)
        return True

    def _step(self, step: Json, summary: Path) -> None:
        failed = self.result.result == "failure"
        functions = self.functions(failed)
        name = step.get("name") or step["uses"].partition("@")[0]
        if not condition(step.get("if", "success()"), self.contexts, functions):
            self.result.steps.append(StepResult(name=name, outcome="skipped"))
            return
        given = {**self.job.get("env", {}), **step.get("env", {})}
        filled = {key: shown(fill(value, self.contexts, functions)) for key, value in given.items()}
        if "uses" in step:
            ok, log = self._use(step["uses"], step.get("with", {}), functions)
            environment: Mapping[str, str] = {}
        else:
            assert "${{" not in step["run"], f"an expression in a shell line: {step['run']}"
            environment = self._environment(filled, summary)
            ok, log = self._run(name, step["run"], environment)
        self.result.steps.append(
            StepResult(name=name, outcome="success" if ok else "failure", log=log, environment=environment)
        )
        if not ok and self.result.result != "lost":
            self.result.result = "failure"

    def _environment(self, filled: Mapping[str, str], summary: Path) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        given = {key: value for key, value in self.given.items() if key != "GITHUB_TOKEN"}
        return {**kept, **given, **self.runner.extra(self.workspace), "GITHUB_STEP_SUMMARY": str(summary), **filled}

    def _run(self, name: str, script: str, environment: Mapping[str, str]) -> tuple[bool, str]:
        if not self.prepared:
            self.runner.prepare(self.workspace)
            self.prepared = True
        prefix = self.machine.prefix(self.workspace) if self.machine else []
        shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
        started = time.monotonic()
        with (
            tempfile.NamedTemporaryFile("w") as output,
            Path(output.name).open(encoding="utf-8", errors="replace") as log,
        ):
            process = subprocess.Popen(
                [*prefix, *shell], cwd=self.workspace, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            while process.poll() is None:
                log.seek(0)
                if self.machine and self.runner.dies(name, log.read()):
                    self.machine.kill()
                    self.result.result = "lost"
                elif time.monotonic() - started > self.runner.longest:
                    process.kill()
                time.sleep(0.05)
            log.seek(0)
            return process.returncode == 0, f"$ {script}\n{log.read()}"

    def _use(self, action: str, options: Json, functions: Mapping[str, Callable[..., Any]]) -> tuple[bool, str]:
        name, _, version = action.partition("@")
        assert len(version) == 40, f"{action} is not pinned by a whole commit"
        options = {key: fill(value, self.contexts, functions) for key, value in options.items()}
        kept = self.runner.repository.artifacts / shown(options.get("name", ""))
        if name == "actions/checkout":
            _only(options, {"persist-credentials", "ref"}, action)
            assert options["persist-credentials"] is False, "the token would stay in the clone"
            ref = options.get("ref", self.ref)
            for argv in (["init", "-q"], ["fetch", "-q", "--depth=1", f"file://{self.runner.repository.origin}", ref],
                         ["checkout", "-q", "FETCH_HEAD"]):  # fmt: skip
                subprocess.run(["git", *argv], cwd=self.workspace, check=True, capture_output=True)
            return True, f"checked out {ref}\n"
        if name == "actions/upload-artifact":
            _only(options, {"name", "path", "retention-days"}, action)
            source = self.workspace / options["path"]
            if not source.exists():
                return True, f"warning: nothing at {options['path']}\n"
            shutil.copytree(source, kept, dirs_exist_ok=True)
            return True, f"kept {options['name']}\n"
        if name == "actions/download-artifact":
            _only(options, {"name", "path"}, action)
            if not kept.is_dir():
                return False, f"there is no artifact {options['name']}\n"
            shutil.copytree(kept, self.workspace / options["path"], dirs_exist_ok=True)
            return True, f"fetched {options['name']}\n"
        raise AssertionError(f"the action {name} is not known here")
