"""`make ci-init`: sets CI up, step by step. It shows each change, asks, and can be run again at any time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from decant.ci import github_settings, stack_files
from decant.ci.answers import Answers, find_answers, plan_of, remote, repository_name
from decant.ci.aws_account import Formation, bucket_exists, provider_of
from decant.ci.github_settings import Gh
from decant.ci.policies import PREVIEW, REVIEW, Plan, logical_name, template
from decant.clouds.aws.session import Session, connect
from decant.errors import CloudApiError, DecantError, StackError
from decant.settings.project import project_name, stack_file

SPACES_STATE = """The state and the secrets' passphrase, without AWS (docs/state.md, "In DigitalOcean's Spaces"):
    make a Spaces bucket with versioning, and an access key for that bucket alone
    pulumi login 's3://BUCKET?region=us-east-1&endpoint=https%3A%2F%2Ffra1.digitaloceanspaces.com'
    the variable PULUMI_BACKEND_URL has that address; each environment has the secrets below"""
MEANINGS = {
    "AWS::KMS::Key": "encrypts the state and the stacks' secrets; about 1 USD a month",
    "AWS::KMS::Alias": "the key's name",
    "AWS::S3::Bucket": "holds the state: every version is kept for 90 days, nothing is public",
    "AWS::S3::BucketPolicy": "refuses connections without TLS",
    "AWS::IAM::OIDCProvider": "lets the account check the tokens of the forge",
    "AWS::IAM::ManagedPolicy": "what a role may do",
    "AWS::IAM::Role": "for the jobs of one environment alone",
}


class Dialog:
    """Asks before each change. `YES=yes` answers all questions; without a person nothing is changed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._yes = environ.get("YES", "").lower() in ("yes", "1", "true")
        self._step = 0

    def step(self, title: str) -> None:
        """Print the heading of the next step."""
        self._step += 1
        print(f"\nStep {self._step}: {title}", flush=True)

    def agrees(self, question: str) -> bool:
        """Whether the user wants it."""
        if self._yes:
            print(f"  {question} yes (YES is set)")
            return True
        if not sys.stdin.isatty():
            print(f"  {question} Nobody is here to answer, so nothing is changed. YES=yes answers.")
            return False
        return input(f"  {question} [y/N] ").strip().lower() in ("y", "yes")


def main() -> int:
    """Run all steps, and return the exit status."""
    try:
        return run(os.environ)
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        return 130


def run(environ: Mapping[str, str]) -> int:
    """Run all steps. Raises DecantError."""
    gh = Gh(repository_name(environ))
    with_gh = "github.com" in remote(environ) and gh.usable()
    answers = find_answers(environ, gh if with_gh else None)
    if environ.get("PRINT"):
        print(json.dumps(template(plan_of(answers, provider=environ.get("PROVIDER", ""))), indent=2))
        return 0
    dialog = Dialog(environ)
    _tell(dialog, answers)
    roles: dict[str, str] = {}
    if answers.on_spaces:
        dialog.step("the state, in DigitalOcean's Spaces")
        print(f"  {SPACES_STATE}")
        plan = None
    else:
        plan, roles = _set_up_account(dialog, answers, environ)
        _set_keys(dialog, answers, plan)
    _set_up_forge(dialog, answers, plan, roles, gh if with_gh else None)
    return _check(dialog, answers, plan, roles)


def _tell(dialog: Dialog, answers: Answers) -> None:
    dialog.step("what CI is set up for")
    print(f"  repository  {answers.repository.name}; its tokens begin with {answers.repository.subject}")
    for one in answers.stacks:
        waits = "; previews and deploys wait for a person (APPROVE)" if one.stack in answers.approved else ""
        print(f"  stack       {one.stack}, on {one.cloud or 'no cloud yet'}{waits}")
    print(
        f"  reviews     {'stacks pr-N for pull requests' if answers.reviews else 'no (there is no Pulumi.review.yaml)'}"
    )
    print(f"  main branch {answers.repository.main}")


def _set_up_account(dialog: Dialog, answers: Answers, environ: Mapping[str, str]) -> tuple[Plan, dict[str, str]]:
    session = connect({"region": answers.region}, environ)
    try:
        caller = session.ask("sts", "get_caller_identity")
        account, who = str(caller["Account"]), str(caller["Arn"])
        formation = Formation(session, f"{project_name()}-ci")
        own = formation.has("Provider")
        provider = "" if own else provider_of(session, answers.repository.issuer)
        plan = plan_of(answers, account=account, provider=provider)
        dialog.step(f"state, key and roles in AWS account {account}, {answers.region}, as {who}")
        _form(dialog, formation, plan, session)
        outputs = formation.outputs()
    except CloudApiError as error:
        raise StackError(
            f"AWS refuses: {error}\n  make ci-init needs the credentials of an administrator of the account (aws sso"
            " login, or AWS_PROFILE=name).\n  Or give the template to one: make ci-init PRINT=yes > decant-ci.json"
            "\n  Without an account at AWS: make ci-init STATE=spaces"
        ) from None
    return plan, {
        name: outputs[f"Role{logical_name(name)}"]
        for name in plan.environments()
        if f"Role{logical_name(name)}" in outputs
    }


