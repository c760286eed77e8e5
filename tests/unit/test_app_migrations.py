"""Migrations of Flask-Migrate: the folder that the release command needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.app_folders import write
from tests.support.web_lines import FLASK, web

WARNING = "flask db upgrade needs migrations/, and there is none: flask db init && flask db migrate"
INI = "migrations/alembic.ini"


@pytest.mark.parametrize(
    ("line", "release", "files", "warned"),
    [
        ("flask db upgrade && gunicorn app:app", None, {}, True),
        ("gunicorn app:app", "flask db upgrade", {}, True),
        ("gunicorn app:app", "python -m flask --app app db upgrade && flask seed", {}, True),
        ("gunicorn app:app", "flask seed", {}, False),
        ("gunicorn app:app", None, {}, False),
        ("gunicorn app:app", "flask db upgrade", {INI: ""}, False),
        ("cd src && flask db upgrade && gunicorn app:app", None, {"src/app.py": FLASK, "src/migrations/x": ""}, False),
        ("gunicorn --chdir src app:app", "flask db upgrade", {"src/app.py": FLASK, "src/migrations/x": ""}, False),
        ("gunicorn app:app", "flask db upgrade", {"src/migrations/x": ""}, True),
        ("gunicorn app:app", "flask db upgrade", {"shop/versions/alembic.ini": ""}, False),
        ("gunicorn app:app", "flask db upgrade -d shop/db", {"shop/db/x": ""}, False),
    ],
)
def test_an_upgrade_without_migrations_is_warned_about(
    tmp_path: Path, line: str, release: str | None, files: dict[str, str], *, warned: bool
) -> None:
    folder = write(tmp_path / "app", {"Procfile": f"web: {line}\n" + (f"release: {release}\n" if release else "")})
    found = web(tmp_path, None, {"app.py": FLASK, **files})
    assert found.warnings == ((WARNING,) if warned else ())
    assert folder.is_dir()


def test_the_folder_that_the_command_names_is_the_one_that_lacks(tmp_path: Path) -> None:
    found = web(tmp_path, "flask db upgrade --directory=db && gunicorn app:app", {"app.py": FLASK, INI: ""})
    assert found.warnings == (WARNING.replace("migrations/", "db/"),)
