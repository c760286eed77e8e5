"""The Pulumi CLI: find or install it, run it for this project, check that it can work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decant.cli import state_folder, terminal
from decant.errors import LockedError, StackError
from decant.settings.project import PROJECT, secrets_provider
from decant.ssh.client import Access

LOCKED = "the stack is currently locked by"
"""Pulumi's words for it, where state lives in a folder or a bucket: `checkForLock` in pkg/backend/diy/lock.go."""
OLDEST = (3, 200, 0)  # the oldest CLI that the program's SDK can talk to; tried from 3.260 on
INSTALL_HELP = """Install it as https://www.pulumi.com/docs/install/ says, for example:
    curl -fsSL https://get.pulumi.com | sh
and open a new shell, so that `pulumi` is found. Then run the same command again."""

STATE_HELP = """Pulumi keeps a record of what it made, its state, and needs to know where. Choose once:
    pulumi login --local            a folder of this computer (~/.pulumi): for one person
    pulumi login s3://BUCKET        a bucket of your own: for a team and CI
    pulumi login                    Pulumi's own service: free for one person, needs an account
docs/state.md compares them. Then run the same command again."""

ENCRYPTION_HELP = """Secrets in the stack's settings and state are encrypted with a passphrase, and none is set.
Make one up, keep it in your password manager (without it the secrets are lost), and give it to Pulumi:
    export PULUMI_CONFIG_PASSPHRASE='...'
or keep it in a file: export PULUMI_CONFIG_PASSPHRASE_FILE=~/.config/decant-passphrase
A key in an account of yours can take its place, so that nobody needs a passphrase: make ci-init (docs/ci.md).
Then run the same command again."""


def find_cli() -> str:
    """The path of a Pulumi CLI that is new enough; installs one in ~/.pulumi where there is none.

    Raises:
        StackError: the CLI is too old, or it could not be installed.
    """
    usual = Path.home() / ".pulumi" / "bin" / "pulumi"
    found = shutil.which("pulumi") or (str(usual) if usual.exists() else None)
    if found is None:
        return _install_cli()
    shown = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout.strip()
    version = tuple(int(part) for part in shown.lstrip("v").split("-")[0].split("+")[0].split(".") if part.isdigit())
    if version and version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise StackError(f"{found} is Pulumi {shown}; Decant needs {oldest} or newer.\n{INSTALL_HELP}")
    return found


def _install_cli() -> str:
    print("The Pulumi CLI is not on this computer: installing it in ~/.pulumi ...", flush=True)
    try:
        from pulumi.automation import PulumiCommand

        PulumiCommand.install(root=str(Path.home() / ".pulumi"))
    except Exception as error:  # its installer fails in many ways, and the remedy is the same for all of them
        raise StackError(f"The Pulumi CLI could not be installed ({_first_line(error)}).\n{INSTALL_HELP}") from None
    return str(Path.home() / ".pulumi" / "bin" / "pulumi")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


class PulumiCli:
    """The Pulumi CLI, always run for this project."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.environment = {**os.environ, "PATH": f"{Path(path).parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command that asks nothing, and return its output as text."""
        return self._capture(argv)

    def _capture(self, argv: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [self.path, "-C", str(PROJECT), "--non-interactive", *argv]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env=self.environment, check=False)

    def run(self, *argv: str) -> int:
        """Run a command in the user's terminal and return its exit status.

        Raises:
            LockedError: another process holds the stack.
        """
        status, errors = terminal.run([self.path, "-C", str(PROJECT), *argv], self.environment)
        if status != 0:
            check_unlocked(errors)
        return status

    def run_and_keep(self, *argv: str, hide: Callable[[str], str] = str) -> tuple[int, str]:
        """Run a command that asks nothing, show what it prints while it runs, and return its status and its output.

        `hide` takes secrets out of each line, before it is shown: the log of a job may be public.
        """
        command = [self.path, "-C", str(PROJECT), "--non-interactive", *argv, "--color", "never"]
        kept: list[str] = []
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", errors="replace", env=self.environment,
        ) as process:  # fmt: skip
            for line in process.stdout or ():
                kept.append(hide(line))
                print(kept[-1], end="", flush=True)
        return process.returncode, "".join(kept)

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's outputs, secret ones masked. Raises StackError."""
        result = self.capture("stack", "output", "--json", "--stack", stack)
        if result.returncode != 0:
            raise StackError(result.stderr.strip())
        outputs: dict[str, Any] = json.loads(result.stdout)
        return outputs

    def read_config(self, stack: str) -> dict[str, dict[str, Any]]:
        """All of the stack's settings by their whole names: `value`, in clear, and whether it is `secret`.

        Raises:
            StackError: they cannot be read.
        """
        result = self.capture("config", "--json", "--show-secrets", "--stack", stack)
        if result.returncode != 0:
            raise StackError(f"The settings of stack {stack} cannot be read: {result.stderr.strip()}")
        entries: dict[str, dict[str, Any]] = json.loads(result.stdout)
        return entries

    def settings(self, stack: str) -> dict[str, Any]:
        """The values of `read_config`. Raises StackError."""
        return {name: entry.get("value", "") for name, entry in self.read_config(stack).items()}

    def export_state(self, stack: str) -> dict[str, Any]:
        """The stack's state as Pulumi exports it, with encrypted secrets. Raises StackError."""
        result = self.capture("stack", "export", "--stack", stack)
        if result.returncode != 0:
            raise StackError(result.stderr.strip())
        state: dict[str, Any] = json.loads(result.stdout)
        return state

    def import_state(self, stack: str, state: Mapping[str, Any]) -> None:
        """Put a state that was exported, and changed, in the place of the stack's.

        Raises:
            LockedError: another process holds the stack.
            StackError: the state cannot be changed.
        """
        result = self._capture(["stack", "import", "--stack", stack], json.dumps(state))
        if result.returncode != 0:
            check_unlocked(result.stderr)
            raise StackError(f"The state of stack {stack} cannot be changed: {result.stderr.strip()}")

    def set_secret(self, stack: str, name: str, value: str) -> None:
        """Store a secret setting; its value reaches Pulumi by standard input. Raises StackError."""
        result = self._capture(["config", "set", "--secret", name, "--stack", stack], value)
        if result.returncode != 0:
            raise StackError(f"{name} cannot be stored in the settings of stack {stack}: {result.stderr.strip()}")

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """The resources in the stack's state. Raises StackError."""
        return list((self.export_state(stack).get("deployment") or {}).get("resources") or ())


