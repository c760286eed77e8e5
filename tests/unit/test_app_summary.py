"""What was understood of an app, as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decant.app.folder import read_app
from decant.app.model import App, AppOptions, Packages, Python, WebProcess
from decant.app.summary import describe
from tests.support.app_folders import PLAIN, write

APP = App(
    folder=Path("/somewhere/shop"),
    web=WebProcess(wsgi_app="wsgi:app", why="wsgi.py"),
    python=Python(version="3.13", why="the machines' own", system=True),
    packages=Packages(why="requirements.txt", install=(), files=(), hashed=True),
    debian_packages=(),
    persistent=(),
    static=None,
    notes=(),
    warnings=("a warning is shown elsewhere",),
)


def test_the_least_app_in_six_lines() -> None:
    assert describe(APP) == (
        "The app in shop/:",
        "  entry point  wsgi:app (wsgi.py)",
        "  Python       3.13 (the machines' own)",
        "  packages     requirements.txt, with hashes",
        "  web          gunicorn",
        "  may write    $DATA_DIR",
        "  static       no static folder that nginx could serve",
    )


def test_everything_that_an_app_can_say() -> None:
    app = replace(
        APP,
        web=WebProcess(
            wsgi_app="shop:create_app()",
            why="the web: line of Procfile",
            gunicorn={"workers": 2, "chdir": "src", "pythonpath": ["a", "b"], "raw_env": ["KEY=canary"]},
            config_file="gunicorn.conf.py",
            wrapper=("newrelic-admin", "run-program"),
            env={"Z_KEY": "canary", "A": "canary"},
            release_command="flask  db\nupgrade",
        ),
        python=Python(version="3.12", why=".python-version", system=False),
        packages=Packages(why="uv.lock", install=(), files=(), hashed=False),
        debian_packages=("libmagic1", "ffmpeg"),
        persistent=("instance", "uploads"),
        static="public",
        notes=("one.", "two."),
    )
    lines = describe(app, build="npm ci && " + "x" * 200)
    assert lines == (
        "The app in shop/:",
        "  entry point  shop:create_app() (the web: line of Procfile)",
        "  Python       3.12 (.python-version)",
        "  packages     uv.lock, without hashes",
        "  Debian       libmagic1, ffmpeg",
        "  web          newrelic-admin run-program gunicorn chdir=src pythonpath=a,b workers=2 with gunicorn.conf.py;"
        " sets A, Z_KEY",
        "  release      flask db upgrade (once, before a release gets traffic)",
        f"  build        npm ci && {'x' * 87}... (where pulumi runs)",
        "  may write    $DATA_DIR, instance, uploads",
        "  static       public/, which nginx serves under /static/",
        "  note: one.",
        "  note: two.",
    )
    assert "canary" not in "".join(lines)


def test_the_same_folder_gives_the_same_text(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name / "app", PLAIN) for name in "ab")
    assert describe(read_app(one, AppOptions())) == describe(read_app(two, AppOptions()))
