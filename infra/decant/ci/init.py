"""`make ci-init`: sets CI up step by step, shows each change before it is made, and can be run again at any time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from decant import clouds
from decant.ci import github_settings, stack_files
from decant.ci.answers import Answers, find_answers, plan_of, repository_address
from decant.ci.github_settings import Command, Gh
from decant.clouds.ci import PREVIEW, REVIEW, CiAccount, Kind, Plan
from decant.errors import CloudApiError, DecantError, StackError
from decant.settings.project import project_name, stack_file

SPACES_STATE = """The state and the secrets' passphrase, without AWS (docs/state.md, "In DigitalOcean's Spaces"):
    make a Spaces bucket with versioning, and an access key for that bucket alone
    pulumi login 's3://BUCKET?region=us-east-1&endpoint=https%3A%2F%2Ffra1.digitaloceanspaces.com'
    the variable PULUMI_BACKEND_URL has that address; each environment has the secrets below"""
BY_HAND = """These are yours to run, where GitHub's program gh is installed and logged in (https://cli.github.com), with
  the address of step 2 and the number of a reviewer filled in: gh api user --jq .id
  Where GitHub refuses the reviewer of an environment that ends in {PREVIEW}, give it no AWS_ROLE and no secret"""
NOT_PROTECTED = """  NOT PROTECTED: GitHub refuses a reviewer for {name}, so that every branch may use it.
  It gets no AWS_ROLE and no secret. A workflow of any branch may still name its role. One of these ends that:
      take the stack and its roles out of CI: make ci-init STACKS='{others}'
      make the environment yourself, with required reviewers, then: make ci-init
      https://github.com/{repository}/settings/environments"""


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
    host, name = repository_address(environ)
    gh = Gh(name)
    with_gh = host == "github.com" and gh.usable()
    answers = find_answers(environ, gh if with_gh else None)
    if environ.get("PRINT"):
        print(json.dumps(clouds.ci_template(plan_of(answers, provider=environ.get("PROVIDER", ""))), indent=2))
        return 0
    dialog = Dialog(environ)
    _tell(dialog, answers)
    roles: Mapping[str, str] = {}
    if answers.on_spaces:
        dialog.step("the state, in DigitalOcean's Spaces")
        print(f"  {SPACES_STATE}")
        plan = None
    else:
        plan, roles = _set_up_account(dialog, answers, environ)
        _set_keys(dialog, answers, plan)
    protected = _set_up_forge(dialog, answers, plan, roles, gh if with_gh else None)
    return _check(dialog, answers, plan, roles) or int(not protected)


def _tell(dialog: Dialog, answers: Answers) -> None:
    dialog.step("what CI is set up for")
    print(f"  repository  {answers.repository.name}; its tokens begin with {answers.repository.subject}")
    for one in answers.stacks:
        waits = "; previews and deploys wait for a person (APPROVE)" if one.stack in answers.approved else ""
        print(f"  stack       {one.stack}, on {one.cloud or 'no cloud yet'}{waits}")
        for name in one.credentials:
            print(
                f"              {stack_file(one.stack).name} holds {name}, so that previews have it, too. Take it out:"
            )
            print(f"              pulumi config rm {name} --stack {one.stack}   (docs/ci.md, Tokens)")
    print(
        f"  reviews     {'stacks pr-N for pull requests' if answers.reviews else 'no (there is no Pulumi.review.yaml)'}"
    )
    print(f"  main branch {answers.repository.main}")


def _set_up_account(dialog: Dialog, answers: Answers, environ: Mapping[str, str]) -> tuple[Plan, Mapping[str, str]]:
    try:
        account = clouds.ci_account(project_name(), answers.region, environ)
        plan = plan_of(answers, account=account.number, provider=account.provider(answers.repository.issuer))
        dialog.step(f"state, key and roles in AWS account {account.number}, {answers.region}, as {account.caller}")
        _change_account(dialog, account, plan)
        return plan, account.roles(plan)
    except CloudApiError as error:
        raise StackError(
            f"AWS refuses: {error}\n  make ci-init needs the credentials of an administrator of the account (aws sso"
            " login, or AWS_PROFILE=name).\n  Or give the template to one: make ci-init PRINT=yes > decant-ci.json"
            "\n  Without an account at AWS: make ci-init STATE=spaces"
        ) from None


def _change_account(dialog: Dialog, account: CiAccount, plan: Plan) -> None:
    changes = account.propose(plan)
    if not changes:
        print(f"  The CloudFormation stack {account.formation} is as it should be.")
        return
    for one in changes:
        sign = {"Add": "+", "Remove": "-"}.get(one.action, "~")
        print(f"  {sign} {one.type:20} {one.name:24} {one.meaning}{' (REPLACED)' if one.replaces else ''}")
    print("  The whole template, with every policy: make ci-init PRINT=yes. Nothing else in the account changes.")
    if not dialog.agrees(f"Have CloudFormation make these changes as stack {account.formation}?"):
        account.withdraw()
        raise StackError("Nothing was changed.")
    print("  One or two minutes ...", flush=True)
    account.apply()
    print(f"  Done. To undo it: aws cloudformation delete-stack --stack-name {account.formation} (state and key stay)")


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


