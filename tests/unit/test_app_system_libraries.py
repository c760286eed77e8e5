"""Debian packages that Python packages need when the app runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import App, AppOptions
from tests.support.app_folders import write

APP = "from flask import Flask\napp = Flask(__name__)\n"


def read(folder: Path, files: dict[str, str]) -> App:
    return read_app(write(folder, {"app.py": APP, **files}), AppOptions())


def test_the_libraries_of_a_package_are_installed_with_a_note(tmp_path: Path) -> None:
    app = read(tmp_path, {"requirements.txt": "flask\nWeasyPrint>=60\nweasyprint[x]\npyzbar\n", "Aptfile": "ffmpeg\n"})
    pango = ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0")
    assert app.debian_packages == ("ffmpeg", *pango, "libzbar0t64")
    assert [note for note in app.notes if "Debian" in note] == [
        "weasyprint needs libpango-1.0-0, libpangoft2-1.0-0 and libharfbuzz-subset0 of Debian, so machines install it",
        "pyzbar needs libzbar0t64 of Debian, so machines install it",
    ]


def test_what_the_aptfile_names_is_installed_once(tmp_path: Path) -> None:
    app = read(tmp_path, {"requirements.txt": "flask\nopencv-python\n", "Aptfile": "libgl1\n"})
    assert app.debian_packages == ("libgl1", "libglib2.0-0t64")


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask", "gitpython"]\n'},
        {"Pipfile.lock": '{"_meta": {}, "default": {"flask": {}, "gitpython": {"version": "==3.1"}}}'},
    ],
)
def test_every_source_of_packages_counts(tmp_path: Path, files: dict[str, str]) -> None:
    app = read(tmp_path, files)
    assert app.debian_packages == ("git",)
    assert "gitpython needs git of Debian, so machines install it" in app.notes


def test_other_packages_need_nothing(tmp_path: Path) -> None:
    app = read(tmp_path, {"requirements.txt": "flask\nopencv-python-headless\npillow\n"})
    assert (app.debian_packages, [note for note in app.notes if "Debian" in note]) == ((), [])
