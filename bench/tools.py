"""The tools that put the app live, each behind the same three verbs: first, release, again."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.lab import HERE, NETWORK, PEERS, PROJECT, Lab, Machine, run

# The command on this computer then takes what the machine and its visitors leave of the processor, as if it ran on
# another: Linux weighs sessions against each other (autogroup), and what is in one by its niceness.
BEHIND = ("setsid", "--wait", "sh", "-c", 'echo 19 2>/dev/null >/proc/self/autogroup; exec nice -n 19 "$@"', "behind")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "instance", ".*_cache", ".venv", "tests")


class Tool(ABC):
    """A tool and the one machine it has to do with; `app` is the app folder that it puts live."""

    name: str
    command: str
    """What its user types, for the report."""

    def __init__(self, lab: Lab, machine: Machine) -> None:
        self.lab = lab
        self.machine = machine
        self.folder = lab.folder / f"{self.name}-{machine.name}".lower()
        self.behind = False
        self.app = self.folder / "app"
        self.folder.mkdir()
        self.prepare()
        self.wsgi = (self.app / "wsgi.py").read_text()

    def prepare(self) -> None:
        """What a user writes down before the first deployment; not measured."""
        shutil.copytree(PROJECT / "app", self.app, ignore=LEFT_OUT)

    def change(self, mark: str) -> None:
        """Another release of the app, all code: each answer carries `mark`."""
        header = (
            f'\n\n@app.after_request\ndef _mark(answer):\n    answer.headers["X-Bench"] = "{mark}"\n    return answer\n'
        )
        (self.app / "wsgi.py").write_text(self.wsgi + header)

    @abstractmethod
    def up(self, *, first: bool) -> float:
        """Put the app folder live, from nothing when `first`; seconds that the command took."""

    def _run(self, argv: list[str], cwd: Path, *, given: str = "", **env: str) -> float:
        words = [*(BEHIND if self.behind else ()), *argv]
        return run(words, cwd=cwd, env=env, given=given, log=self.folder / "log")


class Ansible(Tool):
    """ansible-playbook with a playbook for one host."""

    name = "Ansible"
    command = "ansible-playbook site.yml"

    def up(self, *, first: bool) -> float:
        """The same playbook each time."""
        words = [str(PEERS / "ansible-playbook"), "--inventory", f"{self.machine.address},", "--user", "root"]
        words += ["--private-key", str(self.lab.key), "--extra-vars", f"app={self.app}"]
        words += ["--ssh-common-args", f"-o UserKnownHostsFile={self.lab.known_hosts}", "site.yml"]
        # A shared connection's socket lies in there, whose path has to be short.
        return self._run(words, HERE / "peers" / "ansible", ANSIBLE_HOME=str(self.lab.folder / "a"))


class Pyinfra(Tool):
    """pyinfra with a deploy file."""

    name = "pyinfra"
    command = "pyinfra HOST -y deploy.py"

    def up(self, *, first: bool) -> float:
        """The same operations each time."""
        words = [str(PEERS / "pyinfra"), self.machine.address, "--ssh-user", "root", "--ssh-key", str(self.lab.key)]
        words += ["--data", f"ssh_known_hosts_file={self.lab.known_hosts}", "--data", f"app={self.app}"]
        return self._run([*words, "-y", "deploy.py"], HERE / "peers" / "pyinfra")


class Fabric(Tool):
    """fab with two tasks."""

    name = "Fabric"
    command = "fab deploy (first: fab setup deploy)"

    def up(self, *, first: bool) -> float:
        """Fabric keeps no account of what is done already: its user says which task to run."""
        words = [str(PEERS / "fab"), "-H", f"root@{self.machine.address}", "-i", str(self.lab.key)]
        words += [*(["setup"] if first else []), "deploy", "--app", str(self.app)]
        return self._run(words, HERE / "peers" / "fabric")


class Decant(Tool):
    """`pulumi up` of a copy of this project, with a state of its own."""

    name = "Decant"
    command = "pulumi up --skip-preview --yes"
    plans = True

    def __init__(self, lab: Lab, machine: Machine, *others: Machine, more: Mapping[str, Any] | None = None) -> None:
        """`more` are settings besides, for a stack of several machines."""
        self.machines = [machine, *others]
        self.more = more or {}
        super().__init__(lab, machine)

    def prepare(self) -> None:
        """A stack for servers of one's own."""
        project = self.folder / "project"
        self.app = project / "app"
        for part in ("app", "infra", "rehearsal", "bench"):
            shutil.copytree(PROJECT / part, project / part, ignore=LEFT_OUT)
        shutil.copy(PROJECT / "Pulumi.yaml", project)
        (project / ".venv").symlink_to(PROJECT / ".venv")
        hosts = [
            {"address": one.address, "hostKey": one.host_key, "name": f"web-{number}"}
            for number, one in enumerate(self.machines, 1)
        ]
        self.write_settings({"cloud": "ssh", "hosts": hosts, **self.more})

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Into Pulumi's own file."""
        (self.folder / "state").mkdir()
        self._pulumi("stack", "init", NETWORK)
        words = [word for path, value in _flat("decant:", settings) for word in ("--plaintext", f"{path}={value}")]
        self._pulumi("config", "set-all", "--path", *words)
        self._pulumi("config", "set", "--secret", "decant:sshPrivateKey", given=self.lab.key.read_text())

    def up(self, *, first: bool) -> float:
        """The same program each time."""
        return self._pulumi("up", "--skip-preview", "--yes")

    def plan(self) -> float:
        """What a user reads before it; no machine hears of it."""
        return self._pulumi("preview")

    def _pulumi(self, *words: str, given: str = "") -> float:
        return self._run(
            ["pulumi", *words, "--non-interactive"],
            self.folder / "project",
            given=given,
            PULUMI_BACKEND_URL=f"file://{self.folder / 'state'}",
            PULUMI_CONFIG_PASSPHRASE="throwaway",  # noqa: S106
            PULUMI_SKIP_UPDATE_CHECK="true",
        )


class DecantRehearsed(Decant):
    """The same program in the rehearsal's runner, where there is no Pulumi: without state, it runs every step again."""

    command = "the program in the rehearsal's runner, every step each time: no Pulumi engine here"
    plans = False

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Into the request that the runner reads."""
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        config = {**texts, "sshPrivateKey": self.lab.key.read_text()}
        self.request = json.dumps({f"decant:{name}": value for name, value in config.items()})

    def up(self, *, first: bool) -> float:
        """The same steps each time."""
        project = self.folder / "project"
        return self._run([str(project / ".venv/bin/python"), "-m", "bench.rehearsed"], project, given=self.request)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Settings as `pulumi config set-all --path` wants them: decant:hosts[0].name, web-1."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{path}{'' if path.endswith(':') else '.'}{name}", part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _flat(f"{path}[{number}]", part)
    else:
        yield path, value


def decant() -> type[Decant]:
    """Decant with the real engine where this computer has it, else by the rehearsal's runner."""
    if shutil.which("pulumi") is None:
        return DecantRehearsed
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], capture_output=True, text=True, check=False)
    wanted = importlib.metadata.version("pulumi_command")
    plugins = json.loads(listed.stdout) if listed.returncode == 0 else []
    there = any((one["name"], one["version"]) == ("command", wanted) for one in plugins)
    return Decant if there or shutil.which("pulumi-resource-command") else DecantRehearsed


def versions() -> dict[str, str]:
    """Of everything that is compared."""
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
