"""The tools that put the app live: Decant, Ansible, pyinfra and Fabric, behind one interface."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.environment import HERE, NETWORK, PEERS, PROJECT, Environment, run
from rehearsal.machines.machine import Machine

# Runs a command with the processor time that the machine and its visitors leave, as if it ran on another computer.
# Linux shares the processor between sessions (autogroup) first, and by niceness within a session.
_RUN_NICELY = 'echo 19 2>/dev/null >/proc/self/autogroup; exec nice -n 19 "$@"'
LOW_PRIORITY = ("setsid", "--wait", "sh", "-c", _RUN_NICELY, "low-priority")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "instance", ".*_cache", ".venv", "tests")


class Tool(ABC):
    """A tool with its one machine. `app` is the app folder that it puts live."""

    name: str
    command: str
    """The command that its user types, for the report."""

    def __init__(self, environment: Environment, machine: Machine) -> None:
        self.environment = environment
        self.machine = machine
        self.folder = environment.folder / f"{self.name}-{machine.name}".lower()
        self.low_priority = False
        self.app = self.folder / "app"
        self.folder.mkdir()
        self.prepare()
        self.wsgi = (self.app / "wsgi.py").read_text()

    def prepare(self) -> None:
        """Write what a user writes before the first deployment. This is not measured."""
        shutil.copytree(PROJECT / "app", self.app, ignore=LEFT_OUT)

    def change(self, release: str) -> None:
        """Change the app's code: each answer has `release` in the header X-Bench from then on."""
        body = f'    answer.headers["X-Bench"] = "{release}"\n    return answer\n'
        header = f"\n\n@app.after_request\ndef _bench(answer):\n{body}"
        (self.app / "wsgi.py").write_text(self.wsgi + header)

    @abstractmethod
    def up(self, *, first: bool) -> float:
        """Put the app folder live and return the seconds that the command took. `first`: on an empty machine."""

    def _run(self, argv: list[str], cwd: Path, *, stdin: str = "", **env: str) -> float:
        command = [*(LOW_PRIORITY if self.low_priority else ()), *argv]
        return run(command, cwd=cwd, env=env, stdin=stdin, log=self.folder / "log")


class Ansible(Tool):
    """ansible-playbook with a playbook for one host."""

    name = "Ansible"
    command = "ansible-playbook site.yml"

    def up(self, *, first: bool) -> float:
        """Run the same playbook each time."""
        argv = [str(PEERS / "ansible-playbook"), "--inventory", f"{self.machine.address},", "--user", "root"]
        argv += ["--private-key", str(self.environment.key), "--extra-vars", f"app={self.app}"]
        argv += ["--ssh-common-args", f"-o UserKnownHostsFile={self.environment.known_hosts}", "site.yml"]
        # The socket of the shared connection is in this folder, and the path of a socket has to be short.
        return self._run(argv, HERE / "peers" / "ansible", ANSIBLE_HOME=str(self.environment.folder / "a"))


class Pyinfra(Tool):
    """pyinfra with a deploy file."""

    name = "pyinfra"
    command = "pyinfra HOST -y deploy.py"

    def up(self, *, first: bool) -> float:
        """Run the same operations each time."""
        argv = [
            str(PEERS / "pyinfra"),
            self.machine.address,
            "--ssh-user",
            "root",
            "--ssh-key",
            str(self.environment.key),
        ]
        argv += ["--data", f"ssh_known_hosts_file={self.environment.known_hosts}", "--data", f"app={self.app}"]
        return self._run([*argv, "-y", "deploy.py"], HERE / "peers" / "pyinfra")


class Fabric(Tool):
    """fab with two tasks."""

    name = "Fabric"
    command = "fab deploy (first: fab setup deploy)"

    def up(self, *, first: bool) -> float:
        """Run the tasks. Fabric does not know what was done before, so its user names them."""
        argv = [str(PEERS / "fab"), "-H", f"root@{self.machine.address}", "-i", str(self.environment.key)]
        argv += [*(["setup"] if first else []), "deploy", "--app", str(self.app)]
        return self._run(argv, HERE / "peers" / "fabric")


