"""pyproject.toml: whether it says what the app needs, and whether the project itself is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.project_files import is_installed, names_packages, read_pyproject, serving_extra
from decant.errors import AppError
from tests.support.app_folders import write

BUILD = "[build-system]\nrequires = []\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[project]\nname = 'a'\n", True), ("[tool.poetry.dependencies]\nflask = '*'\n", True),
        ("[tool.ruff]\nline-length = 9\n", False), ("[tool.poetry]\nname = 'a'\n", False), ("", False),
    ],
)  # fmt: skip
def test_many_hold_only_the_settings_of_tools(tmp_path: Path, text: str, named: bool) -> None:
    assert names_packages(read_pyproject(write(tmp_path, {"pyproject.toml": text}))) is named


def test_a_folder_may_have_none(tmp_path: Path) -> None:
    assert read_pyproject(tmp_path) == {}


def test_one_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"^pyproject\.toml is no TOML"):
        read_pyproject(write(tmp_path, {"pyproject.toml": "a"}))


@pytest.mark.parametrize(
    ("text", "files", "installed"),
    [
        ("[project]\nname = 'a'\n", [], False),
        ("[project]\nname = 'a'\n" + BUILD, [], True),
        ("[project]\nname = 'a'\n", ["setup.py"], True),
        ("[project]\nname = 'a'\n[tool.uv]\npackage = false\n" + BUILD, [], False),
        ("[project]\nname = 'a'\n[tool.uv]\npackage = true\n", [], True),
        ("[tool.poetry]\nname = 'my-shop'\npackage-mode = false\n" + BUILD, ["my_shop/a.py"], False),
        ("[tool.poetry]\nname = 'my-shop'\n" + BUILD, [], False),
        ("[tool.poetry]\nname = 'my-shop'\n" + BUILD, ["my_shop/a.py"], True),
        ("[tool.poetry]\nname = 'my-shop'\n" + BUILD, ["src/my_shop/a.py"], True),
        ("[tool.poetry]\nname = 'my-shop'\n" + BUILD, ["my_shop.py"], True),
        ("[tool.poetry]\nname = 'my-shop'\npackages = [{include='x'}]\n" + BUILD, [], True),
        ("[project]\nname = 'Shop'\n[tool.poetry]\n" + BUILD, ["shop/a.py"], True),
        ("[tool.poetry]\nname = ''\n" + BUILD, ["src/x.py"], False),
    ],
)
def test_a_project_is_installed_where_it_can_be_built(
    tmp_path: Path, text: str, files: list[str], installed: bool
) -> None:
    write(tmp_path, {"pyproject.toml": text, **dict.fromkeys(files, "")})
    assert is_installed(tmp_path, read_pyproject(tmp_path)) is installed


@pytest.mark.parametrize(
    ("own", "extras", "extra"),
    [
        ([], {"serve": ["gunicorn>=20"]}, "serve"),
        ([], {"serve": ["Gunicorn[gevent]"], "test": ["pytest"]}, "serve"),
        (["gunicorn"], {"serve": ["gunicorn"]}, None),
        ([], {"one": ["gunicorn"], "two": ["gunicorn"]}, None),
        ([], {"serve": ["gunicorn2", "gevent"]}, None),
        ([], {}, None),
    ],
)
def test_the_extra_that_serves(own: list[str], extras: dict[str, list[str]], extra: str | None) -> None:
    assert serving_extra({"project": {"dependencies": own, "optional-dependencies": extras}}) == extra


def test_tools_settings_alone_have_no_extra() -> None:
    assert serving_extra({"tool": {}}) is None
