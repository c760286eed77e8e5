"""The Python of an app that asks for none, from its pinned packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.model import AppOptions
from decant.app.pinned_python import newest_python
from decant.app.python_version import read_python
from tests.support.app_folders import write


@pytest.mark.parametrize(
    ("requirements", "python"),
    [
        ("psycopg2-binary==2.9.9\n", ("3.12", "psycopg2-binary==2.9.9")),
        ("Flask==3.0\npsycopg2-binary==2.9.9\nnumpy==1.21.6\n", ("3.10", "numpy==1.21.6")),
        ("Pillow==7.0.0\n", ("3.8", "Pillow==7.0.0")),
        ("greenlet==3.0.1\nmultidict==6.0.4\n", ("3.11", "multidict==6.0.4")),
        ("typing_extensions==4.8.0\n", ("3.12", "typing_extensions==4.8.0")),
        ("SQLAlchemy==2.0.23\n", ("3.12", "SQLAlchemy==2.0.23")),
        ("SQLAlchemy==1.4.54\n", ("3.13", "SQLAlchemy==1.4.54")),
        ("numpy==2.1.0\n", ("3.13", "numpy==2.1.0")),
        ("numpy>=1.19\nFlask==1.0\n", None),
        ("numpy==1.26.*\n", None),
        ("", None),
        ("-r missing.txt\n", None),
    ],
)
def test_the_oldest_pin_decides(tmp_path: Path, requirements: str, python: tuple[str, str] | None) -> None:
    assert newest_python(write(tmp_path, {"requirements.txt": requirements})) == python


def test_an_app_without_requirements_has_no_pins(tmp_path: Path) -> None:
    assert newest_python(tmp_path) is None


def test_the_pins_count_where_nothing_asks_for_a_python(tmp_path: Path) -> None:
    app = write(tmp_path, {"requirements.txt": "numpy==1.26.4\n"})
    chosen = read_python(app, AppOptions())
    assert (chosen.version, chosen.system) == ("3.12", False)
    assert chosen.why.startswith("the newest that numpy==1.26.4 runs on; another one: pulumi config set decant:python")
    assert read_python(app, AppOptions(python="3.13")).system
    write(tmp_path, {".python-version": "3.11\n"})
    assert read_python(app, AppOptions()).version == "3.11"
    write(tmp_path, {".python-version": "3.13\n"})
    assert read_python(app, AppOptions()).system


def test_pins_that_run_on_the_machines_own_python_leave_it(tmp_path: Path) -> None:
    assert read_python(write(tmp_path, {"requirements.txt": "numpy==2.2.0\n"}), AppOptions()).system


UV = """version = 1
requires-python = ">=3.9"

[[package]]
name = "numpy"
version = "1.26.4"

[[package]]
name = "numpy"
version = "{}"

[[package]]
name = "shop"
source = {{ virtual = "." }}
"""


@pytest.mark.parametrize(
    ("version", "python"), [("2.0.2", ("3.12", "numpy==2.0.2")), ("2.1.0", ("3.13", "numpy==2.1.0"))]
)
def test_a_lock_of_uv_is_read(tmp_path: Path, version: str, python: tuple[str, str]) -> None:
    assert newest_python(write(tmp_path, {"uv.lock": UV.format(version)})) == python
    swapped = UV.replace("1.26.4", "{}").format(version, "1.26.4")
    assert newest_python(write(tmp_path, {"uv.lock": swapped})) == python
    write(tmp_path, {"requirements.txt": "numpy==1.21.6\n"})
    assert newest_python(tmp_path) == ("3.10", "numpy==1.21.6")


def test_a_lock_of_poetry_is_read_without_its_development_packages(tmp_path: Path) -> None:
    old = '[[package]]\nname = "{}"\nversion = "{}"\ncategory = "{}"\n'
    lock = old.format("greenlet", "1.1.3.post0", "main") + old.format("numpy", "1.16.0", "dev")
    assert newest_python(write(tmp_path, {"poetry.lock": lock})) == ("3.10", "greenlet==1.1.3.post0")
    new = '[[package]]\nname = "{}"\nversion = "{}"\ngroups = {}\n'
    lock = new.format("greenlet", "3.0.0", '["dev", "main"]') + new.format("numpy", "1.16.0", '["dev"]')
    assert newest_python(write(tmp_path, {"poetry.lock": lock})) == ("3.12", "greenlet==3.0.0")


def test_a_damaged_lock_has_no_pins(tmp_path: Path) -> None:
    assert newest_python(write(tmp_path, {"poetry.lock": "[["})) is None


def test_pins_count_within_a_range(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nrequires-python = "{}"\n'
    app = write(tmp_path, {"requirements.txt": "numpy==1.26.4\n", "pyproject.toml": project.format(">=3.9")})
    chosen = read_python(app, AppOptions())
    assert (chosen.version, chosen.system) == ("3.12", False)
    assert chosen.why == "the newest that numpy==1.26.4 runs on, which requires-python in pyproject.toml allows"
    write(tmp_path, {"pyproject.toml": project.format(">=3.13")})
    assert read_python(app, AppOptions()).system
    write(tmp_path, {"requirements.txt": "numpy==2.1.0\n", "pyproject.toml": project.format(">=3.9")})
    assert read_python(app, AppOptions()).system
