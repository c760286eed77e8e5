"""The folder of static files, told from the app's source."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from tests.support.app_folders import write
from tests.support.web_lines import FACTORY, FLASK

ROOT, SHOP, BACK = {"static/a": ""}, {"shop/static/a": ""}, {"back/static/a": ""}


def made(arguments: str) -> str:
    return f"from flask import Flask\napp = Flask({arguments})\n"


CASES: list[tuple[str, dict[str, str], str | None]] = [
    ("gunicorn app:app", {"app.py": FLASK, **ROOT}, "static"),
    ("gunicorn app:app", {"app.py": FLASK, **SHOP}, None),
    ("gunicorn shop:app", {"shop/__init__.py": FLASK, **SHOP, **ROOT}, "shop/static"),
    ("gunicorn shop:app", {"shop/__init__.py": FLASK, **ROOT}, None),
    ("gunicorn 'shop:create_app()'", {"shop/__init__.py": FACTORY, **SHOP}, "shop/static"),
    ("gunicorn run:app", {"run.py": "from shop import app\n", "shop/__init__.py": FLASK, **SHOP, **ROOT}, "shop/static"),
    ("gunicorn --chdir back app:app", {"back/app.py": FLASK, "app.py": FLASK, **BACK, **ROOT}, "back/static"),
    ("gunicorn --chdir back app:app", {"back/app.py": "app = make()\n", **BACK, **ROOT}, "back/static"),
    ("gunicorn --pythonpath back app:app", {"back/app.py": FLASK, **BACK, **ROOT}, "back/static"),
    ("gunicorn app:app", {"app.py": "app = make()\n", **ROOT}, "static"),
    ("gunicorn app:app", {"app.py": made("__name__, static_folder='shop/static'"), **SHOP}, "shop/static"),
    ("gunicorn shop.web:app", {"shop/web.py": made("__name__, static_folder='../static'"), **ROOT}, "static"),
    ("gunicorn app:app", {"app.py": made("__name__, static_folder='assets'"), "assets/a": "", **ROOT}, None),
    ("gunicorn app:app", {"app.py": made("__name__, static_folder='assets', static_url_path='/static'"), "assets/a": ""}, "assets"),
    ("gunicorn app:app", {"app.py": made("__name__, static_url_path=''"), **ROOT}, "static"),
    ("gunicorn app:app", {"app.py": made("__name__, static_url_path='/files'"), **ROOT}, None),
    ("gunicorn app:app", {"app.py": made("__name__, static_folder=None"), **ROOT}, None),
    ("gunicorn app:app", {"app.py": made("__name__, static_folder=FOLDER"), **ROOT}, "static"),
    ("gunicorn app:app", {"app.py": made("'shop'"), **ROOT}, "static"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "files", "static"), CASES)
def test_nginx_serves_the_folder_that_the_app_would(
    tmp_path: Path, line: str, files: dict[str, str], static: str | None
) -> None:
    folder = write(tmp_path / "app", {"requirements.txt": "flask\n", "Procfile": f"web: {line}\n", **files})
    assert read_app(folder, AppOptions()).static == static


def test_the_setting_has_precedence(tmp_path: Path) -> None:
    files = {"requirements.txt": "flask\n", "app.py": FLASK, **ROOT, **SHOP}
    assert read_app(write(tmp_path / "app", files), AppOptions(static="shop/static")).static == "shop/static"
