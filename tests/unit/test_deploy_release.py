"""The release that a stack asks for, as a machine gets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decant.host.manifest import runtime_digest
from decant_host.protocol import unguarded
from tests.support import in_memory
from tests.support.in_memory import APP, DROPLET, Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]


def staged(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(unguarded(run.text("Command web-1-stage", "stdin")))
    return found


def test_a_machine_gets_all_that_serves_the_release(start: Start) -> None:
    secrets = {"Z_KEY": "canary", "A_KEY": "canary"}
    spec = staged(
        start(DROPLET, env={"GREETING": "hello"}, secrets=secrets, healthPath="/up", healthTimeout=20, workers=3,
              threads=5)
    )  # fmt: skip
    assert len(spec["settings"].pop("lock")) == 64
    assert spec["settings"] == {
        "entry": "wsgi:app", "gunicorn": {}, "gunicorn_config": None, "wrapper": [], "static": "static",
        "install": ["--requirement", "requirements.txt"], "install_project": None, "locked": True,
        "install_variables": [], "python": None, "python_mirror": None, "debian_packages": [],
        "persistent": ["instance"], "next_persistent": 0, "release_command": None, "request_timeout": 30,
        "health_path": "/up", "health_timeout": 20, "workers": 3, "threads": 5,
        "runtime": runtime_digest(), "secret_names": ["A_KEY", "Z_KEY"],
    }  # fmt: skip
    assert spec["environment"] == {"GREETING": "hello", **secrets}


def test_a_machine_learns_of_a_release_command_and_of_requirements_without_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = {**APP, "requirements.txt": "flask\n", "Procfile": "release: flask db upgrade\n"}
    run = in_memory.run_program(in_memory.project(tmp_path / "project", app), DROPLET, monkeypatch)
    settings = staged(run)["settings"]
    assert (settings["locked"], settings["release_command"]) == (False, "flask db upgrade")


def test_a_machine_knows_the_next_index_of_the_persistent_paths(start: Start) -> None:
    """For the command in an error: Flask's own folders are not in the setting's list."""
    settings = staged(start(DROPLET, persistent=["uploads", "logs"]))["settings"]
    assert settings["next_persistent"] == 2
