"""Copies of this project, each with a stack and a state of its own, that the real `pulumi` runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.project_copy import REPOSITORY

STACK = "engine"
LONGEST = 900  # seconds until a command that does not end is stopped; no measure of how long one may take


def missing(*plugins: str) -> list[str]:
    """Return what this computer lacks for a stack with these resource plugins, each with the command to install it."""
    if shutil.which("pulumi") is None:
        return ["the program pulumi (https://www.pulumi.com/docs/install/)"]
    if not (REPOSITORY / ".venv").is_dir():
        return ["the program's virtual environment (make install)"]
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return [f"a pulumi that can list its plugins: {listed.stderr.strip()}"]
    found = {(one["name"], one["version"]) for one in json.loads(listed.stdout) if one["kind"] == "resource"}
    versions = {name: importlib.metadata.version(f"pulumi_{name}") for name in plugins}
    return [
        f"the plugin {name} (pulumi plugin install resource {name} {version})"
        for name, version in versions.items()
        # Pulumi takes a plugin that is on PATH, of any version.
        if (name, version) not in found and shutil.which(f"pulumi-resource-{name}") is None
    ]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of `pulumi`. `said` has standard output and standard error together, as a terminal shows them."""

    status: int
    said: str

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of the summary, such as {"created": 12, "unchanged": 3}."""
        summary = self.said.rpartition("\nResources:\n")[2].partition("\n\n")[0]
        return {what: int(number) for number, what in re.findall(r"(\d+) (?:to )?(\w+)", summary)}

    @property
    def operations(self) -> dict[str, str]:
        """What was done to what, without components: {"Command web-1-stage": "updated"}. What failed is "failed"."""
        lines = re.findall(r"^ *[-+~]+ +(\w+:\S+:)(\w+) (\S+) (\S+)(?: (failed))?", self.said, re.MULTILINE)
        ours = ("decant:", "pulumi:")
        return {
            f"{kind} {name}": failed or done for where, kind, name, done, failed in lines if not where.startswith(ours)
        }


@dataclass(kw_only=True)
class Stack:
    """A stack in a folder of its own, with a state of its own. `said` has the output of every command."""

    project: Path
    backend: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, folder: Path, **environment: str) -> Stack:
        """Copy the files that git would commit, link the virtual environment, and make the stack."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        stack = cls(project=folder / "project", backend=folder / "state", environment=environment)
        for name in filter(None, listed.stdout.split("\0")):
            if (REPOSITORY / name).is_file():
                (stack.project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, stack.project / name)
        (stack.project / ".venv").symlink_to(REPOSITORY / ".venv")
        stack.backend.mkdir()
        stack.pulumi("stack", "init", STACK)
        return stack

    def process(self, *argv: str) -> dict[str, Any]:
        """Return the arguments with which `subprocess` runs a program for this stack."""
        own = {
            "PULUMI_BACKEND_URL": f"file://{self.backend}",
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "NO_COLOR": "1",
            # The copy's own modules, not those that the virtual environment has installed.
            "PYTHONPATH": os.pathsep.join([str(self.project / "infra"), str(self.project)]),
        }
        return {
            "args": argv,
            "cwd": self.project,
            "env": {**os.environ, **own, **self.environment},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def pulumi(self, *words: str, fails: bool = False, **changes: Any) -> Ran:
        """Run `pulumi` to its end. It must succeed, or must fail if `fails` is set. `changes` go to `process`."""
        process = {**self.process("pulumi", *words, "--non-interactive"), **changes}
        done = subprocess.run(**process, timeout=LONGEST, check=False)
        self.said.append(done.stdout + (done.stderr or ""))
        assert (done.returncode != 0) == fails, f"pulumi {' '.join(words)}: exit {done.returncode}\n{self.said[-1]}"
        return Ran(status=done.returncode, said=done.stdout)

    def up(self, *words: str, fails: bool = False) -> Ran:
        """Run `pulumi up` without questions."""
        return self.pulumi("up", "--yes", "--skip-preview", *words, fails=fails)

    def destroy(self, *, fails: bool = False) -> Ran:
        """Run `pulumi destroy` without questions."""
        return self.pulumi("destroy", "--yes", "--skip-preview", fails=fails)

    def make(
        self, verb: str, *, machine: str = "", extra: Sequence[str] = ("--yes", "--skip-preview")
    ) -> subprocess.CompletedProcess[str]:
        """What `make VERB STACK=... MACHINE=... ARGS=...` runs."""
        words = ["-m", "decant.cli", f"--machine={machine}", verb, STACK, "--", *extra, "--non-interactive"]
        process = self.process(sys.executable, *words)
        done = subprocess.run(**{**process, "cwd": self.project / "infra"}, timeout=LONGEST, check=False)
        self.said.append(done.stdout)
        return done

    def forget(self, host: str) -> None:
        """Run the command that docs/ssh.md gives for a host that is gone for good."""
        (command,) = re.findall(r"^pulumi state delete .*", (self.project / "docs/ssh.md").read_text(), re.MULTILINE)
        for example, real in (("--stack box", f"--stack {STACK}"), ("NAME", host)):
            assert example in command
            command = command.replace(example, real)
        done = subprocess.run(**self.process("sh", "-c", command), timeout=LONGEST, check=False)
        assert done.returncode == 0, done.stdout

    def set(self, settings: Mapping[str, str]) -> None:
        """Give several settings a value with one command. Names are paths such as `hosts[0].address`."""
        words = [word for path, value in settings.items() for word in ("--plaintext", f"decant:{path}={value}")]
        self.pulumi("config", "set-all", "--path", *words)

    def set_secret(self, path: str, value: str) -> None:
        """Give a secret setting a value by standard input, so that it is in no command line."""
        self.pulumi("config", "set", "--secret", "--path", f"decant:{path}", stdin=None, input=value)

    def unset(self, path: str) -> None:
        """Remove a setting."""
        self.pulumi("config", "rm", "--path", f"decant:{path}")

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs as people see them: a secret is the text `[secret]`."""
        outputs: dict[str, Any] = json.loads(self._read("stack", "output", "--json"))
        return outputs

    def revealed(self, output: str) -> Any:
        """Return an output, also a secret one, and keep it out of `said`."""
        value = json.loads(self._read("stack", "output", "--json", "--show-secrets", output))
        self.said.pop()
        return value

    def export(self) -> str:
        """Return the state as it is stored, with encrypted secrets."""
        return self._read("stack", "export")

    def resources(self) -> dict[str, dict[str, Any]]:
        """What the state holds, without components: {"Command web-1-provision": {"inputs": ..., "outputs": ...}}."""
        found = json.loads(self.export())["deployment"].get("resources", [])
        return {f"{r['type'].rpartition(':')[2]} {r['urn'].rpartition('::')[2]}": r for r in found if r.get("custom")}

    def _read(self, *words: str) -> str:
        """Return standard output alone, without warnings."""
        return self.pulumi(*words, stderr=subprocess.PIPE).said

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first `old` in a file of the project; it must be there."""
        path = self.project / name
        text = path.read_text()
        assert old in text, f"{name} holds no {old!r}"
        path.write_text(text.replace(old, new, 1))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A URL's answer. Without an answer, the status is 0 and `body` has the reason."""

    status: int
    release: str
    body: str


def get(url: str) -> Answer:
    """Send one request to a URL and return the answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return Answer(status=reply.status, release=reply.headers["X-Release"] or "", body=reply.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(status=error.code, release=error.headers["X-Release"] or "", body=error.read().decode())
    except OSError as error:
        return Answer(status=0, release="", body=str(error))
