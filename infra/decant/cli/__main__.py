"""`make up`, `preview`, `destroy`, `rollback`, `replace`: Pulumi's own commands, with what a first-time user lacks.

Finds the Pulumi CLI or installs it in its usual place, explains where state lives before it is needed, makes the stack
where it is new, and ends an `up` by asking the URL, also when nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from decant.card import card
from decant.errors import MachineError, NoRollbackError, NotServingError, StackError
from decant.leave import ALL_GO
from decant.rollback import choose
from decant.session import Access

PROJECT = Path(__file__).resolve().parents[2]
OLDEST = (3, 200, 0)  # what the program's SDK can talk to, tried from 3.260 on
INSTALL_HELP = """Install it as https://www.pulumi.com/docs/install/ says, for example:
    curl -fsSL https://get.pulumi.com | sh
and open a new shell, so that `pulumi` is found. Then run the same command again."""

STATE_HELP = """Pulumi keeps a record of what it made, its state, and needs to know where. Choose once:
    pulumi login --local            a folder of this computer (~/.pulumi): for one person
    pulumi login s3://BUCKET        a bucket of your own: for a team and CI
    pulumi login                    Pulumi's own service: free for one person, needs an account
docs/state.md tells them apart. Then run the same command again."""

ENCRYPTION_HELP = """Secrets in the stack's settings and state are encrypted with a passphrase, and none is set.
Make one up, keep it in your password manager (without it the secrets are lost), and give it to Pulumi:
    export PULUMI_CONFIG_PASSPHRASE='...'
