"""The entry point: found as Flask finds it, or checked where it is named."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.entry_point import Candidate, find, find_all, flask_app, line_for
from tests.support.app_folders import write
from tests.support.web_lines import FACTORY, FLASK, STRICT_FACTORY, refused, web

LATE = "from shop import create_app\napp = create_app()\n"
FOUND: list[tuple[dict[str, str], str, str, dict[str, str]]] = [
    ({"app.py": FLASK}, "app:app", "app.py", {}),
    ({"wsgi.py": FLASK, "app.py": FLASK}, "wsgi:app", "wsgi.py", {}),
    ({"wsgi.py": "from app import app as application\n", "app.py": FLASK}, "wsgi:application", "wsgi.py", {}),
    ({"wsgi.py": LATE.replace("app =", "application ="), "shop.py": FACTORY}, "wsgi:application", "wsgi.py", {}),
    ({"wsgi.py": FACTORY}, "wsgi:create_app()", "wsgi.py", {}),
    ({"application.py": FLASK.replace("app =", "application =")}, "application:application", "application.py", {}),
    ({"main.py": FLASK}, "main:app", "main.py", {}),
    ({"wsgi.py": "def app(environ, start_response):\n    return []\n"}, "wsgi:app", "wsgi.py", {}),
    ({"run.py": LATE, "shop/__init__.py": FACTORY}, "run:app", "run.py", {}),
    ({"server.py": FLASK}, "server:app", "server.py", {}),
    ({"index.py": FLASK.replace("app =", "site =")}, "index:site", "index.py", {}),
    ({"app.py": FLASK.replace("app =", "app: Flask =")}, "app:app", "app.py", {}),
    ({"app.py": f"try:\n    import x\nexcept ImportError:\n    x = None\nif True:\n    {FLASK.replace(chr(10), chr(10) + '    ')}"}, "app:app", "app.py", {}),
    ({"app.py": "class Site(Flask):\n    pass\nsite = Site(__name__)\n"}, "app:site", "app.py", {}),
    ({"app.py": "import flask\na = flask.Flask('a')\napp = DispatcherMiddleware(a, {})\n"}, "app:app", "app.py", {}),
    ({"app.py": "import dash\napp = dash.Dash()\nserver = app.server\n"}, "app:server", "app.py", {}),
    ({"app.py": FACTORY.replace("create_app", "make_app")}, "app:make_app()", "app.py", {}),
    ({"hello.py": FLASK, "setup.py": FLASK, "test_hello.py": FLASK}, "hello:app", "hello.py", {}),
    ({"blog.py": "import flask\nfrom pkg import create_app\napp = create_app()\n", "pkg/__init__.py": FACTORY}, "blog:app", "blog.py", {}),
    ({"flaskr/__init__.py": FACTORY, "tests/__init__.py": FACTORY}, "flaskr:create_app()", "flaskr/__init__.py", {}),
    ({"app/__init__.py": FLASK, "app.py": "x = 1\n"}, "app:app", "app/__init__.py", {}),
    ({"shop/__init__.py": FACTORY, "shop/wsgi.py": LATE}, "shop.wsgi:app", "shop/wsgi.py", {}),
    ({"shop/__init__.py": "", "shop/app.py": FLASK}, "shop.app:app", "shop/app.py", {}),
    ({"shop/__init__.py": "from .site import app\n", "shop/site.py": FLASK}, "shop:app", "shop/__init__.py", {}),
    ({"src/app.py": FLASK}, "app:app", "src/app.py", {"pythonpath": "src"}),
    ({"src/shop/__init__.py": FACTORY}, "shop:create_app()", "src/shop/__init__.py", {"pythonpath": "src"}),
    ({".flaskenv": "FLASK_APP=my-shop.py\n", "my-shop.py": FLASK}, "my-shop:app", ".flaskenv: my-shop.py", {}),
    ({".flaskenv": "FLASK_APP=shop\n", "shop.py": FLASK, "app.py": FLASK}, "shop:app", ".flaskenv: shop", {}),
    ({"gunicorn.conf.py": "wsgi_app = 'shop:app'\n", "shop.py": FLASK, "app.py": FLASK}, "shop:app", "gunicorn.conf.py", {}),
]  # fmt: skip


@pytest.mark.parametrize(("files", "app", "why", "gunicorn"), FOUND, ids=lambda v: v if isinstance(v, str) else "")
def test_the_application_is_found(
    tmp_path: Path, files: dict[str, str], app: str, why: str, gunicorn: dict[str, str]
) -> None:
    found = web(tmp_path, None, files)
    assert (found.wsgi_app, found.why, dict(found.gunicorn)) == (app, why, gunicorn)


def test_flask_app_of_the_settings_is_served(tmp_path: Path) -> None:
    files = {"shop.py": FACTORY, "app.py": FLASK}
    found = web(tmp_path, None, files, env={"FLASK_APP": "shop:create_app('dev')"})
    assert (found.wsgi_app, found.why) == ("shop:create_app('dev')", "FLASK_APP: shop:create_app('dev')")


@pytest.mark.parametrize(
    ("value", "files", "expected"),
    [
        ("shop", {"shop.py": FLASK}, Candidate(app="shop:app", file="shop.py", root=".")),
        ("shop.py", {"shop.py": FLASK}, Candidate(app="shop:app", file="shop.py", root=".")),
        ("shop:create_app", {"shop.py": FACTORY}, Candidate(app="shop:create_app()", file="shop.py", root=".")),
        ("src/shop.py", {"src/shop.py": FLASK}, Candidate(app="shop:app", file="src/shop.py", root="src")),
        ("pkg/web.py", {"pkg/__init__.py": "", "pkg/web.py": FLASK}, Candidate(app="pkg.web:app", file="pkg/web.py", root=".")),
        ("pkg/__init__.py", {"pkg/__init__.py": FLASK}, Candidate(app="pkg:app", file="pkg/__init__.py", root=".")),
        ("shop", {"src/shop.py": FLASK}, Candidate(app="shop:app", file="src/shop.py", root="src")),
        ("nothing", {"shop.py": FLASK}, None),
        ("shop", {"shop.py": "x = 1\n"}, None),
    ],
)  # fmt: skip
def test_flask_app_names_files_and_modules(
    tmp_path: Path, value: str, files: dict[str, str], expected: Candidate | None
) -> None:
    assert flask_app(write(tmp_path, files), value) == expected


def test_other_candidates_are_named(tmp_path: Path) -> None:
    found = web(tmp_path, None, {"app.py": FLASK, "main.py": FLASK, "shop/__init__.py": FACTORY})
    assert found.notes == (
        "app:app is served, and main:app, shop:create_app() is not."
        " To choose another one: pulumi config set decant:wsgiApp 'main:app'",
    )


NOTHING: list[tuple[dict[str, str], str, str]] = [
    ({"run.py": FLASK, "server.py": FLASK}, "has several applications that could be meant: run:app (run.py), server:app (server.py)", "pulumi config set decant:wsgiApp 'run:app', or in app/Procfile: web: gunicorn run:app"),
    ({"a/__init__.py": FLASK, "b/__init__.py": FACTORY}, "a:app (a/__init__.py), b:create_app() (b/__init__.py)", "decant:wsgiApp 'a:app'"),
    ({"backend/app.py": FLASK}, "has no entry point; backend/app.py has one, in a folder of its own", "in app/Procfile: web: gunicorn --chdir backend app:app"),
    ({"examples/one/app.py": FLASK}, "has no entry point; examples/one/app.py has one, in a folder of its own", "gunicorn --chdir examples/one app:app"),
    ({"scripts/app.py": FLASK}, "has no Flask application: no wsgi.py, app.py, main.py or package with one", "pulumi config set decant:app FOLDER, with a Flask app in it"),
    ({"scripts/app.py": FLASK, "x/tests/app.py": FLASK, "zoo/app.py": FLASK}, "zoo/app.py has one, in a folder of its own", "gunicorn --chdir zoo app:app"),
    ({"shop.py": STRICT_FACTORY}, "has no entry point; shop has create_app, which needs config", "in app/Procfile: web: gunicorn \"shop:create_app('CONFIG')\""),
    ({"main.py": "from fastapi import FastAPI\napp = FastAPI()\n"}, "main:app is an ASGI application, and Decant serves WSGI alone", "pulumi config set decant:app FOLDER, with a Flask app in it"),
    ({"app.py": "import dash\napp = dash.Dash()\n"}, "app:app is a Dash object and no WSGI application", "add to app/app.py: server = app.server"),
    ({"app.py": "app = 5\n", "cli.py": "import typer\napp = typer.Typer()\n"}, "has no entry point: no wsgi.py, app.py, main.py or package with an application", "in app/Procfile: web: gunicorn MODULE:NAME"),
    ({"README": ""}, "has no entry point: no wsgi.py", "in app/Procfile: web: gunicorn MODULE:NAME"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "message", "fix"), NOTHING)
def test_where_it_is_not_sure_the_candidates_and_remedies_are_named(
    tmp_path: Path, files: dict[str, str], message: str, fix: str
) -> None:
    problem = refused(tmp_path, None, files)
    assert message in problem[0]
    assert fix in problem[1]


HERE = "in app/Procfile: web: "
WRONG: list[tuple[str, dict[str, str], str, str]] = [
    ("gunicorn wsgi", {"wsgi.py": FLASK}, "wsgi means wsgi:application to gunicorn, and wsgi.py has no application (it has app)", HERE + "gunicorn wsgi:app"),
    ("gunicorn -w 2 app:server", {"app.py": FLASK}, "app:server: app.py has no server (it has app)", HERE + "gunicorn -w 2 app:app"),
    ("gunicorn app:app", {"app.py": "import os\n"}, "app:app: app.py has no app (it has no object of its own)", HERE + "gunicorn app:NAME"),
    ("gunicorn app:app", {"main.py": FLASK}, "app:app needs app.py or app/__init__.py, and there is none", HERE + "gunicorn main:app"),
    ("gunicorn --chdir src app:app", {"src/main.py": FLASK}, "app:app needs app.py or app/__init__.py in src, ., and there is none", HERE + "gunicorn --chdir src main:app"),
    ("cd src && gunicorn -w 2 shop:app", {"shop.py": FLASK, "src/x.py": ""}, "shop:app needs shop.py or shop/__init__.py in src, and there is none", HERE + "gunicorn -w 2 shop:app"),
    ("gunicorn --chdir lib shop:app", {"src/shop.py": FLASK, "lib/x.py": ""}, "shop:app needs shop.py or shop/__init__.py in lib, ., and there is none", HERE + "gunicorn --chdir src shop:app"),
    ("gunicorn app.py:app", {"app.py": FLASK}, "'app.py:app' is a path; gunicorn takes a module", HERE + "gunicorn app:app"),
    ("gunicorn src/app:app", {"src/app.py": FLASK}, "'src/app:app' is a path; gunicorn takes a module", HERE + "gunicorn src.app:app"),
    ("gunicorn app:create_app", {"app.py": FACTORY}, "create_app in app.py is a function that makes an application", HERE + "gunicorn 'app:create_app()'"),
    ("gunicorn 'app:create_app()'", {"app.py": STRICT_FACTORY}, "app:create_app() lacks a value for config", HERE + "gunicorn \"app:create_app('CONFIG')\""),
    ("gunicorn 'app:create_app(1, 2)'", {"app.py": FACTORY}, "app:create_app takes no such arguments", HERE + "gunicorn 'app:create_app()'"),
    ("gunicorn 'app:create_app(x=1)'", {"app.py": FACTORY}, "app:create_app takes no such arguments", HERE + "gunicorn 'app:create_app()'"),
    ("gunicorn 'app:create_app(os.environ)'", {"app.py": FACTORY}, "'create_app(os.environ)' is no name or call", HERE + "gunicorn app:app"),
    ("gunicorn app:app.wsgi", {"app.py": FLASK}, "'app.wsgi' is no name or call", HERE + "gunicorn app:app"),
    ("gunicorn shop:app", {"shop/__init__.py": "", "shop/app.py": FLASK}, "shop:app is a module and no application", HERE + "gunicorn shop.app:app"),
    ("gunicorn main:app", {"main.py": "from fastapi import FastAPI\napp = FastAPI()\n"}, "main.py: app is an ASGI application", "pulumi config set decant:wsgiApp MODULE:NAME, with a Flask application"),
    ("gunicorn app:app", {"app.py": "import dash\napp = dash.Dash()\n"}, "app.py: app is a Dash object and no WSGI application", "add to app.py: server = app.server    and name app:server"),
    ("gunicorn app:app", {"app.py": FLASK + "app.run(port=80)\n"}, "app.py starts a server when it is imported", "in app.py, put that call under: if __name__ == '__main__':"),
    ("gunicorn", {"app.py": FLASK}, "names no application, such as wsgi:app", HERE + "gunicorn app:app"),
    ("gunicorn -w 4", {"src/shop.py": FLASK}, "names no application, such as wsgi:app", HERE + "gunicorn --chdir src shop:app"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "files", "message", "fix"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_gunicorn_could_not_serve_is_refused(
    tmp_path: Path, line: str, files: dict[str, str], message: str, fix: str
) -> None:
    problem = refused(tmp_path, line, files)
    assert message in problem[0]
    assert problem[1] == fix


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("app:app", "from shop import *\n"),
        ("app:app", "globals()['app'] = 5\n"),
        ("app:app", "def __getattr__(name):\n    return 5\n"),
        ("app:app", "print 'Python 2'\n"),
        ("app:app", "def start():\n    global app\n    app = 5\nstart()\n"),
        ("app:app", "with open('x') as app:\n    pass\n"),
        ("app:app", "for app in ():\n    pass\n"),
        ("app:app", "def app(environ, start_response):\n    return []\n"),
        ("app", "application = 5\n"),
        ("app:app", "from elsewhere import app\n"),
        ("app:app", "one, app = make()\n"),
        ("app:create_app('a', b=2)", "def create_app(*a, **b):\n    pass\n"),
        ("app:create_app(b=2)", "def create_app(*, b):\n    pass\n"),
        ("app:app", ""),
    ],
)
def test_what_the_source_does_not_rule_out_is_left_to_the_machine(tmp_path: Path, app: str, text: str) -> None:
    assert web(tmp_path, f'gunicorn "{app}"', {"app.py": text}).wsgi_app == app


def test_the_setting_has_precedence_and_its_errors_name_it(tmp_path: Path) -> None:
    files = {"app.py": FLASK, "shop.py": FLASK}
    found = web(tmp_path, "gunicorn -w 2 app:app", files, wsgi_app="shop:app")
    assert (found.wsgi_app, found.why, dict(found.gunicorn)) == ("shop:app", "decant:wsgiApp", {"workers": 2})
    message, fix = refused(tmp_path, "gunicorn app:app", files, wsgi_app="shop:site")
    assert message == "decant:wsgiApp: shop:site: shop.py has no site (it has app)"
    assert fix == "pulumi config set decant:wsgiApp shop:app"


def test_all_candidates_come_in_order(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": FLASK, "wsgi.py": FLASK, "pkg/__init__.py": FACTORY})
    assert [c.app for c in find_all(tmp_path)] == ["wsgi:app", "main:app", "pkg:create_app()"]
    assert [c.app for c in find(tmp_path)] == ["wsgi:app"]


def test_a_candidates_line_names_its_folder_and_quotes_its_call() -> None:
    assert line_for(Candidate(app="a:f()", file="", root="src")) == "gunicorn --chdir src 'a:f()'"
    assert line_for(Candidate(app="a:f('x')", file="", root=".")) == "gunicorn \"a:f('x')\""


def test_another_application_is_not_served_in_place_of_a_wsgi_module_without_one(tmp_path: Path) -> None:
    """A mistake in wsgi.py must not put another application live than the day before."""
    files = {"wsgi.py": "import nothing\n", "shop/__init__.py": FLASK}
    assert refused(tmp_path, None, files) == (
        "has a wsgi.py that makes no application; shop:app in shop/__init__.py is one",
        "pulumi config set decant:wsgiApp 'shop:app'",
    )
    assert web(tmp_path, None, files, wsgi_app="shop:app").wsgi_app == "shop:app"
