"""What `make ci-init` sets CI up for: what it was given by variables, and what it finds in the project."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from decant.ci import stack_files
from decant.ci.github_settings import Gh, subject_prefix
from decant.ci.stack_files import StackFile
from decant.clouds.ci import ACCOUNT, GITHUB_ISSUER, REVIEW, Plan, Repository
from decant.errors import StackError
from decant.settings.project import PROJECT, project_name, stack_file


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What `make ci-init` was given, or found out. `approved` are stacks whose jobs wait for a person."""

    repository: Repository
    stacks: tuple[StackFile, ...]
    approved: tuple[str, ...]
    reviews: bool
    region: str
    bucket: str
    on_spaces: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stacks, in the order of the deploys."""
        return tuple(one.stack for one in self.stacks)

    def clouds(self) -> set[str]:
        """The clouds of the stacks."""
        return {one.cloud for one in self.stacks}


def repository_address(environ: Mapping[str, str]) -> tuple[str, str]:
    """The host of the repository, and its owner and name there: from `REPOSITORY`, else from the remote `origin`.

    Raises:
        StackError: neither says it.
    """
    given = environ.get("REPOSITORY", "").strip() or _origin()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        given = f"github.com/{given}"
    address = re.sub(r"^(?:\w+://)?(?:[^@/]+@)?", "", given).rstrip("/").removesuffix(".git")
    found = re.fullmatch(r"([A-Za-z0-9.-]+)(?::\d+)?[:/]([\w.-]+(?:/[\w.-]+)+)", address)
    if not found:
        raise StackError(
            f"Which repository CI is for is not known: the remote origin is {address or 'not set'}. Name it:"
            " make ci-init REPOSITORY=owner/name   (gitlab.com/group/name for GitLab)"
        )
    return found[1], found[2]


def _origin() -> str:
    done = subprocess.run(
        ["git", "-C", str(PROJECT), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def find_answers(environ: Mapping[str, str], gh: Gh | None) -> Answers:
    """What CI is set up for. Raises StackError."""
    host, name = repository_address(environ)
    if host == "github.com":
        subject = environ.get("SUBJECT") or (subject_prefix(gh) if gh else f"repo:{name}")
        issuer = GITHUB_ISSUER
    elif "gitlab" in host:
        subject, issuer = environ.get("SUBJECT") or f"project_path:{name}", host
    else:
        raise StackError(
            f"The repository is at {host}; make ci-init knows github.com and GitLab. For another forge with OIDC, take"
            " the template and change its trust policies: make ci-init PRINT=yes REPOSITORY=owner/name"
        )
    wanted = environ.get("STACKS", "").split() or [one for one in ("staging", "production") if stack_file(one).exists()]
    if not wanted:
        raise StackError("Which stacks CI deploys is not known. Name them: make ci-init STACKS='staging production'")
    stacks = tuple(map(stack_files.read, dict.fromkeys(wanted)))
    approved = tuple(environ.get("APPROVE", "production").split())
    regions = [stack_files.region_of(one.stack) for one in stacks if one.cloud == "aws"]
    region = environ.get("REGION") or next(filter(None, regions), "") or "eu-central-1"
    on_spaces = environ.get("STATE", "aws").lower() == "spaces"
    if on_spaces and any(one.cloud == "aws" for one in stacks):
        raise StackError("STATE is spaces, and a stack is on AWS, which has the better place: make ci-init STATE=aws")
    return Answers(
        repository=Repository(issuer=issuer, name=name, subject=subject, main=environ.get("MAIN") or "main"),
        stacks=stacks,
        approved=tuple(one.stack for one in stacks if one.stack in approved),
        reviews=environ.get("REVIEWS", "").lower() not in ("no", "0", "false") and stack_file(REVIEW).exists(),
        region=region,
        bucket=environ.get("BUCKET", ""),
        on_spaces=on_spaces,
    )


def plan_of(answers: Answers, *, account: str = ACCOUNT, provider: str = "") -> Plan:
    """What is made in an account; in the template's own words for it, if that is not known."""
    project = project_name()
    files = [*answers.stacks, *([stack_files.read(REVIEW)] if answers.reviews else [])]
    on_aws = [one for one in files if one.cloud == "aws"]
    return Plan(
        project=project,
        region=answers.region,
        bucket=answers.bucket or f"{project.lower().replace('_', '-')}-state-{account}-{answers.region}",
        repository=answers.repository,
        stacks=answers.names,
        on_aws=frozenset(one.stack for one in on_aws),
        with_zone={one.stack: one.names_in_zone for one in on_aws if one.names_in_zone},
        reviews=answers.reviews,
        provider=provider,
    )
