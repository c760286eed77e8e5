"""The scripts that run on machines, run in a throwaway root with stand-ins for the system's commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from decant import session
from decant.host import steps
from tests.unit.host_files import (
    BIN,
    program,
    provision,
)
from tests.unit.paper import REPOSITORY


def ours(pattern: str) -> list[Path]:
    """The repository's own files, environments and caches left aside."""
    tops = [p for p in REPOSITORY.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "node_modules"]
    found = [path for top in tops for path in top.rglob(pattern)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(REPOSITORY).parts))


def shellcheck(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = program(str(BIN / "shellcheck"))
    return subprocess.run([tool, *words], input=text, capture_output=True, text=True, check=False)


def test_there_are_scripts() -> None:
    assert {"provision.sh", "remove.sh"} <= {p.name for p in ours("*.sh")}


@pytest.mark.parametrize("path", ours("*.sh"), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_shellcheck(path: Path) -> None:
    done = shellcheck(str(path))
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_of_lines_inside_python() -> None:
    _, script = provision()
    lines = {
        "base": re.sub(r"<<'END'\n.*?\nEND\n", "<<'END'\nx\nEND\n", script, flags=re.DOTALL),
        "ready": session._CHECK,
        "remove": steps.REMOVE_STEP,
        "updates": steps.UPDATES_STEP,
        "stage": steps.stage_step("0" * 12),
    }
    for name, text in lines.items():
        done = shellcheck("-s", "sh", "-", text=text + "\n")
        # SC1091: /etc/os-release is the machine's. SC2016: what is in single quotes is for the inner shell.
        assert set(re.findall(r"SC\d+", done.stdout)) <= {"SC1091", "SC2016"}, f"{name}: {done.stdout}"
    assert "SC2086" in shellcheck("-s", "sh", "-", text="rm $1\n").stdout, "this check cannot fail"
