"""Copies of this project for tests, whose program runs on throwaway machines without Pulumi's engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.machines.network import Network

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parents[1]
STACK = "hosts"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of one run of the program. `error` is the text for its user, `log` everything that it printed."""

    status: int
    outputs: dict[str, Any]
    error: str
    log: str

    @property
    def release(self) -> str:
        assert self.status == 0, self.log
        release: str = self.outputs["release"]
        return release


class Project:
    """A copy of the project, whose app a test may change. Its program runs the copy's own modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "app"
        self._server: subprocess.Popen[str] | None = None
        folder.mkdir()
        for name in ("app", "infra", "rehearsal"):
            left_out = shutil.ignore_patterns("__pycache__", "instance", ".*_cache")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=left_out)
        (folder / ".venv").symlink_to(Path(sys.prefix))

    def environment(self) -> dict[str, str]:
        """Return variables with which Python imports the copy's `decant` and `rehearsal`, not the installed ones."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder / "infra"), str(self.folder)])}

    def add_probe(self) -> None:
        """Put app_probe.py in front of the app."""
        shutil.copy(SUPPORT / "app_probe.py", self.app)
        with (self.app / "wsgi.py").open("a") as code:
            code.write("\nfrom app_probe import Probe\n\napp.wsgi_app = Probe(app.wsgi_app)\n")

    def run(self, network: Network, config: Mapping[str, Any], *, stack: str = STACK) -> Run:
        """Run the program to its end, as `make rehearse` does, and return its result."""
        if self._server is None:
            # The server ends when its standard input is closed, and so with this process.
            self._server = subprocess.Popen(
                [sys.executable, "-u", str(SUPPORT / "program_server.py")], env=self.environment(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        requests, replies = self._server.stdin, self._server.stdout
        assert requests is not None
        assert replies is not None
        encrypted = {"decant:sshPrivateKey", "decant:secrets"}
        request = {
            "network": network.name,
            "stack": stack,
            "config": dict(config),
            "secret_keys": sorted(encrypted & set(config)),
        }
        print(json.dumps(request), file=requests, flush=True)
        lines: list[str] = []
        while not (line := replies.readline()).startswith("END "):
            assert line, "".join(lines)
            lines.append(line)
        results = [line for line in lines if line.startswith(('{"outputs"', '{"error"'))]
        assert len(results) == 1, "".join(lines)
        result = json.loads(results[0])
        return Run(
            status=int(line.split()[1]),
            outputs=result.get("outputs", {}),
            error=result.get("error", ""),
            log="".join(line for line in lines if line not in results),  # the outputs hold what is for the user alone
        )
