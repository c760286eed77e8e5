"""The paths that an app may write: Flask's instance folder and those of decant:persistent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decant.app.model import AppOptions, WebProcess
from decant.app.writable import entry_module, import_roots, read_persistent
from decant.errors import AppError
from tests.support.app_folders import write

FILES = {"wsgi.py": "", "shop/__init__.py": "", "static/a.css": "", "src/lib/__init__.py": "", "data/seed.json": ""}


def web(entry: str = "wsgi:app", **gunicorn: Any) -> WebProcess:
    return WebProcess(wsgi_app=entry, why="", gunicorn=gunicorn)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write(tmp_path / "app", FILES)


def refused(
    app: Path, *paths: str, process: WebProcess | None = None, static: str | None = None
) -> list[tuple[str, str]]:
    with pytest.raises(AppError) as caught:
        read_persistent(app, process or web(), AppOptions(persistent=paths, static=static))
    return list(caught.value.problems)


def test_the_instance_folder_is_beside_the_module_that_flask_may_be_made_in(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"wsgi.py": "", "backend/main.py": "", "lib/x.py": ""})
    assert read_persistent(app, web(), AppOptions()) == ("instance",)
    assert read_persistent(app, web("main:app", chdir="backend"), AppOptions()) == ("instance", "backend/instance")
    for pythonpath in ("lib,backend", ("lib", "backend")):
        found = read_persistent(app, web("main:app", pythonpath=pythonpath), AppOptions())
        assert found == ("instance", "lib/instance", "backend/instance")
    write(app, {"src/shop/__init__.py": ""})
    assert read_persistent(app, web(), AppOptions()) == ("instance", "src/instance")


def test_import_roots_are_folders_of_the_app(app: Path) -> None:
    assert import_roots(app, web(chdir="shop", pythonpath="../lib,..")) == (".", "shop", "src")
    assert import_roots(app, web(chdir="/srv", pythonpath="../../etc,nowhere")) == (".", "src")


def test_the_entry_module_is_found_in_its_root(app: Path) -> None:
    assert entry_module(app, web()) == "wsgi.py"
    assert entry_module(app, web("shop:create_app()")) == "shop/__init__.py"
    assert entry_module(app, web("lib", chdir="src")) == "src/lib/__init__.py"
    assert entry_module(app, web("nowhere:app")) is None
    write(app, {"shop/wsgi.py": ""})
    assert entry_module(app, web(chdir="shop")) == "shop/wsgi.py", "gunicorn looks there first"


def test_paths_of_the_setting_come_after_flasks_own(app: Path) -> None:
    given = ("uploads", "static/uploads", "./logs/", "site.db", "data", "instance", "instance/files", "uploads")
    assert read_persistent(app, web(), AppOptions(persistent=given)) == (
        "instance", "src/instance", "uploads", "static/uploads", "logs", "site.db", "data",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "is the app folder itself"),
        ("wsgi.py", "holds wsgi.py, the app's code"),
        ("shop", "holds code of the app, which changes with each release"),
        ("shop/settings.py", "holds code of the app, which changes with each release"),
        ("src", "is inside"),
        ("static", "holds the static files, which change with each release"),
    ],
)
def test_a_path_that_would_hide_the_release_is_refused(app: Path, path: str, reason: str) -> None:
    if path == "src":
        app.joinpath("src/lib/__init__.py").rename(app / "src" / "main.py")
        reason = "holds src/main.py, the app's code"
    ((message, fix),) = refused(app, "logs", path, process=web("main:app", chdir="src") if path == "src" else None)
    assert message == f"has no {path} that the app could write, although decant:persistent names it: {path} {reason}"
    if path == "static":
        assert fix == "pulumi config set --path 'decant:persistent[1]' static/uploads, and let the app write there"
    else:
        assert fix == "pulumi config rm --path 'decant:persistent[1]'"


def test_templates_and_other_static_folders_are_refused(app: Path) -> None:
    write(app, {"shop/static/b.css": "", "shop/templates/a.html": "", "public/x.css": ""})
    problems = refused(app, "shop/static", "shop/templates", "public", static="public")
    assert [fix for _, fix in problems] == [
        "pulumi config set --path 'decant:persistent[0]' shop/static/uploads, and let the app write there",
        "pulumi config rm --path 'decant:persistent[1]'",
        "pulumi config set --path 'decant:persistent[2]' public/uploads, and let the app write there",
    ]
    assert read_persistent(app, web(), AppOptions(persistent=("templates",)))[-1] == "templates", "there is none"


def test_a_path_inside_another_one_is_refused(app: Path) -> None:
    ((message, fix),) = refused(app, "uploads/photos", "uploads")
    assert message.endswith("uploads/photos is inside uploads, which is persistent itself")
    assert fix == "pulumi config rm --path 'decant:persistent[0]'"


def test_an_instance_package_stays_code_and_its_configuration_is_no_code(app: Path) -> None:
    write(app, {"instance/config.py": ""})
    assert read_persistent(app, web(), AppOptions())[0] == "instance"
    write(app, {"instance/__init__.py": ""})
    assert read_persistent(app, web(), AppOptions()) == ("src/instance",)


def test_a_path_behind_a_link_is_refused(app: Path) -> None:
    (app / "alias").symlink_to("data")
    ((message, fix),) = refused(app, "alias/deep/up")
    assert message.endswith("alias/deep/up is behind the link alias")
    assert fix == "pulumi config rm --path 'decant:persistent[0]'"
    (app / "backend").symlink_to("shop")
    found = read_persistent(app, web("x:app", chdir="backend"), AppOptions(persistent=("alias",)))
    assert found == ("instance", "shop/instance", "src/instance", "alias"), "a link itself is replaced"


@pytest.mark.parametrize("path", ["__pycache__", "shop/__pycache__", ".git", ".venv/data", ".env"])
def test_what_is_never_shipped_is_refused_but_for_the_instance_folder(app: Path, path: str) -> None:
    ((message, _),) = refused(app, path)
    never = next(part for part in Path(path).parts if part not in ("shop", "data"))
    assert message.endswith(f"{path} names {never}, which no release brings and no app writes its data to")
    assert read_persistent(app, web(), AppOptions(persistent=("shop/instance",)))[-1] == "shop/instance"
