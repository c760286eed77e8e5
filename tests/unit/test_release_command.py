"""The scripts that give a release its environment, run as its units run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "infra/decant/host/gunicorn"
RELEASE = "0123456789ab"

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a release command in a folder in place of /var/lib/decant, and return what it left in result.json."""

    def run(command: str, environment: dict[str, str] | None = None, **more: str) -> Any:
        home = tmp_path / "lib" / "releases" / RELEASE
        (home / "venv" / "bin").mkdir(parents=True, exist_ok=True)
        (home / "app").mkdir(exist_ok=True)
        (home / "release.json").write_text(json.dumps({"release_command": command}))
        for name in ("python", "flask", "yt-dlp"):
            (home / "venv" / "bin" / name).write_text(f"#!/bin/sh\necho {name} of the app\n")
            (home / "venv" / "bin" / name).chmod(0o755)
        (tmp_path / "environment.json").write_text(json.dumps(environment or {}))
        scripts = tmp_path / "scripts"
        scripts.mkdir(exist_ok=True)
        for script in ("release_command.py", "release_environment.py"):
            text = (HERE / script).read_text().replace("/var/lib/decant", str(tmp_path / "lib"))
            (scripts / script).write_text(text)
        subprocess.run(
            [sys.executable, str(scripts / "release_command.py")],
            cwd=home / "app",
            env={"DECANT_RELEASE": RELEASE, "CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/usr/bin:/bin", **more},
            check=True,
        )
        return json.loads((home / "app" / "result.json").read_text())

    return run


SHOW = f'{sys.executable} -c \'import json, os; json.dump(dict(os.environ), open("result.json", "w"))\''


def test_programs_of_the_apps_packages_are_found_first(run: Run, tmp_path: Path) -> None:
    seen = run(SHOW)
    venv = f"{tmp_path}/lib/releases/{RELEASE}/venv"
    assert seen["PATH"] == f"{venv}/bin:/usr/local/bin:/usr/bin:/bin"
    assert seen["VIRTUAL_ENV"] == venv


@pytest.mark.parametrize("name", ["python", "flask", "yt-dlp"])
def test_a_program_is_found_by_its_name_alone(run: Run, name: str) -> None:
    """As in a shell line, and by `subprocess.run` of the app's own code."""
    code = f'import json, subprocess; out = subprocess.run([\\"{name}\\"], capture_output=True, text=True).stdout'
    assert run(f"{sys.executable} -c \"{code}; json.dump(out, open('result.json', 'w'))\"") == f"{name} of the app\n"
    assert run(f'echo "\\"$({name})\\"" > result.json') == f"{name} of the app"


def test_a_port_is_there_for_apps_that_insist_on_one(run: Run) -> None:
    assert run(SHOW)["PORT"].isdigit()


def test_the_stacks_variables_win(run: Run) -> None:
    seen = run(SHOW, {"GREETING": "hello", "PATH": "/opt/own"}, GREETING="of the unit")
    assert (seen["GREETING"], seen["PATH"]) == ("hello", "/opt/own")


def test_the_line_is_a_shells(run: Run) -> None:
    assert run('true && test -n "$VIRTUAL_ENV"; echo \'{"done": 1}\' > result.json') == {"done": 1}
