"""Locks of other tools as requirements with hashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from decant.app.locks import pipfile_lock, poetry_lock, uv_lock
from decant.errors import AppError
from tests.support.app_folders import write

LOCKS = Path(__file__).parents[1] / "support" / "locks"
FLASK = "flask==3.1.3"
NAMES = ["blinker", "click", "flask", "gunicorn", "itsdangerous", "jinja2", "markupsafe", "packaging", "werkzeug"]


def copied(tmp_path: Path, kind: str) -> Path:
    return Path(shutil.copytree(LOCKS / kind, tmp_path / "app"))


def names(text: str) -> list[str]:
    return [line.partition("==")[0] for line in text.splitlines() if "==" in line.partition(" ")[0]]


def problem(read: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(AppError) as caught:
        read(*arguments)
    (only,) = caught.value.problems
    return only


def test_a_lock_of_uvs_has_the_packages_that_the_app_needs(tmp_path: Path) -> None:
    text = uv_lock(copied(tmp_path, "uv"))
    assert names(text) == NAMES
    assert text.startswith("blinker==1.9.0 \\\n    --hash=sha256:"), "no index: machines may have a mirror"
    assert uv_lock(tmp_path / "app") == text


def test_a_lock_of_uvs_keeps_an_index_of_the_apps_own(tmp_path: Path) -> None:
    folder = copied(tmp_path, "uv")
    with (folder / "pyproject.toml").open("a") as out:
        out.write('\n[[tool.uv.index]]\nurl = "https://pypi.example.com/simple"\n')
    assert uv_lock(folder).startswith("--extra-index-url https://pypi.example.com/simple\n") or uv_lock(
        folder
    ).startswith("--index-url https://pypi.example.com/simple\n")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('"flask>=3.0,<4.0"', '"flask>=2"', "flask"),
        ('"gunicorn==23.0.0"', '"gunicorn==23.0.0", "redis"', "redis"),
        ('"flask>=3.0,<4.0", ', "", "flask"),
    ],
)
def test_a_lock_of_uvs_that_is_too_old_is_refused(tmp_path: Path, old: str, new: str, changed: str) -> None:
    path = copied(tmp_path, "uv") / "pyproject.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert problem(uv_lock, path.parent) == (
        f"uv.lock is older than pyproject.toml: they differ in {changed}",
        ".venv/bin/uv lock --directory app",
    )


def test_a_lock_of_another_project_or_of_none_is_refused(tmp_path: Path) -> None:
    path = copied(tmp_path, "uv") / "pyproject.toml"
    path.write_text(path.read_text().replace('"shop"', '"other"'))
    assert problem(uv_lock, path.parent)[0] == "uv.lock is not that of this project, other"
    shutil.rmtree(path.parent)
    folder = copied(tmp_path, "uv")
    (folder / "uv.lock").write_text((folder / "uv.lock").read_text().replace("version = 1\n", "version = 99\n", 1))
    message, fix = problem(uv_lock, folder)
    assert message.startswith("uv.lock cannot be read: ")
    assert fix == ".venv/bin/uv lock --directory app"


def test_a_lock_of_poetrys_has_the_packages_that_the_app_needs(tmp_path: Path) -> None:
    text = poetry_lock(copied(tmp_path, "poetry"), "3.13")
    assert names(text) == NAMES
    first = text.splitlines()[0]
    assert first.startswith("blinker==1.9.0 --hash=sha256:b4ce2265")
    assert first.count("--hash=") == 2


def test_a_lock_of_poetrys_that_lacks_a_package_is_refused(tmp_path: Path) -> None:
    path = copied(tmp_path, "poetry") / "pyproject.toml"
    path.write_text(path.read_text().replace('"gunicorn (==23.0.0)"', '"gunicorn (==23.0.0)","Redis"'))
    assert problem(poetry_lock, path.parent, "3.13") == (
        "poetry.lock is older than pyproject.toml: it lacks Redis",
        "(cd app && poetry lock)",
    )
    path.unlink()
    assert problem(poetry_lock, path.parent, "3.13")[0] == "has poetry.lock and no pyproject.toml"


def test_a_lock_of_pipenvs_has_the_packages_that_the_app_needs(tmp_path: Path) -> None:
    text = pipfile_lock(copied(tmp_path, "pipenv"))
    assert names(text) == NAMES
    assert "click==8.5.1 ; sys_platform != 'win32' --hash=sha256:" in text


def pipfile(tmp_path: Path, default: dict[str, Any], sources: list[dict[str, str]] | None = None) -> str:
    content = {"_meta": {"sources": sources or []}, "default": default}
    return pipfile_lock(write(tmp_path / "app", {"Pipfile.lock": json.dumps(content)}))


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ({"version": "==1"}, "a==1"),
        ({"version": "*"}, "a"),
        ({"version": "==1", "extras": ["x", "y"]}, "a[x,y]==1"),
        ({"git": "https://x.org/a.git", "ref": "abc"}, "a @ git+https://x.org/a.git@abc"),
        ({"git": "https://x.org/a.git", "ref": "abc", "subdirectory": "d"},
         "a @ git+https://x.org/a.git@abc#subdirectory=d"),
        ({"file": "https://x.org/a.whl", "hashes": ["sha256:2", "sha256:1"]},
         "a @ https://x.org/a.whl --hash=sha256:1 --hash=sha256:2"),
        ({"path": "lib", "editable": True}, "./lib"),
        ({"path": ".", "extras": ["web"]}, ".[web]"),
        ({"version": "==1", "markers": "os_name == 'nt'", "hashes": ["sha256:1"]},
         "a==1 ; os_name == 'nt' --hash=sha256:1"),
    ],
)  # fmt: skip
def test_each_kind_of_package_of_pipenvs(tmp_path: Path, package: dict[str, Any], line: str) -> None:
    assert pipfile(tmp_path, {"a": package}) == f"{line}\n"


def test_indexes_of_pipenvs_are_kept_except_pypi(tmp_path: Path) -> None:
    sources = [{"url": "https://pypi.org/simple"}, {"url": "https://$USER:${TOKEN}@x.org/simple"}]
    assert pipfile(tmp_path, {}, sources) == "--extra-index-url https://${USER}:${TOKEN}@x.org/simple\n"
    assert pipfile(tmp_path, {}, sources[1:]) == "--index-url https://${USER}:${TOKEN}@x.org/simple\n"


def test_a_lock_of_pipenvs_that_is_damaged_or_too_old_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", {"Pipfile.lock": "{"})
    fix = "(cd app && pipenv lock)"
    assert problem(pipfile_lock, folder) == ("Pipfile.lock is no lock of Pipenv's", fix)
    write(folder, {"Pipfile.lock": '{"default": {}}', "Pipfile": "[packages]\nFlask = '*'\n"})
    assert problem(pipfile_lock, folder) == ("Pipfile.lock is older than Pipfile: it lacks Flask", fix)