or keep it in a file of yours: export PULUMI_CONFIG_PASSPHRASE_FILE=~/.config/decant-passphrase
Then run the same command again."""


GONE_HELP = """If a host is gone for good, its cleanup cannot run. These two commands take it out of the state:
    pulumi state delete --stack {stack} --target-dependents --yes '{urn}'
    make {verb} STACK={stack}"""


def find_cli() -> str:
    """The path of a Pulumi CLI that is new enough; installed in its usual place where there is none."""
    usual = Path.home() / ".pulumi" / "bin" / "pulumi"
    found = shutil.which("pulumi") or (str(usual) if usual.exists() else None)
    if found is None:
        return _install_cli()
    said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout.strip()
    version = tuple(int(part) for part in said.lstrip("v").split("-")[0].split("+")[0].split(".") if part.isdigit())
    if version and version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise StackError(f"{found} is Pulumi {said}; Decant needs {wanted} or newer.\n{INSTALL_HELP}")
    return found


def _install_cli() -> str:
    print("The Pulumi CLI is not on this computer: installing it in ~/.pulumi ...", flush=True)
    try:
        from pulumi.automation import PulumiCommand

        PulumiCommand.install(root=str(Path.home() / ".pulumi"))
    except Exception as error:  # whatever its installer stumbles over, the way out is the same
        raise StackError(f"The Pulumi CLI could not be installed ({_first_line(error)}).\n{INSTALL_HELP}") from None
    return str(Path.home() / ".pulumi" / "bin" / "pulumi")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


class Cli:
    """The Pulumi CLI, always run for this project."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.environment = {**os.environ, "PATH": f"{Path(path).parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A question with its answer as text; nobody is asked anything."""
        command = [self.path, "-C", str(PROJECT), "--non-interactive", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)

    def run(self, *words: str) -> int:
        """A command in the user's terminal; its exit status."""
        return subprocess.run([self.path, "-C", str(PROJECT), *words], env=self.environment, check=False).returncode


def check_state(cli: Cli) -> None:
    """Is it settled where state lives and how it is encrypted? Raises StackError with what to choose from."""
    who = cli.ask("whoami", "--json")
    if who.returncode != 0:
        raise StackError(STATE_HELP)
    service = "pulumi.com" in json.loads(who.stdout).get("url", "")
    given = any(os.environ.get(n) is not None for n in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"))
    if not service and not given:
        raise StackError(ENCRYPTION_HELP)


def select(cli: Cli, stack: str, *, create: bool) -> None:
    """The stack exists, made now where it is new. Raises StackError."""
    known = cli.ask("stack", "ls", "--json")
    if known.returncode != 0:
        raise StackError(f"Pulumi cannot read its state: {known.stderr.strip()}\n\n{STATE_HELP}")
    names = [one["name"].rpartition("/")[2] for one in json.loads(known.stdout)]
    if stack in names:
        return
    if not create:
        raise StackError(f"There is no stack {stack} in this state; there are: {', '.join(names) or 'none'}.")
    made = cli.ask("stack", "init", stack, "--no-select")
    if made.returncode != 0:
        raise StackError(f"Stack {stack} could not be made: {made.stderr.strip()}")
    print(f"Stack {stack} is new; its settings are in Pulumi.{stack}.yaml.", flush=True)


def show_card(cli: Cli, stack: str, seconds: float) -> None:
    """Ask the URL of what was put live and tell. Raises StackError."""
    said = cli.ask("stack", "output", "--json", "--stack", stack)
    if said.returncode != 0:
        raise StackError(said.stderr.strip())
    outputs = json.loads(said.stdout)
    lines = [
        ("log in", f"pulumi stack output ssh --show-secrets --stack {stack}   (docs/ssh.md)"),
        ("go back", f"make rollback STACK={stack}   (RELEASE=id for an older one)"),
        ("destroy", f"make destroy STACK={stack}"),
    ]
    try:
        print(card(outputs=outputs, title=f"Stack {stack} is live.", lines=lines, seconds=seconds))
    except NotServingError as error:
        if error.release:
            way = (
                "  Pulumi compares with its own record alone, and what is live was changed elsewhere: from another\n"
                f"  state, or by hand. To put yours live again: make up STACK={stack} ARGS=\"--replace '**rollout'\""
            )
        else:
            way = (
                "  Is the URL open to this computer? Does the front page answer within 5 s?\n"
                f"  To ask again: make up STACK={stack}"
            )
        raise StackError(f"{error}.\n{way}") from None


def pin(cli: Cli, stack: str, wanted: str | None) -> None:
    """Set `decant:release` to a release that was live before. Raises NoRollbackError, MachineError, StackError."""
    said = cli.ask("stack", "output", "ssh", "--json", "--show-secrets", "--stack", stack)
    if said.returncode != 0:
        raise StackError(f"Nothing was released in stack {stack} yet: {said.stderr.strip()}")
    release = choose([Access.from_dict(one) for one in json.loads(said.stdout)], wanted)
    done = cli.ask("config", "set", "decant:release", release, "--stack", stack)
    if done.returncode != 0:
        raise StackError(done.stderr.strip())
    print(
        f"Going back to release {release}. The stack stays on it until you leave it:\n"
        f"    pulumi config rm decant:release --stack {stack} && make up STACK={stack}",
        flush=True,
    )


def urn_of(cli: Cli, stack: str, machine: str) -> str:
    """The cloud's resource that a machine is, by the id that the stack shows for it. Raises StackError."""
    outputs, state = (
        cli.ask(*words, "--stack", stack) for words in (("stack", "output", "--json"), ("stack", "export"))
    )
    if outputs.returncode != 0 or state.returncode != 0:
        raise StackError((outputs.stderr + state.stderr).strip())
    ids = {one["name"]: one["id"] for one in json.loads(outputs.stdout).get("machines", [])}
    if machine not in ids:
        raise StackError(f"There is no machine {machine!r} in stack {stack}; there are: {', '.join(ids) or 'none'}.")
    for one in json.loads(state.stdout)["deployment"].get("resources", []):
        if one.get("id") == ids[machine] and one["urn"].endswith(f"::{machine}"):
            return str(one["urn"])
    raise StackError(
        f"{machine} is not one of a cloud's machines, so there is nobody to ask for another. Reinstall it, set its new"
        f" host key (docs/ssh.md), then: make up STACK={stack}"
    )


def explain_failure(cli: Cli, stack: str, verb: str) -> None:
    """After a command that failed: the way out where it was a host that has to go and does not answer any more."""
    state = cli.ask("stack", "export", "--stack", stack)
    resources = json.loads(state.stdout)["deployment"].get("resources", []) if state.returncode == 0 else []
    stays: set[str] = set()
    if verb != "destroy":
        said = cli.ask("config", "get", "decant:hosts", "--stack", stack)
        hosts = json.loads(said.stdout or "[]") if said.returncode == 0 else []
        stays = {f"{one.get('name', one.get('address'))}-cleanup" for one in hosts}
    for urn in (r["urn"] for r in resources if r["urn"].endswith("-cleanup")):
        if urn.rpartition("::")[2] not in stays:
            print(f"\n{GONE_HELP.format(stack=stack, urn=urn, verb=verb)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: [--release ID] [--machine NAME] VERB STACK [-- words for Pulumi]."""
    parser = argparse.ArgumentParser(prog="python -m decant.stack", description="Pulumi's commands for a stack.")
    parser.add_argument("verb", choices=["up", "preview", "destroy", "rollback", "replace"])
    parser.add_argument("stack")
    parser.add_argument("--release", help="what to roll back to; else what was live before")
    parser.add_argument("--machine", default="", help="what to replace: a name, such as web-2")
    parser.add_argument("words", nargs="*", help="options for Pulumi, after --")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        cli = Cli(find_cli())
        check_state(cli)
        select(cli, given.stack, create=given.verb in ("up", "preview"))
        verb = given.verb
        if verb == "rollback":
            pin(cli, given.stack, given.release)
            verb = "up"
        elif verb == "replace":
            given.words += ["--replace", urn_of(cli, given.stack, given.machine)]
            verb = "up"
        if verb == "destroy":
            cli.environment[ALL_GO] = "yes"
        status = cli.run(verb, "--stack", given.stack, *given.words)
        if status == 0 and verb == "up":
            show_card(cli, given.stack, time.monotonic() - began)
        if status != 0 and verb in ("up", "destroy"):
            explain_failure(cli, given.stack, verb)
    except (StackError, NoRollbackError, MachineError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
