"""Calls that fail with newer packages, when a visitor comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.errors import AppError
from tests.support.app_folders import write

APP = """from flask import Flask
from werkzeug.security import generate_password_hash
app = Flask(__name__)
def sign_up(password):
    return generate_password_hash(
        password, method="sha256")
"""
TEXT = "app.py:6 hashes passwords by the method 'sha256', which Werkzeug 3 does not have, and it installs that"
ADD = "echo 'werkzeug<3' >> app/requirements.txt"
CHANGE = "delete method='sha256' in line 6 of app/app.py"


def problems(folder: Path, requirements: str, code: str = APP, **files: str) -> tuple[tuple[str, str], ...]:
    more = {name.replace("_", "."): text for name, text in files.items()}
    app = write(folder / "app", {"app.py": code, "requirements.txt": requirements, **more})
    try:
        read_app(app, AppOptions())
    except AppError as error:
        return tuple(error.problems)
    return ()


@pytest.mark.parametrize(
    ("requirements", "fix"),
    [
        ("flask\n", ADD),
        ("flask>=2\nWerkzeug>2\n", ADD),
        ("flask==2.3.3\n", ADD),
        ("flask\nwerkzeug==3.0.1\n", ADD),
        ("flask==3.0.0\n", CHANGE),
        ("flask>=3\n", CHANGE),
    ],
)
def test_a_hash_that_werkzeug_no_longer_has_is_refused(tmp_path: Path, requirements: str, fix: str) -> None:
    assert problems(tmp_path, requirements) == ((TEXT, fix),)


@pytest.mark.parametrize(
    "requirements",
    ["flask\nwerkzeug<3\n", "flask==2.3.3\nwerkzeug==2.3.7\n", "flask==2.2.2\n", "flask==1.1.2\n"],
)
def test_an_old_werkzeug_has_it(tmp_path: Path, requirements: str) -> None:
    assert problems(tmp_path, requirements) == ()


@pytest.mark.parametrize(("version", "found"), [("2.3.7", 0), ("3.0.1", 1)])
def test_a_lock_says_which_werkzeug_it_is(tmp_path: Path, version: str, found: int) -> None:
    lock = f'[[package]]\\nname = "werkzeug"\\nversion = "{version}"\\n'
    project = '[tool.poetry]\\nname = "shop"\\n[tool.poetry.dependencies]\\npython = "^3.11"\\nwerkzeug = "*"\\n'
    text = lock.replace("\\n", "\n"), project.replace("\\n", "\n")
    assert len(problems(tmp_path, "", poetry_lock=text[0], pyproject_toml=text[1])) == found


@pytest.mark.parametrize(
    "code",
    [
        APP.replace(', method="sha256"', ""),
        APP.replace("sha256", "scrypt"),
        APP.replace("sha256", "pbkdf2:sha256"),
        APP.replace('"sha256"', "METHOD"),
        APP.replace("generate_password_hash(", "hashed("),
    ],
)
def test_other_hashes_are_served(tmp_path: Path, code: str) -> None:
    assert problems(tmp_path, "flask\n", code) == ()


def test_a_positional_method_is_found(tmp_path: Path) -> None:
    assert problems(tmp_path, "flask\n", APP.replace("method=", ""))[0] == (TEXT, ADD)
