"""Runs of CI: which one this is, and the host name that carries it.

Pulumi writes the host name and the process into the lock of a stack, and nothing else that could tell who made it
(`newLockContent` in pkg/backend/diy/lock.go of Pulumi). So a runner gets a host name that carries the run: a later run
reads it in a lock that was left behind, and asks the forge whether that run is over.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HOST_NAME = re.compile(r"decant-(github|gitlab)-(\d+)-(\d+)-[0-9a-f]{6}")
_NAME = re.compile(r"(github|gitlab)-(\d+)-(\d+)")
_CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt of a run at a forge. On GitLab it is one job, and `attempt` is always 1."""

    forge: str
    id: str
    attempt: str

    @property
    def name(self) -> str:
        """A name of letters, digits and dashes that no other run of the forge has."""
        return f"{self.forge}-{self.id}-{self.attempt}"

    def __str__(self) -> str:
        if self.forge == "gitlab":
            return f"job {self.id} on GitLab"
        return f"run {self.id} (attempt {self.attempt}) on GitHub"


def current_run(environ: Mapping[str, str]) -> Run | None:
    """The run that this process belongs to; None outside of CI.

    The variables are the forges' own: https://docs.github.com/en/actions/reference/workflows-and-actions/variables and
    https://docs.gitlab.com/ci/variables/predefined_variables/
    """
    if environ.get("GITHUB_ACTIONS") and environ.get("GITHUB_RUN_ID"):
        return Run(forge="github", id=environ["GITHUB_RUN_ID"], attempt=environ.get("GITHUB_RUN_ATTEMPT", "1"))
    if environ.get("GITLAB_CI") and environ.get("CI_JOB_ID"):
        return Run(forge="gitlab", id=environ["CI_JOB_ID"], attempt="1")
    return None


def host_name(run: Run) -> str:
    """A host name for a computer that this run has for itself. Jobs of one run get different ones."""
    return f"decant-{run.name}-{secrets.token_hex(3)}"


def run_of(host: str) -> Run | None:
    """The run that a host name carries; None where it carries none."""
    found = _HOST_NAME.fullmatch(host)
    return Run(forge=found[1], id=found[2], attempt=found[3]) if found else None


def run_named(name: str) -> Run | None:
    """The run that has this name; None for any other text."""
    found = _NAME.fullmatch(name)
    return Run(forge=found[1], id=found[2], attempt=found[3]) if found else None


def is_thrown_away(environ: Mapping[str, str]) -> bool:
    """Whether this computer ends with the job, so that nobody minds its name."""
    return environ.get("RUNNER_ENVIRONMENT") == "github-hosted" or any(file.exists() for file in _CONTAINER_FILES)


def name_this_host(environ: Mapping[str, str]) -> str:
    """Give this computer the host name that carries the run. Returns what was done, or why nothing was.

    Nothing fails without it. A lock that a killed job leaves has to be let go by a person then.
    """
    left = "A job that is killed then leaves a lock that `make unlock` alone lets go: docs/state.md."
    run = current_run(environ)
    if run is None:
        return "This is no run of GitHub Actions or GitLab CI, so this computer keeps its host name."
    if not is_thrown_away(environ):
        return f"This runner is used again after the job, so it keeps its host name. {left}"
    name = host_name(run)
    # sudo looks its own host name up, and waits for a DNS server where /etc/hosts does not have it.
    script = 'hostname "$1" && echo "127.0.1.1 $1" >>/etc/hosts'
    command = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "sh", "-c", script, "sh", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"
    except OSError as error:
        why = str(error)
    if why:
        return f"This runner keeps its host name, because it cannot be changed: {why}. {left}"
    return f"The host name of this runner is {name} now, so that locks of Pulumi tell which run made them."


def main() -> int:
    """`make ci-host-name`."""
    print(name_this_host(os.environ))
    return 0


if __name__ == "__main__":
    sys.exit(main())
