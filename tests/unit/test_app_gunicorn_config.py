"""gunicorn's configuration file in an app: read here as far as its values are written out, and run on machines."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.web_lines import FLASK, refused, web

APP = {"app.py": FLASK}
CONFIG = """
import multiprocessing
bind = "0.0.0.0:8000"
accesslog = "-"
timeout = 120
threads = 4
workers = multiprocessing.cpu_count()
raw_env = ["A=1", "B=2"]
if multiprocessing:
    keepalive = 5
max_requests = 10
max_requests = 20
statsd_host = "localhost:8125"
unknown = 5
def post_fork(server, worker):
    pass
"""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("gunicorn -c conf.py app:app", "conf.py"),
        ("gunicorn app:app --config=./conf.py", "conf.py"),
        ("gunicorn -c file:conf/prod.py app:app", "conf/prod.py"),
        ("gunicorn -c /app/conf/prod.py app:app", "conf/prod.py"),
        ("gunicorn -c python:conf.prod app:app", "conf/prod.py"),
        ("gunicorn app:app", "gunicorn.conf.py"),
        ("cd web && gunicorn -c conf.py app:app", "web/conf.py"),
        ("cd web && gunicorn app:app", "web/gunicorn.conf.py"),
        ("gunicorn --chdir web -c conf.py app:app", "conf.py"),
        ("gunicorn --chdir web app:app", "gunicorn.conf.py"),
        (None, "gunicorn.conf.py"),
    ],
)
def test_the_file_is_the_one_that_gunicorn_would_read(tmp_path: Path, line: str | None, name: str) -> None:
    files = {**APP, "web/app.py": FLASK, "conf/__init__.py": "", name: CONFIG}
    found = web(tmp_path, line, files)
    assert found.config_file == name
    assert found.gunicorn["timeout"] == 120


def test_values_that_are_written_out_are_known_before_a_machine_runs_the_file(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn --threads 9 --env B=3 app:app", {**APP, "gunicorn.conf.py": CONFIG})
    assert dict(found.gunicorn) == {"timeout": 120, "threads": 9}
    assert dict(found.env) == {"A": "1", "B": "3"}
    assert found.notes == (
        "gunicorn.conf.py: bind has no effect: nginx alone reaches gunicorn, at a socket of the release's own",
        "gunicorn.conf.py: accesslog has no effect: gunicorn logs to the journal, and nginx writes the access log",
    )


def test_the_file_may_name_the_application(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn", {**APP, "gunicorn.conf.py": "wsgi_app = 'app:app'\n"})
    assert (found.wsgi_app, found.why) == ("app:app", "the web: line of Procfile")
    found = web(tmp_path, "gunicorn other:app", {**APP, "other.py": FLASK})
    assert found.wsgi_app == "other:app"


@pytest.mark.parametrize(
    ("line", "config", "message", "fix"),
    [
        ("gunicorn -c no.py app:app", "", "has no file no.py, which gunicorn's --config names", "in app/Procfile: web: the line without --config"),
        ("gunicorn -c /etc/x.py app:app", "", "has no file /etc/x.py", "without --config"),
        ("gunicorn -c ../x.py app:app", "", "has no file ../x.py", "without --config"),
        ("gunicorn -c python:no.such app:app", "", "has no module no.such, which gunicorn's --config names", "without --config"),
        ("gunicorn app:app", "paste = 'x.ini'\n", "gunicorn.conf.py: paste cannot be used: it names a PasteDeploy file", "remove paste from gunicorn.conf.py"),
        ("gunicorn app:app", "worker_class = 'uvicorn.workers.UvicornWorker'\n", "gunicorn.conf.py: worker_class: uvicorn.workers.UvicornWorker is for ASGI", "mend worker_class in app/gunicorn.conf.py"),
        ("gunicorn app:app", "timeout = 'long'\n", "gunicorn.conf.py: timeout: long is no value that gunicorn takes", "mend timeout in app/gunicorn.conf.py"),
        ("gunicorn app:app", "def (\n", "gunicorn.conf.py cannot be read: ", "mend app/gunicorn.conf.py"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, line: str, config: str, message: str, fix: str) -> None:
    files = {**APP, **({"gunicorn.conf.py": config} if config else {})}
    problem = refused(tmp_path, line, files)
    assert problem[0].startswith(message)
    assert fix in problem[1]
