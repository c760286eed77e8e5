"""The reader of an app folder: static files, and all problems at once."""

from __future__ import annotations

from pathlib import Path

from decant.app.folder import read_app
from decant.app.model import AppOptions
from tests.support.app_folders import PLAIN, problems, write


def test_the_static_folder_is_the_one_named_or_flasks_default(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {**PLAIN, "static/a.css": "", "shop/public/b.css": ""})
    assert read_app(app, AppOptions()).static == "static"
    assert read_app(app, AppOptions(static="shop/public")).static == "shop/public"
    assert read_app(write(tmp_path / "none", PLAIN), AppOptions()).static is None
    assert read_app(write(tmp_path / "file", {**PLAIN, "static": "a file"}), AppOptions()).static is None


def test_a_missing_static_folder_is_a_problem(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {**PLAIN, "public": "a file"})
    for name in ("assets", "public"):
        (problem,) = problems(app, static=name)
        assert problem == f"has no folder {name}, which decant:static names"


def test_all_problems_of_a_folder_are_reported_at_once(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"Procfile": "web: uvicorn a:b\n"})
    assert len(problems(app, static="assets")) == 3
    (only,) = problems(tmp_path / "nowhere")
    assert only == "there is no such folder"
    (only,) = problems(app / "Procfile")
    assert only == "there is no such folder"