def _set_up_forge(dialog: Dialog, answers: Answers, plan: Plan | None, roles: Mapping[str, str], gh: Gh | None) -> bool:
    """Set the forge up. False where GitHub refuses something or an environment lacks a rule, which is told."""
    environments = plan_of(answers).environments()
    variables = {
        "PULUMI_BACKEND_URL": plan.backend_url() if plan else "the address of step 2",
        "PREVIEW_STACKS": json.dumps(list(answers.names)),
        "DEPLOY_STACKS": json.dumps(list(answers.names)),
    }
    if not answers.repository.is_github:
        dialog.step("variables at GitLab (Settings, CI/CD, Variables; docs/ci.md, On GitLab)")
        for name, value in variables.items():
            print(f"  {name:20} {value}")
        for name, role in roles.items():
            scope = f"{name}*" if name == REVIEW else name  # each review has an environment of its own: review/7
            print(f"  AWS_ROLE             {role}   (environment scope {scope})")
        return True
    dialog.step(f"environments and variables of {answers.repository.name} at GitHub")
    asked = {name: gh.ask(f"/environments/{name}") if gh else None for name in environments}
    existing = {name: found for name, found in asked.items() if found is not None}
    unprotected = {name for name, found in existing.items() if _is_open(environments[name], found, answers.approved)}
    given = {name: role for name, role in roles.items() if name not in unprotected}
    wanted = github_settings.commands(
        answers.repository.name, answers.repository.main, environments, variables, given, answers.approved,
        existing=frozenset(existing), reviewer=gh.user() if gh else None,
    )  # fmt: skip
    for command in wanted:
        print(f"  {command.shown()}")
    if existing:
        print(f"  Environments that are there keep their rules: {', '.join(sorted(existing))}")
    done = True
    if gh is None or answers.on_spaces:
        print(f"  {BY_HAND.format(PREVIEW=PREVIEW)}")
    elif dialog.agrees("Run these commands?"):
        done = _run_commands(gh, wanted, answers, unprotected)
    _tell_secrets(answers, unprotected)
    return _rules_are_there(answers, environments, existing) and done


def _is_open(environment: tuple[Kind, tuple[str, ...]], found: Mapping[str, Any], approved: Sequence[str]) -> bool:
    """Whether every branch may use an environment that was there before, and a person should approve its jobs."""
    kind, stacks = environment
    waits = github_settings.must_wait(kind, stacks, approved)
    return kind == "preview" and bool(github_settings.missing_rules(kind, found, waits=waits))


def _run_commands(gh: Gh, wanted: Sequence[Command], answers: Answers, unprotected: set[str]) -> bool:
    """Run the commands. False where GitHub refuses one. An environment without its reviewer joins `unprotected`."""
    done = True
    for command in wanted:
        if command.opens in unprotected or _is_done(gh, command):
            continue
        done = False
        if command.guards:
            unprotected.add(command.guards)
            others = " ".join(one for one in answers.names if one + PREVIEW != command.guards)
            named = {"name": command.guards, "others": others or "OTHERS", "repository": answers.repository.name}
            print(NOT_PROTECTED.format(**named))
    return done


def _is_done(gh: Gh, command: Command) -> bool:
    """Run a command, and tell what GitHub refused."""
    reason = gh.run(command)
    if not reason:
        return True
    print(f"  Not done: {command.why}. GitHub says: {reason}")
    if command.less and not gh.run(replace(command, body=command.less)):
        print("  Done without a reviewer: jobs of this environment wait for nobody.")
    return False


def _rules_are_there(
    answers: Answers,
    environments: Mapping[str, tuple[Kind, tuple[str, ...]]],
    existing: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Whether the environments that were there before have the rules that a new one gets. Those that lack are told."""
    complete = True
    for name, found in existing.items():
        kind, stacks = environments[name]
        waits = github_settings.must_wait(kind, stacks, answers.approved)
        missing = github_settings.missing_rules(kind, found, waits=waits)
        if missing:
            complete = False
            print(
                f"  NOT PROTECTED: the environment {name} was there before, and {' and '.join(missing)}. Set its rules:"
                f" https://github.com/{answers.repository.name}/settings/environments (docs/ci.md)"
                f"{'; until then it gets no AWS_ROLE' if _is_open((kind, stacks), found, answers.approved) else ''}"
            )
    return complete


def _tell_secrets(answers: Answers, unprotected: Collection[str]) -> None:
    """Print the commands for what only the user has. They ask for it, so that no secret passes through here.

    Environments in `unprotected` get none, because every branch may use them.
    """
    on_digitalocean = {one.stack for one in answers.stacks if one.cloud == "digitalocean"}
    if answers.reviews and stack_files.read(REVIEW).cloud == "digitalocean":
        on_digitalocean.add(REVIEW)
    state = ("PULUMI_CONFIG_PASSPHRASE", "SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
    lines = [
        github_settings.secret_command(answers.repository.name, environment, secret)
        for environment, (_, stacks) in plan_of(answers).environments().items()
        if environment not in unprotected
        for secret in (
            *(["DIGITALOCEAN_TOKEN"] if on_digitalocean.intersection(stacks) else []),
            *(state if answers.on_spaces else ()),
        )
    ]
    if lines:
        print("  Secrets are yours to type; each command asks for one:")
        print("\n".join(f"    {line}" for line in lines))
        print(f"  Environments that end in {PREVIEW} need a token with read scopes alone (docs/ci.md, Tokens).")
    if REVIEW in on_digitalocean:
        print(
            f"  Every branch may use the environment {REVIEW}, and a token of DigitalOcean is for its whole team: take"
            " this one from a team that has no other stack (docs/ci.md, Tokens)."
        )


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
    if plan:
        print(f"\nTo work with the same state on this computer: export PULUMI_BACKEND_URL='{plan.backend_url()}'")
    print(f"Then go on with docs/ci.md, step 6; what to commit: git add {files}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
