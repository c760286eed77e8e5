"""The computer of a job: a host name, a /etc/hosts and processes of its own, which end with it, also when it dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

READY = 'mount --bind "$1" /etc/hosts && echo ready && exec sleep infinity'


class RunnerMachine:
    """Commands that begin with `prefix()` run in namespaces that this process can end at once."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="runner-"))
        shutil.copy("/etc/hosts", self.folder / "hosts")
        self._holder = subprocess.Popen(
            ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", READY, "sh",
             str(self.folder / "hosts")],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self._first = int(children[0])

    def prefix(self, folder: Path) -> list[str]:
        """What runs a command there, in a folder. The folder is the same as here."""
        return ["nsenter", "-t", str(self._first), f"--wd={folder}", "--uts", "--mount", "--pid", "--"]

    def kill(self) -> None:
        """End it as a computer that loses power: no process of it gets to know."""
        if self._holder.poll() is None:
            os.kill(self._first, signal.SIGKILL)
            self._holder.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()