def check_unlocked(errors: str) -> None:
    """Raise LockedError where the errors of a command are those of a stack that another process holds."""
    where = errors.find(LOCKED)
    if where >= 0:
        raise LockedError(errors[where:].strip())


def accesses(cli: PulumiCli, stack: str) -> list[Access]:
    """The logins to the stack's machines. Raises StackError where nothing was released."""
    result = cli.capture("stack", "output", "ssh", "--json", "--show-secrets", "--stack", stack)
    if result.returncode != 0:
        raise StackError(f"Nothing was released in stack {stack} yet: {result.stderr.strip()}")
    return [Access.from_dict(machine) for machine in json.loads(result.stdout)]


def check_state(cli: PulumiCli, stack: str = "") -> None:
    """Check that Pulumi knows where its state lives and how to encrypt the stack's secrets; "" is any new stack.

    Raises:
        StackError: it does not; the message says what to choose from.
    """
    who = cli.capture("whoami", "--json")
    if who.returncode != 0:
        raise StackError(STATE_HELP)
    url = json.loads(who.stdout).get("url", "")
    state_folder.mend(url)
    service = "pulumi.com" in url
    variables = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
    if service or secrets_provider(stack):
        return
    if all(os.environ.get(name) is None for name in variables):
        raise StackError(ENCRYPTION_HELP)


def stack_names(cli: PulumiCli) -> list[str]:
    """The names of the project's stacks in this state. Raises StackError."""
    known = cli.capture("stack", "ls", "--json")
    if known.returncode != 0:
        raise StackError(f"Pulumi cannot read its state: {known.stderr.strip()}\n\n{STATE_HELP}")
    return [entry["name"].rpartition("/")[2] for entry in json.loads(known.stdout)]


def select_stack(cli: PulumiCli, stack: str, *, create: bool) -> None:
    """Make sure that the stack exists; `create` makes a new one. Raises StackError."""
    try:
        names = stack_names(cli)
    except StackError:
        # One broken state ends the list of all, and jobs of every branch write the states of review stacks.
        if cli.capture("stack", "output", "--json", "--stack", stack).returncode == 0:
            return
        raise
    if stack in names:
        return
    if not create:
        raise StackError(f"There is no stack {stack} in this state; there are: {', '.join(names) or 'none'}.")
    init_stack(cli, stack)


def init_stack(cli: PulumiCli, stack: str) -> None:
    """Make a stack, with the key in its file or that of the other stacks. Raises StackError.

    In a bucket, `pulumi stack init` takes a passphrase unless it is told of a key, whatever the stack's file says.
    """
    key = secrets_provider(stack)
    made = cli.capture("stack", "init", stack, "--no-select", *([f"--secrets-provider={key}"] if key else []))
    if made.returncode != 0:
        raise StackError(f"Stack {stack} could not be made: {made.stderr.strip()}")
    encrypted = f" Its secrets are encrypted by {key}." if key else ""
    print(f"Stack {stack} is new; its settings are in Pulumi.{stack}.yaml.{encrypted}", flush=True)