def _form(dialog: Dialog, formation: Formation, plan: Plan, session: Session) -> None:
    wanted = template(plan)
    if not formation.has("StateBucket") and bucket_exists(session, plan.bucket):
        raise StackError(
            f"There is a bucket {plan.bucket} already, which the CloudFormation stack {formation.name} did not make. If"
            f" it is left of an earlier one, and empty: aws s3 rb s3://{plan.bucket}\n  Else: make ci-init BUCKET=NAME"
        )
    changes = formation.propose(wanted)
    if not changes:
        print(f"  The CloudFormation stack {formation.name} is as it should be.")
        return
    for one in changes:
        sign = {"Add": "+", "Remove": "-"}.get(one.action, "~")
        replaced = " (REPLACED)" if one.replaces else ""
        print(f"  {sign} {one.type.removeprefix('AWS::'):20} {one.name:24} {MEANINGS.get(one.type, '')}{replaced}")
    print("  The whole template, with every policy: make ci-init PRINT=yes. Nothing else in the account changes.")
    if not dialog.agrees(f"Have CloudFormation make these changes as stack {formation.name}?"):
        formation.withdraw()
        raise StackError("Nothing was changed.")
    print("  One or two minutes ...", flush=True)
    formation.apply()
    print(f"  Done. To undo it all: aws cloudformation delete-stack --stack-name {formation.name} (state and key stay)")


def _set_keys(dialog: Dialog, answers: Answers, plan: Plan) -> None:
    dialog.step("the key in the stacks' files, so that no passphrase travels")
    wanted = [*answers.stacks, *([stack_files.read(REVIEW)] if answers.reviews else [])]
    fresh = []
    for one in wanted:
        key = plan.secrets_provider(one.stack)
        if one.key == key:
            print(f"  {stack_file(one.stack).name} has it.")
        elif one.key:
            print(f"  {stack_file(one.stack).name} has another key, which stays: {one.key}")
        elif one.has_passphrase:
            text = stack_files.MOVE.format(stack=one.stack, key=key, backend=plan.backend_url())
            print("  " + text.replace("\n", "\n  "))
        else:
            fresh.append(one.stack)
            print(f"  {stack_file(one.stack).name}: secretsprovider: {key}")
    if fresh and dialog.agrees(f"Write this line into {', '.join(stack_file(one).name for one in fresh)}?"):
        for stack in fresh:
            stack_files.set_key(stack, plan.secrets_provider(stack))


def _set_up_forge(dialog: Dialog, answers: Answers, plan: Plan | None, roles: Mapping[str, str], gh: Gh | None) -> None:
    environments = plan_of(answers).environments()
    variables = {
        "PULUMI_BACKEND_URL": plan.backend_url() if plan else "the address of step 2",
        "PREVIEW_STACKS": json.dumps(list(answers.names)),
        "DEPLOY_STACKS": json.dumps(list(answers.names)),
    }
    if not answers.repository.is_github:
        dialog.step("variables at GitLab (Settings, CI/CD, Variables), and `include: ci/gitlab.yml` in .gitlab-ci.yml")
        for name, value in variables.items():
            print(f"  {name:20} {value}")
        for name, role in roles.items():
            print(f"  AWS_ROLE             {role}   (environment scope {name})")
        return
    dialog.step(f"environments and variables of {answers.repository.name} at GitHub")
    existing = frozenset(name for name in environments if gh and gh.ask(f"/environments/{name}"))
    wanted = github_settings.commands(
        answers.repository.name, answers.repository.main, environments, variables, roles, answers.approved,
        existing=existing, reviewer=gh.user() if gh else 0,
    )  # fmt: skip
    for command in wanted:
        print(f"  {command.shown()}")
    if existing:
        print(f"  Environments that are there keep their rules: {', '.join(sorted(existing))}")
    if gh is None or answers.on_spaces:
        print(f"  gh is not logged in here ({github_settings.INSTALL}), or the address is yours to fill in: run these"
              " yourself. The id of a reviewer is in: gh api user --jq .id")  # fmt: skip
    elif dialog.agrees("Run these commands?"):
        for command in wanted:
            reason = gh.run(command)
            if reason:
                print(f"  Not done: {command.why}. GitHub says: {reason}")
    _tell_secrets(answers, list(environments))


def _tell_secrets(answers: Answers, environments: list[str]) -> None:
    names = [
        *(["DIGITALOCEAN_TOKEN"] if "digitalocean" in answers.clouds() else []),
        *(
            ["PULUMI_CONFIG_PASSPHRASE", "SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY"]
            if answers.on_spaces
            else []
        ),
    ]
    if not names:
        return
    print("  Secrets are yours to type; each command asks for one:")
    for line in github_settings.secret_commands(answers.repository.name, environments, names):
        print(f"    {line}")
    print(f"  A token with read scopes is enough for environments that end in {PREVIEW} (docs/ci.md, Tokens).")


def _check(dialog: Dialog, answers: Answers, plan: Plan | None, roles: Mapping[str, str]) -> int:
    dialog.step("check")
    status = 0
    for one in answers.stacks:
        for environment in (one.stack + PREVIEW, one.stack):
            reads = environment != one.stack
            shown = f"make check-account STACK={one.stack}{' FOR=preview' if reads else ''}"
            if plan is None or one.cloud != "aws" or environment not in roles:
                print(f"  In CI, in environment {environment}: {shown}")
                continue
            print(f"  {shown} ROLE={roles[environment]}", flush=True)
            argv = [sys.executable, "-m", "decant.cli", *(["--read-only"] if reads else []),
                    f"--role={roles[environment]}", "check-account", one.stack]  # fmt: skip
            environ = {**os.environ, "PULUMI_BACKEND_URL": plan.backend_url()}
            status |= subprocess.run(argv, env=environ, check=False).returncode != 0
    files = " ".join(stack_file(name).name for name in answers.names)
    print(f"\nCommit what has changed (git add {files}), push, and open a pull request: docs/ci.md, step 8.")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
