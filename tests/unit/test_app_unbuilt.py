"""Static files that only a build of the app makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.errors import AppError
from tests.support.app_folders import PLAIN, committed, git, use_plain_git, write

FLASK = "<link href=\"{{ url_for('static', filename='main.css', v=1) }}\">"
FILES = {
    ".gitignore": "/shop/static/*.css\nstatic/js/\n",
    "shop/static/logo.png": "",
    "shop/templates/base.html": FLASK,
    "package.json": '{"scripts": {"dev": "x", "compile": "x"}}',
}
TEXT = "has no shop/static/main.css, which shop/templates/base.html uses, which git ignores and a build makes"


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


def problems(folder: Path, files: dict[str, str], *, build: bool = False) -> tuple[tuple[str, str], ...]:
    app = committed(folder / "app", {**PLAIN, **files})
    try:
        read_app(app, AppOptions(build=build))
    except AppError as error:
        return tuple(error.problems)
    return ()


def test_a_style_that_only_the_build_makes_is_a_refusal_with_the_build(tmp_path: Path) -> None:
    assert problems(tmp_path, FILES) == ((TEXT, "pulumi config set decant:build 'npm install && npm run compile'"),)


@pytest.mark.parametrize(
    ("files", "build"),
    [
        ({"package-lock.json": "{}"}, "'npm ci && npm run compile'"),
        ({"package.json": '{"scripts": {"compile": "x", "build": "x"}}'}, "'npm install && npm run build'"),
        ({"shop/templates/base.html": "<script src='/static/js/a.js?v=1'>"}, "'npm install && npm run compile'"),
    ],
)
def test_the_build_is_that_of_the_app(tmp_path: Path, files: dict[str, str], build: str) -> None:
    [(_, fix)] = problems(tmp_path, {**FILES, **files})
    assert fix == f"pulumi config set decant:build {build}"


@pytest.mark.parametrize(
    "files",
    [
        {".gitignore": ""},  # a dead link of the author's
        {".gitignore": "", "shop/static/main.css": ""},
        {"package.json": '{"scripts": {"test": "x"}}'},
        {"package.json": '{"scripts": ["build"]}'},
        {"package.json": "{"},
        {"shop/templates/base.html": FLASK.replace("main.css", "{{ theme }}.css")},
        {"shop/templates/base.html": FLASK.replace("main.css", "main.png")},
        {"shop/templates/base.txt": FLASK, "shop/templates/base.html": ""},
    ],
)
def test_other_apps_are_served(tmp_path: Path, files: dict[str, str]) -> None:
    assert problems(tmp_path, {**FILES, **files}) == ()


def test_a_style_that_git_tracks_all_the_same_is_there(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, **FILES})
    write(app, {"shop/static/main.css": ""})
    git(app, "add", "-f", "shop/static/main.css")
    read_app(app, AppOptions())


def test_a_build_is_trusted(tmp_path: Path) -> None:
    assert problems(tmp_path, FILES, build=True) == ()


def test_without_a_repository_nothing_says_what_a_build_makes(tmp_path: Path) -> None:
    problems(tmp_path, FILES)
    shutil.rmtree(tmp_path / "app" / ".git")
    read_app(write(tmp_path / "app", {}), AppOptions())
