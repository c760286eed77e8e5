"""The commands that everybody types: the Makefile's goals, tools/install.sh and tools/lint.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.in_memory import REPOSITORY

NOTE = 'echo "$(basename "$0") $*" >>"$CALLS"\n'


class Project:
    """A copy of the scripts, with programs in .venv that only note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "Makefile", folder)
        for name in ("requirements.txt", "pyproject.toml", "requirements-dev.txt", "app/requirements.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{name} --hash=\n")

    def program(self, name: str, text: str = "") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{NOTE}{text}")
        path.chmod(0o755)

    def run(self, *command: str, **environment: str) -> tuple[int, list[str]]:
        """The status, and the calls that were noted."""
        calls = self.folder / "calls"
        calls.write_text("")
        kept = {"PATH": os.environ["PATH"], "CALLS": str(calls), **environment}
        done = subprocess.run(command, cwd=self.folder, env=kept, capture_output=True, text=True, check=False)
        return done.returncode, calls.read_text().splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# ------------------------------------------------------------------------------------------------ the Makefile

TEST = ["install.sh dev", "lint.sh ", "python -m rehearsal needs", "python -m pytest -n 2 --dist loadscope"]


@pytest.mark.parametrize(
    ("goal", "calls"),
    [
        ("install", ["install.sh program"]),
        ("try", ["install.sh program", "python -m rehearsal up dev"]),
        ("rehearse", ["install.sh program", "python -m rehearsal up dev"]),
        ("try-down", ["install.sh program", "python -m rehearsal down"]),
        ("up", ["install.sh program", "python -m decant.cli up dev --"]),
        ("preview", ["install.sh program", "python -m decant.cli preview dev --"]),
        ("destroy", ["install.sh program", "python -m decant.cli destroy dev --"]),
        ("rollback", ["install.sh program", "python -m decant.cli rollback dev --"]),
        ("replace", ["install.sh program", "python -m decant.cli --machine= replace dev --"]),
        ("bench", ["install.sh program", "python -m bench"]),
        ("lint", TEST[:2]),
        ("test", TEST),
        ("docs", ["install.sh program", "python -m decant.settings.docs", "python tools/module_map.py"]),
    ],
)
def test_a_goal_installs_what_it_needs_and_runs_its_program(project: Project, goal: str, calls: list[str]) -> None:
    for name in (".venv/bin/python", "tools/install.sh", "tools/lint.sh"):
        project.program(name)
    (project.folder / "docs").mkdir()
    assert project.run("make", goal) == (0, calls)


def test_a_failed_lint_or_test_fails_the_goal(project: Project) -> None:
    for failing, calls in (("tools/lint.sh", TEST[:2]), (".venv/bin/python", TEST)):
        for name in (".venv/bin/python", "tools/install.sh", "tools/lint.sh"):
            project.program(name, "exit 1\n" if name == failing else "")
        assert project.run("make", "test") == (2, calls)


def test_every_file_of_packages_is_locked_and_what_has_credentials_by_hash(project: Project) -> None:
    for name in (".venv/bin/uv", "tools/install.sh"):
        project.program(name)
    status, (install, *locks) = project.run("make", "lock")
    assert (status, install) == (0, "install.sh dev")
    assert [lock.split()[-1] for lock in locks] == [
        "requirements.txt", "requirements-dev.txt", "bench/requirements.txt",
        "infra/decant/host/acme/certbot-requirements.txt", "requirements.txt",
    ]  # fmt: skip
    assert all("pip compile -q -U " in lock and "--universal --python-version 3.11" in lock for lock in locks)
    assert ["--generate-hashes" in lock for lock in locks] == [True, True, False, True, True]


def test_make_installs_with_the_python_that_it_is_told(project: Project) -> None:
    project.program("tools/install.sh", 'echo "with $PYTHON" >>"$CALLS"\n')
    assert project.run("make", "install")[1] == ["install.sh program", "with python3"]
    assert project.run("make", "install", "PYTHON=python3.12")[1] == ["install.sh program", "with python3.12"]


# ------------------------------------------------------------------------------------------------ install.sh