class Decant(Tool):
    """`pulumi up` of a copy of this project, with a state of its own."""

    name = "Decant"
    command = "pulumi up --skip-preview --yes"
    plans = True

    def __init__(
        self, environment: Environment, machine: Machine, *others: Machine, settings: Mapping[str, Any] | None = None
    ) -> None:
        """`settings` are more settings of the stack, which several machines need."""
        self.machines = [machine, *others]
        self.more_settings = settings or {}
        super().__init__(environment, machine)

    def prepare(self) -> None:
        """Make a copy of the project with a stack of cloud `ssh`."""
        project = self.folder / "project"
        self.app = project / "app"
        for part in ("app", "infra", "rehearsal", "bench"):
            shutil.copytree(PROJECT / part, project / part, ignore=LEFT_OUT)
        shutil.copy(PROJECT / "Pulumi.yaml", project)
        (project / ".venv").symlink_to(PROJECT / ".venv")
        hosts = [
            {"address": host.address, "hostKey": host.host_key, "name": f"web-{number}"}
            for number, host in enumerate(self.machines, 1)
        ]
        self.write_settings({"cloud": "ssh", "hosts": hosts, **self.more_settings})

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings into Pulumi's file."""
        (self.folder / "state").mkdir()
        self._pulumi("stack", "init", NETWORK)
        argv = [word for path, value in _flat("decant:", settings) for word in ("--plaintext", f"{path}={value}")]
        self._pulumi("config", "set-all", "--path", *argv)
        self._pulumi("config", "set", "--secret", "decant:sshPrivateKey", stdin=self.environment.key.read_text())

    def up(self, *, first: bool) -> float:
        """Run the same program each time."""
        return self._pulumi("up", "--skip-preview", "--yes")

    def plan(self) -> float:
        """Run `pulumi preview`, which connects to no machine, and return its seconds."""
        return self._pulumi("preview")

    def _pulumi(self, *arguments: str, stdin: str = "") -> float:
        return self._run(
            ["pulumi", *arguments, "--non-interactive"],
            self.folder / "project",
            stdin=stdin,
            PULUMI_BACKEND_URL=f"file://{self.folder / 'state'}",
            PULUMI_CONFIG_PASSPHRASE="throwaway",  # noqa: S106
            PULUMI_SKIP_UPDATE_CHECK="true",
        )


class DecantRehearsed(Decant):
    """The same program in the rehearsal's runner, without Pulumi's engine. It has no state and runs every step."""

    command = "the program in the rehearsal's runner, every step each time: no Pulumi engine here"
    plans = False

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings into the request that the runner reads."""
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        config = {**texts, "sshPrivateKey": self.environment.key.read_text()}
        self.request = json.dumps({f"decant:{name}": value for name, value in config.items()})

    def up(self, *, first: bool) -> float:
        """Run all steps."""
        project = self.folder / "project"
        python, path = str(project / ".venv/bin/python"), f"{project / 'infra'}:{project}"  # the copy's own modules
        return self._run([python, "-m", "bench.rehearsed"], project, stdin=self.request, PYTHONPATH=path)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield settings as `pulumi config set-all --path` takes them: decant:hosts[0].name, web-1."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{path}{'' if path.endswith(':') else '.'}{name}", part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _flat(f"{path}[{number}]", part)
    else:
        yield path, value


def decant() -> type[Decant]:
    """Return Decant with the real engine where this computer has it, else in the rehearsal's runner."""
    if shutil.which("pulumi") is None:
        return DecantRehearsed
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], capture_output=True, text=True, check=False)
    wanted = importlib.metadata.version("pulumi_command")
    plugins = json.loads(listed.stdout) if listed.returncode == 0 else []
    there = any((plugin["name"], plugin["version"]) == ("command", wanted) for plugin in plugins)
    return Decant if there or shutil.which("pulumi-resource-command") else DecantRehearsed


def versions() -> dict[str, str]:
    """Return the versions of the tools that are compared."""
    pinned = (HERE / "requirements.txt").read_text()
    asked = subprocess.run(
        [str(PEERS / "python"), "-c", _ASK_VERSIONS, "ansible-core", "pyinfra", "fabric"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, str] = json.loads(asked.stdout) if asked.returncode == 0 else {"pinned": pinned}
    if shutil.which("pulumi"):
        said = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=False)
        found["pulumi"] = said.stdout.strip().lstrip("v")
    return found


_ASK_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""
