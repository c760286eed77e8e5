"""What CI needs in the settings of a GitHub repository, by GitHub's own program `gh`: environments and variables.

What is there already stays: an environment's protection is set when it is made, and never again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decant.clouds.ci import Kind
from decant.errors import StackError


@dataclass(frozen=True, kw_only=True)
class Command:
    """One call of `gh`, and why it is made. `body` goes to its standard input, and `less` where GitHub refuses that.

    `guards` is the environment that is open to every branch without this call, and `opens` the one that gets a role.
    """

    argv: tuple[str, ...]
    why: str
    body: str = ""
    less: str = ""
    guards: str = ""
    opens: str = ""

    def shown(self) -> str:
        """The command as a person would type it."""
        line = shlex.join(("gh", *self.argv))
        return f"{line} <<< {shlex.quote(self.body)}" if self.body else line


class Gh:
    """GitHub's own program, with the login of whoever runs this."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self._path = shutil.which("gh")

    def usable(self) -> bool:
        """Whether it is installed and logged in."""
        return bool(self._path) and self._run(("auth", "status")).returncode == 0

    def ask(self, path: str) -> dict[str, Any] | None:
        """The answer of GitHub's API about the repository; None where there is no such thing. Raises StackError."""
        done = self._run(("api", f"repos/{self.repository}{path}"))
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        if "HTTP 404" in done.stderr:
            return None
        raise StackError(f"GitHub does not answer about {self.repository}: {done.stderr.strip()}")

    def user(self) -> int:
        """The number of the user who is logged in. Raises StackError."""
        done = self._run(("api", "user", "--jq", ".id"))
        if done.returncode != 0 or not done.stdout.strip().isdigit():
            raise StackError(f"GitHub does not say who is logged in: {done.stderr.strip()}")
        return int(done.stdout)

    def run(self, command: Command) -> str:
        """Run a command; "" is the answer where it worked, else GitHub's reason."""
        done = self._run(command.argv, command.body)
        return "" if done.returncode == 0 else (done.stderr.strip() or f"exit status {done.returncode}")

    def _run(self, argv: Sequence[str], body: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._path or "gh", *argv], input=body, capture_output=True, text=True, check=False)


def subject_prefix(gh: Gh) -> str:
    """What the subjects of the repository's tokens begin with. Raises StackError.

    Repositories made, renamed or moved since July 2026 have the numbers of owner and repository in it, so that nobody
    gets their tokens by taking over a name: https://docs.github.com/en/actions/reference/security/oidc
    """
    found = gh.ask("/actions/oidc/customization/sub") or {}
    return str(found.get("sub_claim_prefix") or f"repo:{gh.repository}")


def commands(
    repository: str,
    main: str,
    environments: Mapping[str, tuple[Kind, tuple[str, ...]]],
    variables: Mapping[str, str],
    roles: Mapping[str, str],
    approved: Sequence[str],
    *,
    existing: frozenset[str] = frozenset(),
    reviewer: int | None,
) -> list[Command]:
    """The calls that set a repository up.

    `approved` are stacks whose jobs wait for a person, and `reviewer` is that person's number, None if it is not known.
    """
    made = [
        Command(
            argv=("variable", "set", name, "--repo", repository, "--body", value),
            why=f"the variable {name}",
        )
        for name, value in variables.items()
    ]
    for environment, (kind, stacks) in environments.items():
        if environment not in existing:
            waits = must_wait(kind, stacks, approved)
            reviewers = [{"type": "User", "id": "NUMBER" if reviewer is None else reviewer}] if waits else None
            made += _new_environment(repository, environment, main, kind, reviewers)
        if environment in roles:
            argv = ("variable", "set", "AWS_ROLE", "--repo", repository, "--env", environment,
                    "--body", roles[environment])  # fmt: skip
            made.append(Command(argv=argv, why=f"the role of {environment}", opens=environment))
    return made


def _new_environment(
    repository: str, name: str, main: str, kind: Kind, reviewers: list[dict[str, Any]] | None
) -> list[Command]:
    only_main = kind in ("deploy", "nightly")
    body = {
        "reviewers": reviewers,
        "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True}
        if only_main
        else None,
    }
    address = f"repos/{repository}/environments/{name}"
    rules = [*(["a reviewer"] if reviewers else []), *([f"branch {main} alone"] if only_main else [])]
    found = [
        Command(
            argv=("api", "--silent", "--method", "PUT", address, "--input", "-"),
            body=json.dumps(body),
            # Some plans have no reviewers. Without this, the rule about branches would be lost, too.
            less=json.dumps({**body, "reviewers": None}) if reviewers and only_main else "",
            why=f"the environment {name}, with {' and '.join(rules) or 'no rule'}",
            guards=name if reviewers and not only_main else "",
        )
    ]
    if only_main:
        argv = ("api", "--silent", "--method", "POST", f"{address}/deployment-branch-policies", "-f", f"name={main}")
        found.append(Command(argv=argv, why=f"only {main} may use {name}"))
    return found


def missing_rules(kind: Kind, found: Mapping[str, Any], *, waits: bool) -> list[str]:
    """What an environment that was there before lets anybody do, by GitHub's description: ends of a sentence."""
    rules = {str(one.get("type")) for one in found.get("protection_rules") or ()}
    open_to_all = kind in ("deploy", "nightly") and not found.get("deployment_branch_policy")
    return [
        *(["every branch may use it"] if open_to_all else []),
        *(["nobody has to approve its jobs"] if waits and "required_reviewers" not in rules else []),
    ]


def must_wait(kind: Kind, stacks: Sequence[str], approved: Sequence[str]) -> bool:
    """Whether a person must approve the jobs of an environment."""
    return kind in ("deploy", "preview") and stacks[0] in approved


def secret_command(repository: str, environment: str, name: str) -> str:
    """The call that asks for a secret and stores it: for the user to type, so that no secret passes through here."""
    return shlex.join(("gh", "secret", "set", name, "--repo", repository, "--env", environment))
