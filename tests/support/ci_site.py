"""A repository with a stack, as CI sees it: a GitHub, an origin, a laptop that commits, and a runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forge_api import Reply
from tests.support.github_api import GitHubApi
from tests.support.project_copy import REPOSITORY
from tests.support.pulumi_stack import Stack
from tests.support.workflow_runner import JobResult, Repository, Runner, Secrets

NAMES = ("staging", "staging-preview", "nightly", "review")
PASSPHRASE = "canary horse battery staple"
Dies = Callable[[str, str], bool]


def never(step: str, log: str) -> bool:
    return False


@dataclass(kw_only=True)
class CiSite:
    """`laptop` is somebody's clone with the stack `staging`; `said` has all that a run of CI let anybody see."""

    folder: Path
    github: GitHubApi
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    runs: int = 500

    def __post_init__(self) -> None:
        self.laptop = Stack(
            project=self.folder / "laptop", backend=self.folder / "state",
            environment={**self.environment, "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE},
        )  # fmt: skip
        self.laptop.backend.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (REPOSITORY / name).is_file() and not name.startswith("Pulumi."):
                (self.laptop.project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.laptop.project / name)
        shutil.copy2(REPOSITORY / "Pulumi.yaml", self.laptop.project)
        link_packages(self.laptop.project)
        self.laptop.pulumi("stack", "init", "staging")
        self.origin = self.folder / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.origin)], check=True)
        self.git("init", "-q", "-b", "main")
        self.repository = Repository(
            full_name=self.github.repository, origin=self.origin, artifacts=self.folder / "artifacts",
            variables={
                "PULUMI_BACKEND_URL": f"file://{self.laptop.backend}", "PREVIEW_STACKS": '["staging"]',
                "DEPLOY_STACKS": '["staging"]',
            },
            environments={
                name: Secrets(secrets={"PULUMI_CONFIG_PASSPHRASE": PASSPHRASE, **self.secrets}) for name in NAMES
            },
        )  # fmt: skip
        self.github.routes.append(("GET", r"/actions/runs/(\d+)/attempts/1", "actions=read", self._run_of_ci))

    def _run_of_ci(self, call: Any, number: int) -> Reply:
        status = "completed" if number in self.ended else "in_progress"
        return Reply(200, {"id": number, "status": status, "updated_at": "2026-01-01T00:00:00Z"})

    def git(self, *argv: str) -> str:
        """Run git in the laptop's clone."""
        who = ["-c", "user.name=Carol", "-c", "user.email=carol@example.com"]
        done = subprocess.run(
            ["git", *who, *argv], cwd=self.laptop.project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def push_main(self, message: str) -> str:
        """Commit what the laptop has on main, push it, and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        self.git("push", "-q", str(self.origin), "HEAD:main")
        self.github.branches["main"] = self.git("rev-parse", "HEAD")
        return self.github.branches["main"]

    def open_pull(self, number: int, change: Callable[[Stack], None], *, fork: str = "") -> None:
        """Change something on a branch, and open (or update) a pull request with it. The laptop stays on main."""
        branch = f"change-{number}"
        self.git("switch", "-q", "-C", branch, "main")
        change(self.laptop)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"Change {number}")
        sha = self.git("rev-parse", "HEAD")
        self.git("switch", "-q", "main")
        self.git("merge", "-q", "--no-ff", "--no-commit", branch)  # what GitHub makes of it
        tree = self.git("write-tree")
        self.git("merge", "--abort")
        merged = self.git("commit-tree", tree, "-p", "main", "-p", sha, "-m", f"Merge {number}")
        self.git("push", "-q", "-f", str(self.origin), f"{merged}:refs/pull/{number}/merge")
        self.github.pull(number, head=branch, sha=sha, fork=fork)

    def merge(self, number: int) -> str:
        """Merge a pull request into main, as its button does."""
        self.git("merge", "-q", "--no-ff", f"change-{number}", "-m", f"Merge pull request {number}")
        self.github.pulls[number]["state"] = "closed"
        return self.push_main(f"Merged {number}")

    def run(
        self,
        workflow: str,
        event: str,
        *,
        number: int = 0,
        dies: Dies = never,
        payload: Mapping[str, Any] | None = None,
    ) -> list[JobResult]:
        """Run a workflow as GitHub does after an event, and keep all that it shows."""
        self.runs += 1
        events = self.folder / "events"
        events.mkdir(exist_ok=True)
        given = self.github.environment(
            event, events, number=number, run=self.runs, payload=dict(payload) if payload else None
        )
        pull = event == "pull_request"
        github = {
            "event_name": event, "repository": self.github.repository, "ref": given["GITHUB_REF"],
            "base_ref": "main" if pull else "", "event": json.loads(Path(given["GITHUB_EVENT_PATH"]).read_text()),
        }  # fmt: skip
        if event in ("schedule", "workflow_run"):
            github["ref"] = "refs/heads/main"
        runner = Runner(
            repository=self.repository, folder=self.folder / "runs", extra=self._variables, prepare=link_packages,
            token=self._token, own_machines=True, dies=dies,
        )  # fmt: skip
        runner.folder.mkdir(exist_ok=True)
        jobs = runner.run(workflow, github, ref=str(github["ref"]), environment=given)
        self.ended.add(self.runs)
        self.said += [job.log + job.summary for job in jobs]
        return jobs

    def _token(self, permissions: Mapping[str, str]) -> str:
        token = f"ghs_canary{self.runs:04}{len(self.github.tokens):04}abcdefghijklmnop"
        return self.github.add_token(token, permissions)

    def _variables(self, workspace: Path) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **self.environment, "HOME": str(home), "RUNNER_ENVIRONMENT": "github-hosted", "NO_COLOR": "1",
            "PULUMI_HOME": os.environ.get("PULUMI_HOME", str(Path.home() / ".pulumi")),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PYTHONPATH": os.pathsep.join([str(workspace / "infra"), str(workspace)]),
        }  # fmt: skip

    def comments(self, number: int) -> list[str]:
        """What CI has commented on a pull request."""
        return self.github.comments_of(number)

    @property
    def shown(self) -> str:
        """All that anybody can see: logs, summaries, comments, issues and artifacts."""
        kept = [path.read_bytes().decode(errors="replace") for path in self.repository.artifacts.rglob("*.md")]
        texts = [str(one) for one in (*self.github.comments.values(), *self.github.issues.values())]
        return "\n".join([*self.said, *texts, *kept])


def link_packages(clone: Path) -> None:
    """Let a clone use the packages that are installed here, as `make install` leaves them."""
    (clone / ".venv").symlink_to(Path(sys.prefix))