# Makes a .venv as Python does; everything else is asked of the real one.
PYTHON = f"""case "$*" in
    "-m venv .venv")
        mkdir -p .venv/bin
        for name in python uv; do cp "$FAKE" .venv/bin/$name; done ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
UV = "uv pip install -q --python .venv/bin/python "
PROGRAM = [f"{UV}--require-hashes -r requirements.txt", f"{UV}--no-deps -e ."]
DEV = [
    f"{UV}--require-hashes -r requirements.txt -r requirements-dev.txt",
    f"{UV}--require-hashes -r app/requirements.txt",
    PROGRAM[1],
]


def install(project: Project, *kind: str) -> tuple[int, list[str]]:
    """The calls of uv that install something."""
    project.program("fake")
    project.program("python3", PYTHON)
    python, fake = project.folder / "python3", project.folder / "fake"
    status, calls = project.run("bash", "tools/install.sh", *kind, PYTHON=str(python), FAKE=str(fake))
    return status, [call for call in calls if call.startswith("uv pip")]


def test_install_does_nothing_where_all_is_up_to_date(project: Project) -> None:
    assert install(project) == (0, PROGRAM)
    assert install(project, "program") == (0, [])
    assert install(project, "dev") == (0, DEV)
    assert install(project, "dev") == (0, [])
    assert install(project, "program") == (0, []), "dev has all of it"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_package_of_the_project_has_its_hashes(name: str) -> None:
    """Who can put another file of the same version into an index could run code with a cloud's credentials."""
    text = (REPOSITORY / name).read_text(encoding="utf-8").replace("\\\n", "")
    packages = [line for line in text.splitlines() if "==" in line]
    assert len(packages) > 20
    assert [line for line in packages if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("requirements.txt", ["program", "dev"]),
        ("pyproject.toml", ["program", "dev"]),
        ("requirements-dev.txt", ["dev"]),
        ("app/requirements.txt", ["dev"]),
    ],
)
def test_install_runs_again_when_a_file_of_packages_changes(project: Project, name: str, kinds: list[str]) -> None:
    for kind, calls in (("program", PROGRAM), ("dev", DEV)):
        assert install(project, "dev")[0] == 0
        (project.folder / name).write_text(f"changed for {kind} --hash=\n")
        assert install(project, kind) == (0, calls if kind in kinds else [])


def test_another_app_in_the_folder_needs_no_requirements_and_no_hashes(project: Project) -> None:
    (project.folder / "app/requirements.txt").write_text("flask\n")
    assert install(project, "dev") == (0, [DEV[0], f"{UV}-r app/requirements.txt", DEV[2]])
    (project.folder / "app/requirements.txt").unlink()
    assert install(project, "program") == (0, [])
    assert install(project, "dev") == (0, [DEV[0], DEV[2]])


def test_install_refuses_a_python_that_is_too_old(project: Project) -> None:
    old = "import sys; sys.version_info = (3, 10, 9); exec(sys.argv.pop(1))"
    # The check is the only thing that it is asked.
    project.program("python3", f'shift; exec {sys.executable} -c "{old}" "$@"\n')
    status, calls = project.run("bash", "tools/install.sh", PYTHON=str(project.folder / "python3"))
    assert status == 1
    assert [call.split()[1] for call in calls] == ["-c", "-V"], "the check, and the version for the message"


# ------------------------------------------------------------------------------------------------ lint.sh

CHECKERS = [
    "ruff check -q .",
    "ruff format -q --check .",
    "mypy --no-error-summary infra fabfile.py rehearsal bench/*.py app/hello app/wsgi.py tests",
]


LINTERS = ("ruff", "mypy", "shellcheck", "zizmor")


def test_lint_runs_every_checker_over_every_folder(project: Project) -> None:
    for name in LINTERS:
        project.program(f".venv/bin/{name}")
    status, calls = project.run("bash", "tools/lint.sh")
    assert (status, calls[:3]) == (0, CHECKERS)
    assert {Path(name).name for name in calls[3].split()[1:]} == {"install.sh", "lint.sh"}
    assert calls[4:] == ["zizmor --offline --persona=pedantic --quiet .github"]


@pytest.mark.parametrize("failing", LINTERS)
def test_lint_fails_where_a_checker_does(project: Project, failing: str) -> None:
    for name in LINTERS:
        project.program(f".venv/bin/{name}", "exit 1\n" if name == failing else "")
    status, _ = project.run("bash", "tools/lint.sh")
    assert status != 0
