"""The Procfile of an app: its entry point, release command and other processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from tests.support.app_folders import LOCKED, problems, write

SHOP = {"requirements.txt": LOCKED, "shop.py": "", "wsgi.py": "", "pkg/__init__.py": "", "pkg/web.py": ""}
PROCFILES = {
    "gunicorn shop:app": "shop:app",
    "gunicorn shop": "shop",
    "gunicorn pkg:app": "pkg:app",
    "gunicorn pkg.web:app.wsgi": "pkg.web:app.wsgi",
    "gunicorn shop:create_app()": "shop:create_app()",
    "gunicorn 'shop:create_app()'": "shop:create_app()",
    "gunicorn \"shop:create_app(testing=False, name='x y')\"": "shop:create_app(testing=False, name='x y')",
    "gunicorn shop:app --log-file -": "shop:app",
    "gunicorn shop:app --log-file=-": "shop:app",
    "gunicorn --log-file - shop:app": "shop:app",
    "gunicorn -k gthread shop:app": "shop:app",
    "gunicorn shop:app -k gthread": "shop:app",
    "gunicorn shop -k gthread": "shop",
    "gunicorn -k gthread shop": "shop",
    "gunicorn --worker-class gthread --threads 4 shop:app": "shop:app",
    "gunicorn -w 4 -b 0.0.0.0:$PORT shop:app": "shop:app",
    "gunicorn -b localhost:8000 shop:app": "shop:app",
    "gunicorn -w4 shop:app": "shop:app",
    "gunicorn --bind=:$PORT --workers=2 shop:app --timeout 20": "shop:app",
    "gunicorn --bind unix:/tmp/a.sock shop:app": "shop:app",
    "gunicorn -c gunicorn.conf.py shop:app": "shop:app",
    "gunicorn --config=gunicorn.conf.py shop:app": "shop:app",
    "gunicorn shop:app --config gunicorn.conf.py": "shop:app",
    "gunicorn --preload shop:app": "shop:app",
    "gunicorn --max-requests 1000 --max-requests-jitter 50 shop:app --access-logfile -": "shop:app",
    "python -m gunicorn shop:app": "shop:app",
    "./bin/gunicorn shop:app": "shop:app",
    ".venv/bin/gunicorn shop:app": "shop:app",
    "newrelic-admin run-program gunicorn shop:app": "shop:app",
    "WEB_CONCURRENCY=2 gunicorn shop:app": "shop:app",
    "exec gunicorn shop:app": "shop:app",
}


@pytest.mark.parametrize(("web", "entry"), PROCFILES.items())
def test_the_entry_point_is_gunicorns_application_argument(tmp_path: Path, web: str, entry: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), AppOptions()).web.wsgi_app == entry


def test_without_a_web_line_the_entry_point_is_wsgi_app(tmp_path: Path) -> None:
    assert read_app(write(tmp_path / "a", SHOP), AppOptions()).web.wsgi_app == "wsgi:app"
    assert read_app(write(tmp_path / "b", {**SHOP, "Procfile": ""}), AppOptions()).web.wsgi_app == "wsgi:app"
    only = {"Procfile": "release: flask db upgrade\n"}
    assert read_app(write(tmp_path / "c", {**SHOP, **only}), AppOptions()).web.wsgi_app == "wsgi:app"
    package = {"requirements.txt": LOCKED, "wsgi/__init__.py": ""}
    assert read_app(write(tmp_path / "d", package), AppOptions()).web.wsgi_app == "wsgi:app"


WRONG_PROCFILES = {
    "web: uvicorn shop:app": "web: runs uvicorn, but Decant runs gunicorn",
    "web: python shop.py": "web: runs python, but Decant runs gunicorn",
    "web: flask run": "web: runs flask, but Decant runs gunicorn",
    "web:": "web: runs nothing, but Decant runs gunicorn",
    "web: gunicorn": "names no application, such as wsgi:app",
    "web: gunicorn --workers 4": "names no application, such as wsgi:app",
    "web: gunicorn -k gthread --log-file -": "names no application, such as wsgi:app",
    "web: gunicorn 'shop:app": "the web: line cannot be read (No closing quotation)",
    "web gunicorn shop:app": "'web gunicorn shop:app' is not of the form `name: command`",
    "we b: gunicorn shop:app": "is not of the form `name: command`",
    "web: gunicorn nowhere:app": "nowhere:app needs nowhere.py or nowhere/__init__.py",
    "web: gunicorn pkg.nowhere:app": "needs pkg/nowhere.py or pkg/nowhere/__init__.py",
}


@pytest.mark.parametrize(("line", "message"), WRONG_PROCFILES.items())
def test_a_wrong_line_is_a_problem(tmp_path: Path, line: str, message: str) -> None:
    (problem,) = problems(write(tmp_path / "app", {**SHOP, "Procfile": line + "\n"}))
    assert message in problem


def test_comments_spaces_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    text = "# a comment\r\n\r\n  # another\nweb:   gunicorn shop:app\r\nrelease :  flask db upgrade --yes: now \n"
    app = read_app(write(tmp_path / "app", {**SHOP, "Procfile": text}), AppOptions())
    assert app.web.wsgi_app == "shop:app"
    assert app.web.release_command == "flask db upgrade --yes: now"
    assert app.warnings == ()


def test_other_processes_are_warned_about(tmp_path: Path) -> None:
    text = "web: gunicorn shop:app\nworker: rq worker\nclock: python clock.py\n"
    app = read_app(write(tmp_path / "app", {**SHOP, "Procfile": text}), AppOptions())
    assert [w.split(" line")[0] for w in app.warnings] == ["Procfile: the clock:", "Procfile: the worker:"]
    assert app.web.release_command is None


def test_a_procfile_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    assert len(problems(write(tmp_path / "app", {**SHOP, "Procfile": b"web: \xff\xfe\n"}))) == 1


# `shop` means shop:application to gunicorn. It follows an option with its value, or a switch.
@pytest.mark.parametrize("web", ["gunicorn --workers=3 shop", "gunicorn --log-file=- shop", "gunicorn --preload shop"])
def test_a_module_alone_is_an_application(tmp_path: Path, web: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), AppOptions()).web.wsgi_app == "shop"


# The application is the first argument that is neither an option nor the value of one.
@pytest.mark.parametrize("web", ["gunicorn shop:app --bind unix:shop", "gunicorn shop:app --logger-class pkg.web:Log",
                                 "gunicorn shop:app -k pkg.web:Worker"])  # fmt: skip
def test_the_value_of_an_option_is_not_the_application(tmp_path: Path, web: str) -> None:
    assert (
        read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), AppOptions()).web.wsgi_app
        == "shop:app"
    )
