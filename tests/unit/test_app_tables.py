"""What makes the tables of an app's database."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.errors import AppError
from tests.support.app_folders import write

APP = """
import os
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///site.db")
db = SQLAlchemy(app)

class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""
TEXT = "has a database whose tables nothing makes: its web process does not, and there is no release command"
CREATE_ALL = "release: python -c 'from app import app, db; app.app_context().push(); db.create_all()'"


def table_line(folder: Path, files: dict[str, str], options: AppOptions | None = None) -> str:
    return read_app(write(folder / "app", {"requirements.txt": "flask\n", **files}), options or AppOptions()).table_line


def refusal(folder: Path, files: dict[str, str], options: AppOptions | None = None) -> tuple[str, str]:
    with pytest.raises(AppError) as caught:
        table_line(folder, files, options)
    [problem] = caught.value.problems
    return problem


def test_an_app_whose_tables_nothing_makes_is_refused_with_the_line(tmp_path: Path) -> None:
    fix = f"in app/Procfile: {CREATE_ALL}. If something else does: release: true"
    assert refusal(tmp_path, {"app.py": APP}) == (TEXT, fix)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"wsgi.py": "from shop import create_app\napp = create_app()\n",
             "shop/__init__.py": "from shop.models import User\ndef create_app(): pass\n",
             "shop/models.py": "from shop.extensions import db\nclass User(db.Model): pass\nU = 'sqlite:///a.db'\n",
             "shop/extensions.py": "import flask_sqlalchemy as f\ndb: f.SQLAlchemy = f.SQLAlchemy (model_class=1)\n"},
            "release: python -c 'from wsgi import app; from shop.extensions import db;"
            " app.app_context().push(); db.create_all()'",
        ),
        (
            {"Procfile": "web: gunicorn 'shop:create_app(1)'\n",
             "shop/__init__.py": "from f import SQLAlchemy\ndb = SQLAlchemy()\nclass A(db.Model): pass\n"
             "def create_app(a): return 'sqlite:///a.db'\n"},
            "release: python -c 'from shop import create_app, db; create_app(1).app_context().push(); db.create_all()'",
        ),
        (
            {"Procfile": "web: gunicorn --chdir src shop:app\n", "src/shop.py": APP},
            "release: cd src && python -c 'from shop import app, db; app.app_context().push(); db.create_all()'",
        ),
        ({"app.py": APP, "migrations/env.py": ""}, "release: FLASK_APP=app:app flask db upgrade"),
        ({"app.py": APP, "alembic.ini": ""}, "release: alembic upgrade head"),
    ],
)  # fmt: skip
def test_the_line_is_that_of_the_app(tmp_path: Path, files: dict[str, str], line: str) -> None:
    assert refusal(tmp_path, files)[1].startswith(f"in app/Procfile: {line}. If something else does: ")


@pytest.mark.parametrize(
    "files",
    [
        {"app.py": APP + "with app.app_context():\n    db.create_all()\n"},
        {"app.py": APP + "from flask_migrate import upgrade\nupgrade()\n"},
        {"app.py": APP + "db.session.execute('create  table a (b)')\n"},
        {"app.py": APP, "Procfile": "web: gunicorn app:app\nrelease: true\n"},
        {"app.py": APP, "data/site.sqlite3": ""},
        {"app.py": APP.replace("db.Model", "object")},
        {"app.py": APP.replace("sqlite:///", "postgresql:///")},
    ],
)
def test_an_app_that_may_have_its_tables_is_served(tmp_path: Path, files: dict[str, str]) -> None:
    table_line(tmp_path, files)


def test_what_only_a_command_of_the_app_does_makes_no_tables(tmp_path: Path) -> None:
    code = (
        APP + "@app.cli.command()\ndef initdb():\n    db.create_all()\nif __name__ == '__main__':\n    db.create_all()"
    )
    assert refusal(tmp_path, {"app.py": code})[0] == TEXT


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (AppOptions(env={"DATABASE_URL": "sqlite:////var/lib/decant/data/a.db"}), True),
        (AppOptions(env={"DATABASE_URL": "postgresql://db/shop"}), False),
        (AppOptions(secret_names=frozenset({"DATABASE_URL"})), False),
        (AppOptions(secret_names=frozenset({"SECRET_KEY"}), env={"SITE": "https://example.com"}), True),
    ],
)
def test_another_database_may_have_its_tables(tmp_path: Path, options: AppOptions, refused: bool) -> None:
    if refused:
        assert refusal(tmp_path, {"app.py": APP}, options)[0] == TEXT
    else:
        assert table_line(tmp_path, {"app.py": APP}, options) == CREATE_ALL


@pytest.mark.parametrize(
    ("name", "shown"), [("ev\x1b[2Jil.py", ""), ("shop/my-db.py", ""), ("shop/größe.py", "shop.größe")]
)
def test_a_file_name_that_is_no_modules_makes_no_line(tmp_path: Path, name: str, shown: str) -> None:
    """Nobody can import it by a statement, and it could control the terminal."""
    model = "from f import SQLAlchemy\ndb = SQLAlchemy()\n"
    line = table_line(tmp_path, {"wsgi.py": "app = 1\n", name: model})
    makes = f"from wsgi import app; from {shown} import db; app.app_context().push(); db.create_all()"
    assert line == (f"release: python -c '{makes}'" if shown else "")


def test_a_folders_name_in_the_line_is_escaped(tmp_path: Path) -> None:
    files = {"Procfile": "web: gunicorn --chdir 'a\x1b[2J' app:app\n", "a\x1b[2J/app.py": APP}
    text, fix = refusal(tmp_path, files)
    assert (text + fix).isprintable()
    assert "release: cd 'a\\x1b[2J' && python -c" in fix


def test_a_command_of_the_app_is_named_with_a_warning(tmp_path: Path) -> None:
    code = "import click, sqlite3\nfrom flask import Flask\napp = Flask(__name__)\n"
    named = '@click.command("init-db")\n@with_appcontext\ndef init_db_command():\n    pass\n'
    other = "@app.cli.command()\ndef greet():\n    pass\n"
    about = "It runs for each new release: if it empties the tables, remove the line after the first one"
    line = f"release: FLASK_APP=app:app flask init-db. {about}"
    assert table_line(tmp_path / "1", {"app.py": code + other + named}) == line
    bare = "@app.cli.command()\ndef create_tables():\n    pass\n"
    assert table_line(tmp_path / "2", {"app.py": code + other + bare}).startswith(
        "release: FLASK_APP=app:app flask create-tables."
    )
    assert table_line(tmp_path / "3", {"app.py": code + other}) == ""
    assert table_line(tmp_path / "4", {"app.py": code + named, "Procfile": "release: true\n"}) == ""


def test_tests_and_virtual_environments_name_no_database(tmp_path: Path) -> None:
    code = "from flask import Flask\napp = Flask(__name__)\n"
    files = {"tests/a.py": "db = SQLAlchemy()\n", "venv/a.py": "db = SQLAlchemy()\n", "venv/pyvenv.cfg": ""}
    assert table_line(tmp_path, {"app.py": code, **files}) == ""


def test_all_problems_of_the_code_are_told_at_once(tmp_path: Path) -> None:
    code = APP + "generate_password_hash('x', method='sha256')\n"
    with pytest.raises(AppError) as caught:
        table_line(tmp_path, {"app.py": code, "runtime.txt": "python-2.7.18\n"})
    texts = [text for text, _ in caught.value.problems]
    assert [text[:20] for text in texts] == ["runtime.txt asks for", "app.py:11 hashes pas", TEXT[:20]]
