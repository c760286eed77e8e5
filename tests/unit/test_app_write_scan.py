"""The search for code that writes into the app folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.app import write_scan
from decant.app.model import AppOptions, WebProcess
from decant.app.reachable import calls, reachable_modules
from decant.app.write_scan import Found, find_writes
from tests.support.app_folders import write

HEAD = """
import codecs, gzip, io, json, logging, os, pathlib, shutil, sqlite3
from logging.handlers import RotatingFileHandler
from os.path import abspath, dirname, join
from pathlib import Path
from flask import Flask, current_app
from sqlalchemy import create_engine
app = Flask(__name__)
basedir = os.path.abspath(os.path.dirname(__file__))
BASE = Path(__file__).resolve().parent
"""
LINES = HEAD.count("\n")
HEROKU = "if url.startswith('postgres://'):\n    url = url.replace('postgres://', 'postgresql://', 1)\n"


def scan(
    folder: Path, *persistent: str, entry: str = "wsgi:app", options: AppOptions | None = None, **gunicorn: Any
) -> Found:
    process = WebProcess(wsgi_app=entry, why="", gunicorn=gunicorn)
    modules = reachable_modules(folder, process)
    return find_writes(folder, process, options or AppOptions(), ("instance", *persistent), modules)


def paths(found: Found) -> list[str]:
    """Every path that was found, whether it becomes persistent or is only named."""
    return [*found.persistent, *(warning.rpartition(" ")[2] for warning in found.warnings)]


def found(
    tmp_path: Path, code: str, *persistent: str, options: AppOptions | None = None, requirements: str = ""
) -> list[str]:
    folder = write(tmp_path / "app", {"wsgi.py": HEAD + code, "requirements.txt": requirements})
    return paths(scan(folder, *persistent, options=options))


def test_a_path_of_which_nothing_is_shipped_becomes_persistent(tmp_path: Path) -> None:
    files = {"wsgi.py": "import os\n\nos.mkdir('logs')\nopen('time.json', 'w')\n", "logs/.gitkeep": ""}
    found = scan(write(tmp_path / "app", files), options=AppOptions(persistent=("uploads",)))
    assert found.persistent == ("logs", "time.json")
    kept = "is kept when a release goes live; each machine has its own"
    assert found.notes == (f"wsgi.py:3 writes logs, so logs {kept}", f"wsgi.py:4 writes time.json, so time.json {kept}")
    assert found.warnings == ()


def test_the_search_reads_each_module_a_few_times_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[ast.Module] = []

    def counted(tree: ast.Module) -> Iterator[ast.Call]:
        walked.append(tree)
        return calls(tree)

    monkeypatch.setattr(write_scan, "calls", counted)
    names = [f"part{number}" for number in range(30)]
    code = HEAD + "".join(f"import {name}\n" for name in names)
    folder = write(tmp_path / "app", {"wsgi.py": code, **{f"{name}.py": "x = len('x')\n" for name in names}})
    assert paths(scan(folder)) == []
    assert len(walked) == 2 * 31


def test_a_path_that_is_shipped_is_named_with_the_command(tmp_path: Path) -> None:
    """Made persistent, it would hide the code that a later release brings."""
    files = {"wsgi.py": "import os\n\nos.mkdir('logs')\nopen('time.css', 'w')\n", "logs/a.js": "", "time.css": "{}"}
    found = scan(write(tmp_path / "app", files), options=AppOptions(persistent=("uploads",)))
    assert (found.persistent, found.notes) == ((), ())
    assert found.warnings == (
        "wsgi.py:3 writes logs in the app folder, which is read-only on a machine. To let the app write there:"
        " pulumi config set --path 'decant:persistent[1]' logs",
        "wsgi.py:4 writes time.css in the app folder, which is read-only on a machine. To let the app write there:"
        " pulumi config set --path 'decant:persistent[2]' time.css",
    )


def test_data_that_is_shipped_becomes_persistent_all_the_same(tmp_path: Path) -> None:
    """The app goes live without it, and every upload answers 500."""
    code = "from flask import Flask\napp = Flask(__name__)\napp.config['UPLOAD_FOLDER'] = 'static/pictures'\n"
    files = {"wsgi.py": code + "open('time.json', 'w')\n", "static/pictures/default.JPG": "", "time.json": "{}"}
    found = scan(write(tmp_path / "app", files))
    kept = "is kept when a release goes live; each machine has its own"
    copied = "What the app brings there is copied once, and a later release does not replace it"
    assert (found.persistent, found.warnings) == (("static/pictures", "time.json"), ())
    assert found.notes == (
        f"wsgi.py:3 writes static/pictures, so static/pictures {kept}. {copied}",
        f"wsgi.py:4 writes time.json, so time.json {kept}. {copied}",
    )


def test_a_database_that_is_shipped_becomes_persistent_all_the_same(tmp_path: Path) -> None:
    """Every page that writes would answer 500 without it."""
    found = scan(write(tmp_path / "app", {"wsgi.py": f"{HEAD}sqlite3.connect('site.db')\n", "site.db": "data"}))
    assert (found.persistent, found.warnings) == (("site.db",), ())
    assert found.notes == (
        f"wsgi.py:{LINES + 1} writes site.db, so site.db is kept when a release goes live; each machine has its own."
        " What the app brings there is copied once, and a later release does not replace it",
    )


def test_a_database_that_the_code_only_names_is_left_alone_where_it_is_shipped(tmp_path: Path) -> None:
    """It may be one that the app only reads, and a later release has to replace it."""
    code = "from os.path import dirname, join\nfile = join(dirname(__file__), 'db', 'a.sqlite')\n"
    files = {"wsgi.py": code, "db/a.sqlite": "", "db/schema.sql": ""}
    assert paths(scan(write(tmp_path / "app", files))) == []


def test_a_new_database_beside_shipped_files_is_kept_without_them(tmp_path: Path) -> None:
    code = "import sqlite3\nsqlite3.connect('db/a.sqlite')\n"
    found = scan(write(tmp_path / "app", {"wsgi.py": code, "db/schema.sql": "", "db/.gitkeep": ""}))
    assert (found.persistent, found.warnings) == (("db/a.sqlite",), ())


def test_a_path_that_cannot_be_persistent_is_only_named(tmp_path: Path) -> None:
    found = scan(write(tmp_path / "app", {"wsgi.py": "import os\nos.mkdir('static')\n", "static/a.css": ""}))
    assert (found.persistent, paths(found)) == ((), ["static"])


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("open('x.json', 'w')", "x.json"),
        ("open('logs/x.log', mode='a')", "logs"),
        ("open(f'logs/{name}.log', 'ab')", "logs"),
        ("with io.open('data/' + name, 'x') as f: pass", "data"),
        ("os.mkdir('logs')", "logs"),
        ("os.makedirs(os.path.join(basedir, 'var', 'cache'), exist_ok=True)", "var/cache"),
        ("def f():\n    folder = 'out'\n    os.makedirs(folder)", "out"),
        ("Path('x/y').mkdir(parents=True)", "x/y"),
        ("(BASE / 'state.json').write_text('')", "state.json"),
        ("BASE.joinpath('data', 'a').write_bytes(b'')", "data"),
        ("Path(__file__).parents[0].joinpath('a').mkdir()", "a"),
        ("(BASE / 'x.log').open('w')", "x.log"),
        ("pathlib.Path('run', 'pid').touch()", "run"),
        ("RotatingFileHandler('logs/app.log', maxBytes=1)", "logs"),
        ("logging.FileHandler(filename='app.log')", "app.log"),
        ("logging.basicConfig(filename='app.log')", "app.log"),
        ("shutil.copy('a', 'kept/b')", "kept"),
        ("sqlite3.connect('site.db')", "site.db"),
        ("sqlite3.connect(join(dirname(abspath(__file__)), 'db', 'site.db'))", "db"),
        ("create_engine('sqlite:///site.db')", "site.db"),
        ("create_engine('sqlite:///' + join(basedir, 'a.sqlite'))", "a.sqlite"),
        ("app.config['UPLOAD_FOLDER'] = 'static/uploads'", "static/uploads"),
        ("app.config['UPLOAD_FOLDER'] = os.path.join(app.root_path, 'uploads')", "uploads"),
        ("app.config.update(UPLOAD_FOLDER=os.path.join(os.getcwd(), 'up'))", "up"),
        ("app.config.from_mapping(SESSION_FILE_DIR='sessions')", "sessions"),
        ("UPLOAD_FOLDER = os.environ.get('UPLOADS', 'uploads')", "uploads"),
        ("class Config:\n    UPLOADED_PHOTOS_DEST = 'photos'", "photos"),
        ("class C:\n    SQLALCHEMY_DATABASE_URI = os.environ.get('X') or 'sqlite:///' + join(basedir, 'a.db')", "a.db"),
        ("app.config['SQLALCHEMY_DATABASE_URI'] = f'sqlite:///{BASE / \"a.db\"}'", "a.db"),
        ("def v(f):\n    f.save(os.path.join('static', 'img', f.filename))", "static/img"),
        ("def v(f):\n    f.save(os.path.join(app.config['FOLDER'], f.filename))\napp.config['FOLDER'] = 'up'", "up"),
        ("def v(frame):\n    frame.to_csv('out/a.csv')", "out"),
        ("if not app.debug:\n    if not os.path.exists('logs'):\n        os.mkdir('logs')", "logs"),
        ("open('{}/{}.csv'.format('out', name), 'w')", "out"),
        ("open('%s/%s.csv' % ('out', name), 'w')", "out"),
        ("create_engine('sqlite:///{}'.format(join(basedir, 'a.db')))", "a.db"),
        ("create_engine('sqlite:///%s' % (BASE / 'a.db').as_posix())", "a.db"),
        ("create_engine(os.environ.get('U', f'sqlite:///{BASE}/a.db').replace('postgres:', 'postgresql:'))", "a.db"),
        ("name = 'a.txt'.replace('a', 'b')\nopen(name, 'w')", "b.txt"),
        ("name = 'a.txt'\nif x:\n    name = name.replace('a', 'b')\nopen(name, 'w')", "b.txt"),
        (f"url = os.getenv('U', f'sqlite:///{{BASE}}/a.db')\n{HEROKU}SQLALCHEMY_DATABASE_URI = url", "a.db"),
        ("url = os.getenv('U')\nif not url:\n    url = f'sqlite:///{BASE}/a.db'\n"
         f"{HEROKU}SQLALCHEMY_DATABASE_URI = url", "a.db"),
        ("if WIN:\n    start = 'sqlite:///'\nelse:\n    start = 'sqlite:////'\n"
         "SQLALCHEMY_DATABASE_URI = start + join(basedir, 'a.db')", "a.db"),
        ("if __name__ == '__main__':\n    app.run()\nelse:\n    os.mkdir('logs')", "logs"),
        ("class A:\n    URL: str = cast(x)\n    if not URL:\n        URL = f'sqlite:///{BASE}/a.db'", "a.db"),
        ("CACHE_DIR = join(dirname(__file__), 'x', os.pardir, 'cache', os.curdir)", "cache"),
        ("def setup():\n    file = join(dirname(__file__), 'db', 'a.sqlite')\n    models.connect(file)", "db"),
    ],
)  # fmt: skip
def test_code_that_writes_into_the_app_folder_is_found(tmp_path: Path, code: str, path: str) -> None:
    assert found(tmp_path, code) == [path]


@pytest.mark.parametrize(
    "code",
    [
        "open('x.json')",
        "open('x.json', 'rb')",
        "open('/tmp/x', 'w')",
        "open(os.path.join(os.environ['DATA_DIR'], 'x'), 'w')",
        "open(os.path.join(os.environ.get('DATA_DIR', 'data'), 'x'), 'w')",
        "open(os.path.join(app.instance_path, 'x'), 'w')",
        "os.makedirs(app.instance_path)",
        "os.makedirs('instance/files')",
        "open(name, 'w')",
        "def f(folder='logs'):\n    os.mkdir(folder)",
        "for folder in ('a', 'b'):\n    os.mkdir(folder)",
        "sqlite3.connect(':memory:')",
        "sqlite3.connect('file:x?mode=ro', uri=True)",
        "create_engine('sqlite://')",
        "create_engine('postgresql://x/y')",
        "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///site.db'",
        "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:////var/lib/x.db'",
        "class TestConfig:\n    SQLALCHEMY_DATABASE_URI = 'sqlite:///' + join(basedir, 'test.db')",
        "UPLOAD_FOLDER = '/srv/uploads'",
        "UPLOAD_FOLDER = os.environ['UPLOADS']",
        "UPLOAD_EXTENSIONS = ['.jpg']",
        "form.save('draft')",
        "form.save(commit=False)",
        "zip.open('x', 'w')",
        "if __name__ == '__main__':\n    os.mkdir('logs')",
        "@app.cli.command('seed')\ndef seed():\n    open('seed.json', 'w')",
        "open(os.path.join(basedir, name), 'w')",
        "open('counter', 'w')",
        "open('../outside', 'w')",
        "open('{}{}'.format('a.txt'), 'w')",
        "open('%s.txt' % ('a', 'b'), 'w')",
        "name = 'a.txt'\nif x:\n    name = 'b.txt'\nopen(name, 'w')",
        "name = None\nif x:\n    name = '/srv/b.txt'\nopen(name, 'w')",
        "database = 'a.db'",
        "database = join(DATA, 'a.db')",
        "if __name__ == '__main__':\n    database = join(basedir, 'a.db')",
    ],
)
def test_other_code_gives_no_warning(tmp_path: Path, code: str) -> None:
    assert found(tmp_path, code) == []


def test_what_is_persistent_already_gives_no_warning(tmp_path: Path) -> None:
    code = "os.mkdir('logs')\nopen('data/a/b.json', 'w')\nos.mkdir('logs2')"
    assert found(tmp_path, code, "logs", "data") == ["logs2"]


def test_variables_that_are_set_have_precedence_over_defaults(tmp_path: Path) -> None:
    code = "UPLOAD_FOLDER = os.environ.get('UPLOADS', 'uploads')\nopen(os.getenv('LOG') or 'a.log', 'w')"
    assert found(tmp_path, code, options=AppOptions(env={"UPLOADS": "/srv/x"})) == ["a.log"]
    assert found(tmp_path, code, options=AppOptions(env={"UPLOADS": "other"})) == ["other", "a.log"]
    assert found(tmp_path, code, options=AppOptions(secret_names=frozenset({"LOG", "UPLOADS"}))) == []
    database = "SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_URL') or 'sqlite:///' + join(basedir, 'a.db')"
    assert found(tmp_path, database) == ["a.db"]
    chosen = (
        "if 'DATABASE_URL' in os.environ:\n    url = 1\nelse:\n    SQLALCHEMY_DATABASE_URI = f'sqlite:///{BASE}/a.db'"
    )
    assert found(tmp_path, chosen) == ["a.db"]
    for code in (database, chosen):
        assert found(tmp_path, code, options=AppOptions(secret_names=frozenset({"DATABASE_URL"}))) == []
        assert found(tmp_path, code, options=AppOptions(env={"DATABASE_URL": "postgresql://x"})) == []
        assert found(tmp_path, code, options=AppOptions(env={"DATABASE_URL": "sqlite:////srv/x.db"})) == []
    url = "URL = f'sqlite:///{BASE}/a.db'"
    assert found(tmp_path, url) == ["a.db"]
    assert found(tmp_path, url, options=AppOptions(secret_names=frozenset({"DATABASE_URL"}))) == []
    old = "flask-sqlalchemy==2.3.2\n"
    own = AppOptions(env={"DATABASE_URL": "sqlite:///own.db"})
    assert found(tmp_path, database, options=own, requirements=old) == ["own.db"]


def test_an_old_flask_sqlalchemy_puts_the_database_beside_the_code(tmp_path: Path) -> None:
    code = "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///site.db'"
    assert found(tmp_path, code, requirements="Flask-SQLAlchemy==3.1.1\n") == []
    assert found(tmp_path, code, requirements="flask\nFlask-SQLAlchemy==2.5.1\n") == ["site.db"]
    files = {
        "wsgi.py": "from shop import app",
        "shop/__init__.py": f"from flask import Flask\napp = Flask(__name__)\n{code}",
    }
    assert paths(scan(write(tmp_path / "app", files))) == ["shop/site.db"]


def test_modules_that_the_app_does_not_import_are_left_out(tmp_path: Path) -> None:
    made = "import os\nos.mkdir('from_{}')\n"
    files = {
        "wsgi.py": "from shop.web import app\nimport util\n",
        "shop/__init__.py": "from . import views\n" + made.format("init"),
        "shop/web.py": "from .parts.deep import x\n" + made.format("web"),
        "shop/views.py": "from ..outside import y\n" + made.format("views"),
        "shop/parts/deep.py": "from shop.lazy import z\nimport broken\n" + made.format("deep"),
        "shop/lazy.py": made.format("lazy"),
        "shop/other.py": made.format("other"),
        "util.py": made.format("util"),
        "broken.py": "def",
        "scripts/load.py": made.format("load"),
        "tests/test_a.py": made.format("tests"),
    }
    app = write(tmp_path / "app", files)
    assert sorted(paths(scan(app))) == [f"from_{name}" for name in ("deep", "init", "lazy", "util", "views", "web")]


def test_a_configuration_that_is_named_by_a_text_is_read(tmp_path: Path) -> None:
    files = {
        "wsgi.py": "def create(config='shop.config.Live'):\n    app.config.from_object(config)\n",
        "shop/config.py": "class Live:\n    UPLOAD_FOLDER = 'up'\n",
        "other.py": "import os\nos.mkdir('other')\n",
        "text.py": "TEXT = 'other.a'\n",
    }
    assert paths(scan(write(tmp_path / "app", files))) == ["up"]


def test_relative_paths_start_from_the_apps_current_folder(tmp_path: Path) -> None:
    files = {
        "backend/main.py": "from lib import x\nopen('a.log', 'w')\n",
        "lib/lib.py": "import os\nos.mkdir('logs')\n",
    }
    app = write(tmp_path / "app", files)
    assert paths(scan(app, entry="main:app", chdir="backend", pythonpath="lib")) == ["backend/a.log", "backend/logs"]


def test_a_folder_that_holds_code_is_not_made_writable_for_one_file(tmp_path: Path) -> None:
    files = {
        "wsgi.py": "import shop\n", "static/a.css": "", "counter": "",
        "shop/__init__.py": "from pathlib import Path\nhere = Path(__file__).parent\n"
        "(here / 'a.db').touch()\nopen('static/b.json', 'w')\nopen('counter', 'w')\n(here / 'data' / 'c').touch()\n",
    }  # fmt: skip
    app = write(tmp_path / "app", files)
    assert sorted(paths(scan(app))) == ["counter", "shop/a.db", "shop/data", "static/b.json"]


def test_one_command_is_enough_for_a_folder_and_what_is_in_it(tmp_path: Path) -> None:
    assert found(tmp_path, "open('data/a/b.json', 'w')\nos.makedirs('data')\nopen('data/c.json', 'w')") == ["data"]
