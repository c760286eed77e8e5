"""gunicorn's workers: classes that need a package, and apps that need exactly one process."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.web_lines import FLASK, refused, web

SOCKETS = {"app.py": "from flask_socketio import SocketIO\n" + FLASK + "io = SocketIO(app)\n"}
ONE = "Flask-SocketIO without a message queue keeps its sessions in one process, so Decant starts 1 worker"
MANY = (
    "Flask-SocketIO without a message queue needs exactly 1 worker, and {} are asked for: visitors would lose their"
    " sessions. To change that: pulumi config set decant:workers 1"
)


def test_socket_io_gets_one_worker(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn --threads 100 app:app", SOCKETS)
    assert (dict(found.gunicorn), found.notes, found.warnings) == ({"threads": 100, "workers": 1}, (ONE,), ())


@pytest.mark.parametrize(
    ("line", "options", "asked"),
    [
        ("gunicorn -w 4 app:app", {}, "4"),
        ("gunicorn app:app", {"env": {"WEB_CONCURRENCY": "3"}}, "3"),
        ("gunicorn -w 1 app:app", {"workers": 2}, "2"),
    ],
)
def test_more_workers_are_warned_about(tmp_path: Path, line: str, options: dict[str, object], asked: str) -> None:
    found = web(tmp_path, line, SOCKETS, **options)
    assert (found.notes, found.warnings) == ((), (MANY.format(asked),))


def test_a_computed_number_of_workers_is_warned_about(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn app:app", {**SOCKETS, "gunicorn.conf.py": "import os\nworkers = os.cpu_count()\n"})
    assert found.warnings == (MANY.format("the number in gunicorn.conf.py"),)


@pytest.mark.parametrize(
    ("line", "files", "options"),
    [
        ("gunicorn -w 1 app:app", SOCKETS, {}),
        ("gunicorn -w 4 app:app", SOCKETS, {"workers": 1}),
        ("gunicorn -w 4 app:app", {**SOCKETS, "io.py": "SocketIO(app, message_queue='redis://')\n"}, {}),
        ("gunicorn -w 4 app:app", {"app.py": FLASK, "venv/pyvenv.cfg": "", "venv/x.py": SOCKETS["app.py"]}, {}),
        ("gunicorn -w 4 app:app", {"app.py": FLASK, "node_modules/x.py": SOCKETS["app.py"]}, {}),
    ],
)
def test_nothing_is_said_where_there_is_no_reason(
    tmp_path: Path, line: str, files: dict[str, str], options: dict[str, object]
) -> None:
    found = web(tmp_path, line, files, **options)
    assert (found.notes, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("worker_class", "requirements", "message", "fix"),
    [
        ("gevent", "flask\n", "gunicorn's worker class gevent needs gevent, which no requirement names", "echo gevent >> app/requirements.txt"),
        ("eventlet", "flask\n", "gunicorn's worker class eventlet needs eventlet, which no requirement names", "echo eventlet >> app/requirements.txt"),
        ("eventlet", "eventlet\ngunicorn\n", "gunicorn 26 and newer have no worker class eventlet", "echo 'gunicorn<26' >> app/requirements.txt, or in app/Procfile: web: gunicorn -k gthread ..."),
        ("eventlet", "eventlet\ngunicorn==26.0.0\n", "gunicorn 26 and newer have no", "echo 'gunicorn<26'"),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "gevent\n", "needs gevent-websocket, which no requirement names", "echo gevent-websocket >> app/requirements.txt"),
        ("meinheld.gmeinheld.MeinheldWorker", "flask\n", "needs meinheld, which", "echo meinheld >> app/requirements.txt"),
    ],
)  # fmt: skip
def test_a_class_whose_package_is_missing_is_refused(
    tmp_path: Path, worker_class: str, requirements: str, message: str, fix: str
) -> None:
    problem = refused(
        tmp_path, f"gunicorn -k {worker_class} app:app", {"app.py": FLASK, "requirements.txt": requirements}
    )
    assert message in problem[0]
    assert fix in problem[1]


@pytest.mark.parametrize(
    ("worker_class", "files"),
    [
        ("gevent", {"requirements.txt": "gunicorn[gevent]\n"}),
        ("gevent", {"requirements.txt": "gevent\n"}),
        ("gevent", {"requirements.txt": "gevent==24.1\npackaging\n"}),
        ("gevent", {"requirements.txt": "gevent\ngunicorn==20.1.0\n"}),
        (
            "gevent",
            {"requirements.txt": "", "poetry.lock": 'name = "gevent"\n\nname = "gunicorn"\nversion = "21.2.0"\n'},
        ),
        ("eventlet", {"requirements.txt": "eventlet\ngunicorn<26\n"}),
        ("eventlet", {"requirements/prod.txt": "eventlet\ngunicorn >=20,<=25 # old\n"}),
        ("eventlet", {"Pipfile.lock": '{"eventlet": {}, "gunicorn": {"hashes": [], "version": "==20.0.4"}}'}),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", {"requirements.txt": "gevent-websocket\n"}),
        ("sync", {}),
        ("gthread", {}),
        ("own.Worker", {"own.py": "class Worker: pass\n"}),
        ("gunicorn.workers.gthread.ThreadWorker", {}),
    ],
)
def test_a_class_whose_package_is_there_is_used(tmp_path: Path, worker_class: str, files: dict[str, str]) -> None:
    found = web(tmp_path, f"gunicorn -k {worker_class} app:app", {"app.py": FLASK, **files})
    assert dict(found.gunicorn) == {"worker_class": worker_class}


EVENTS = {"app.py": FLASK + "import queue\nSTREAM = 'text/event-stream'\n"}
EVENTS_NOTE = (
    "server-sent events from a queue in memory reach the visitors of one process alone, so Decant starts 1 worker"
)


@pytest.mark.parametrize(
    "files",
    [
        EVENTS,
        {"app.py": FLASK + "from queue import Queue\n", "shop/live.py": "mime = 'text/event-stream'\n"},
        {"app.py": FLASK + "import json, queue\nmime = 'text/event-stream'\n"},
        {"app.py": FLASK + "mime = 'text/event-stream'\nq = gevent.queue.Queue()\n"},
    ],
)
def test_events_from_a_queue_in_memory_get_one_worker(tmp_path: Path, files: dict[str, str]) -> None:
    found = web(tmp_path, "gunicorn --threads 9 app:app", files)
    assert (dict(found.gunicorn), found.notes) == ({"threads": 9, "workers": 1}, (EVENTS_NOTE,))


def test_more_workers_for_events_are_warned_about(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn -w 4 app:app", EVENTS)
    assert (dict(found.gunicorn), found.notes) == ({"workers": 4}, ())
    assert found.warnings == (
        "server-sent events from a queue in memory need exactly 1 worker, and 4 are asked for: visitors of the other"
        " processes would miss them. To change that: pulumi config set decant:workers 1",
    )


@pytest.mark.parametrize(
    "files",
    [
        {"app.py": FLASK + "import queue\n"},
        {"app.py": FLASK + "mime = 'text/event-stream'\n"},
        {"app.py": FLASK + "import queued\nmime = 'text/event-stream'\n"},
        {**EVENTS, "store.py": "import redis\n"},
        {**EVENTS, "requirements.txt": "flask\nredis==5\n"},
    ],
)
def test_other_events_and_queues_get_any_number_of_workers(tmp_path: Path, files: dict[str, str]) -> None:
    found = web(tmp_path, "gunicorn app:app", files)
    assert (dict(found.gunicorn), found.notes, found.warnings) == ({}, (), ())
