"""gunicorn's settings and the Python that runs beside the app on machines."""

from __future__ import annotations

import ast
import gc
import os
import re
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug.test import Client

from tests.support import host_files
from tests.support.host_files import (
    HERE,
    RELEASE,
)

gunicorn, machine = host_files.gunicorn, host_files.machine

ON_MACHINES = sorted((HERE / "gunicorn").glob("*.py"))
# PEP 594 and others: gone in Python 3.13, which machines have.
GONE = {
    "aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib",
    "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib", "asynchat", "asyncore", "imp",
    "smtpd", "distutils",
}  # fmt: skip


@pytest.mark.parametrize("path", ON_MACHINES, ids=lambda p: str(p.relative_to(HERE)))
def test_a_machines_python_needs_nothing_but_its_library(path: Path) -> None:
    beside = {p.stem for p in ON_MACHINES} | {p.parent.name for p in ON_MACHINES}
    allowed = (set(sys.stdlib_module_names) - GONE) | {"gunicorn"} | beside
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] in allowed, f"{name}, line {node.lineno}"  # type: ignore[attr-defined]
    if "gunicorn" not in path.name and "entry" not in path.name:
        assert "gunicorn.util" not in path.read_text()


def test_there_is_python_on_machines() -> None:
    assert {"gunicorn_settings.py", "release_environment.py", "release_command.py", "decant_entry.py"} <= {
        p.name for p in ON_MACHINES
    }


@pytest.mark.parametrize("name", ["gunicorn/gunicorn-requirements.txt", "scripts/uv-requirements.txt"])
def test_what_machines_install_is_pinned_by_hash(name: str) -> None:
    text = (HERE / name).read_text().replace("\\\n", " ")
    for line in text.strip().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)


def test_gunicorn_knows_every_setting(gunicorn: dict[str, Any]) -> None:
    """It ignores what it does not know, so a typing mistake would never show."""
    from gunicorn.config import Config

    known = Config().settings
    tree = ast.parse((HERE / "gunicorn" / "gunicorn_settings.py").read_text())
    names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    names += [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert set(names) - set(known) == {"release", "settings", "request_timeout"}
    for name in set(names) & set(known):
        Config().set(name, gunicorn[name])  # raises for a value of the wrong kind


def test_gunicorn_serves_the_release_on_its_own_socket(gunicorn: dict[str, Any]) -> None:
    assert gunicorn["bind"] == f"unix:/run/decant/{RELEASE}/socket/gunicorn.sock"
    assert gunicorn["umask"] == 0o007
    assert gunicorn["worker_tmp_dir"] == f"/run/decant/{RELEASE}/socket"
    assert gunicorn["preload_app"] is True, "an app that cannot be imported fails the start, not its first request"
    assert gunicorn["control_socket_disable"] is True, "any code of the app could stop the server there"
    assert (gunicorn["timeout"], gunicorn["graceful_timeout"]) == (35, 30)
    assert gunicorn["worker_connections"] == 8192, "as many WebSockets as nginx has connections, and not 1000"
    assert gunicorn["pythonpath"] == "/opt/decant/python"
    assert gunicorn["wsgi_app"] == "decant_entry:application"
    assert os.environ["DECANT_APP"] == "shop:create_app()"
    assert (os.environ["GREETING"], os.environ["SECRET_KEY"]) == ("hello", "canary")


def test_a_worker_does_not_wait_for_what_nginx_has_sent(gunicorn: dict[str, Any]) -> None:
    from gunicorn.config import Config
    from gunicorn.workers.gthread import TConn, ThreadWorker

    def wait(seconds: float) -> bool:
        raise AssertionError("it waits")

    def submit(work: Callable[[TConn], object], conn: TConn) -> Future[object]:
        done: Future[object] = Future()
        done.set_result(work(conn))
        return done

    worker = object.__new__(gunicorn["worker_class"])
    assert isinstance(worker, ThreadWorker)
    worker.cfg, worker.log = Config(), SimpleNamespace(debug=lambda *_: None)
    worker.tpool, worker.method_queue = SimpleNamespace(submit=submit), SimpleNamespace(defer=lambda *_: None)
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        conn = TConn(worker.cfg, ours, "", "")
        conn.wait_for_data = wait
        worker.enqueue_req(conn)
        assert conn.initialized, "it was read from"


def test_gunicorn_trusts_one_forwarding_header(gunicorn: dict[str, Any]) -> None:
    from gunicorn.config import Config

    assert Config().settings["header_map"].get() == "drop", "X_Forwarded_For never reaches the app as X-Forwarded-For"
    assert "header_map" not in gunicorn
    assert gunicorn["secure_scheme_headers"] == {"X-FORWARDED-PROTO": "https"}
    assert gunicorn["forwarder_headers"] == ""


@pytest.mark.parametrize(
    ("cores", "megabytes", "workers"),
    [
        (1, 1024, 2),
        (1, 512, 1),
        (2, 457, 1),
        (1, 350, 1),
        (2, 960, 3),
        (2, 4096, 3),
        (16, 16384, 12),
        (16, 2048, 8),
        (None, 2048, 2),
    ],
    ids=lambda value: str(value),
)
def test_workers_from_cores_and_memory(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, cores: int | None, megabytes: int, workers: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": megabytes * 256}.__getitem__)
    made = runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))
    assert (made["workers"], made["threads"]) == (workers, 8)


def test_workers_and_threads_of_the_settings_win(machine: SimpleNamespace) -> None:
    machine.settings.update(workers=7, threads=9)
    made = runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))
    assert (made["workers"], made["threads"]) == (7, 9)


def test_a_new_worker_can_be_stopped_at_once(gunicorn: dict[str, Any]) -> None:
    import signal

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        gunicorn["post_fork"](None, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ended_worker_leaves_a_file_until_the_next_start(gunicorn: dict[str, Any], tmp_path: Path) -> None:
    """decant-host looks for it before it gives a release the traffic."""
    asked: list[str] = []

    def moved(path: str) -> Path:
        asked.append(path)
        return tmp_path / Path(path).name

    gunicorn["child_exit"].__globals__["Path"] = moved
    gunicorn["child_exit"](None, None)
    assert (tmp_path / "worker-exited").exists()
    try:
        gunicorn["on_starting"](None)
    finally:
        gc.unfreeze()
    assert not (tmp_path / "worker-exited").exists()
    assert set(asked) == {f"/run/decant/{RELEASE}/socket/worker-exited"}


def test_workers_share_the_objects_of_the_start(gunicorn: dict[str, Any]) -> None:
    """A worker's first full collection would copy them all; what is garbage already is not kept for good."""
    before = gc.get_freeze_count()
    gone: list[str] = []

    class Circle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            gone.append("collected")

    gc.disable()
    try:
        Circle()
        gunicorn["on_starting"](None)
        assert gc.get_freeze_count() > before + 1000
        assert gone == ["collected"]
    finally:
        gc.enable()
        gc.unfreeze()


def test_the_release_command_runs_as_the_app_would(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda path, words: ran.append((path, words, dict(os.environ))))
    runpy.run_path(str(HERE / "gunicorn" / "release_command.py"))
    ((path, words, environment),) = ran
    assert (path, words) == ("/bin/sh", ["sh", "-c", "flask db upgrade"])
    assert environment["PATH"] == f"/var/lib/decant/releases/{RELEASE}/venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert environment["SECRET_KEY"] == "canary"


def test_every_response_names_its_release(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "paper_shop.py").write_text(
        "def app(environ, start_response):\n"
        "    headers = [('X-Release', 'forged'), ('x-release', 'too'), ('X-Other', 'kept')]\n"
        "    start_response('404 Not Found', headers, 'info')\n"
        "    return [b'body']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DECANT_APP", "paper_shop:app")
    application = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))["application"]
    said: list[Any] = []
    assert list(application({}, lambda *words: said.append(words))) == [b"body"]
    assert said == [("404 Not Found", [("X-Other", "kept"), ("X-Release", RELEASE)], "info")]
    sys.modules.pop("paper_shop", None)


VISITS = [
    ({}, {"REMOTE_ADDR": "192.0.2.7", "wsgi.url_scheme": "https", "SERVER_NAME": "www.example.com",
          "SERVER_PORT": "443"}),
    ({"HTTP_X_FORWARDED_PROTO": "http"}, {"wsgi.url_scheme": "http", "SERVER_PORT": "80"}),
    ({"HTTP_X_FORWARDED_PROTO": "ftp"}, {"wsgi.url_scheme": "http", "SERVER_PORT": "80"}),
    ({"HTTP_X_FORWARDED_FOR": "2001:db8::7"}, {"REMOTE_ADDR": "2001:db8::7"}),
    ({"HTTP_X_FORWARDED_FOR": "6.6.6.6, 192.0.2.7"}, {"REMOTE_ADDR": ""}),  # nginx sends one address
    ({"HTTP_X_FORWARDED_FOR": ""}, {"REMOTE_ADDR": ""}),
    ({"HTTP_HOST": "www.example.com:8443"}, {"SERVER_NAME": "www.example.com", "SERVER_PORT": "8443"}),
    ({"HTTP_HOST": "[2001:db8::7]"}, {"SERVER_NAME": "[2001:db8::7]", "SERVER_PORT": "443"}),
    ({"HTTP_HOST": "[2001:db8::7]:81"}, {"SERVER_NAME": "[2001:db8::7]", "SERVER_PORT": "81"}),
    ({"HTTP_HOST": ""}, {"SERVER_NAME": "as gunicorn", "SERVER_PORT": "says"}),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "wanted"), VISITS)
def test_the_app_sees_the_visitor_and_not_the_socket(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: dict[str, str],
    wanted: dict[str, str],
) -> None:  # fmt: skip
    """Without ProxyFix."""
    (tmp_path / "paper_visit.py").write_text("def app(environ, start_response):\n    return [environ]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DECANT_APP", "paper_visit:app")
    application = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))["application"]
    sys.modules.pop("paper_visit", None)
    environ = {
        "REMOTE_ADDR": "", "wsgi.url_scheme": "http", "SERVER_NAME": "as gunicorn", "SERVER_PORT": "says",
        "HTTP_HOST": "www.example.com", "HTTP_X_FORWARDED_FOR": "192.0.2.7", "HTTP_X_FORWARDED_PROTO": "https", **sent,
    }  # fmt: skip
    (seen,) = application(environ, lambda *_: None)
    assert seen is environ, "a WebSocket's worker looks at the same one"
    assert {name: seen[name] for name in wanted} == wanted


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_app_with_proxy_fix_sees_the_same(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "paper_proxy.py").write_text(
        "import flask\n"
        "from werkzeug.middleware.proxy_fix import ProxyFix\n"
        "app = flask.Flask(__name__)\n"
        "app.add_url_rule('/', 'page', lambda: [flask.request.remote_addr, flask.url_for('page', _external=True)])\n"
        "fixed = flask.Flask(__name__)\n"
        "fixed.add_url_rule('/', 'page', app.view_functions['page'])\n"
        "fixed.wsgi_app = ProxyFix(fixed.wsgi_app, x_for=1, x_proto=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": scheme, "Host": "www.example.com"}
    seen = []
    for name in ("app", "fixed"):
        monkeypatch.setenv("DECANT_APP", f"paper_proxy:{name}")
        application = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))["application"]
        seen.append(Client(application).get("/", headers=headers, environ_base={"REMOTE_ADDR": ""}).json)
    sys.modules.pop("paper_proxy", None)
    assert seen == [["192.0.2.7", f"{scheme}://www.example.com/"]] * 2


@pytest.fixture
def press(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Serves an app with templates as gunicorn would: the names of what is compiled, the module that serves it."""
    texts = {"page.html": "{{ 1 + 1 }}", "broken.html": "{% nonsense %}", "row.html": "{{ 2 }}", "data.csv": "{{ 3 }}",
             "export.xml": "{{ 4 }}" + " " * (128 << 10)}  # fmt: skip
    (tmp_path / "templates").mkdir()
    for name, text in texts.items():
        (tmp_path / "templates" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DECANT_APP", "paper_press:app")

    def serve(more: str = "") -> tuple[set[str], dict[str, Any]]:
        (tmp_path / "paper_press.py").write_text(f"import flask, jinja2\napp = flask.Flask(__name__)\n{more}")
        entry = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))
        return {key[1] for key in sys.modules["paper_press"].app.jinja_env.cache}, entry

    yield serve
    sys.modules.pop("paper_press", None)


def test_pages_are_compiled_before_any_visitor_comes(press: Callable[..., Any]) -> None:
    compiled, _ = press()
    assert compiled == {"page.html", "row.html"}, "no data, and what cannot be compiled is its page's business"


@pytest.mark.parametrize(
    "unusual",
    [
        "app.jinja_loader = jinja2.ChoiceLoader([app.jinja_loader])",
        "app.register_blueprint(flask.Blueprint('b', __name__))\n"
        "app.blueprints['b'].jinja_loader = jinja2.FunctionLoader(lambda name: 'of a database')",
        "app.jinja_env.loader = jinja2.FileSystemLoader('.')",
        "app.jinja_env.bytecode_cache = jinja2.FileSystemBytecodeCache('.')",
    ],
)
def test_unusual_templates_are_left_alone(press: Callable[..., Any], unusual: str) -> None:
    assert press(unusual)[0] == set()


def test_an_app_whose_templates_need_a_request_is_served(press: Callable[..., Any]) -> None:
    more = """
class Late:
    blueprints = {}
    def __call__(self, environ, start_response):
        return []
    @property
    def jinja_env(self):
        raise RuntimeError("Working outside of application context")
real, app = app, Late()
Late.cache = ()
"""
    with pytest.raises(RuntimeError, match="outside"):  # of this test's own look at it, not of the start
        press(more)
    assert "application" in runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))


def test_compiling_ends_after_a_while(press: Callable[..., Any]) -> None:
    """An app may have thousands of pages."""
    _, entry = press()
    app = sys.modules["paper_press"].app
    app.jinja_env.cache.clear()
    times = [1.3, 1.2, 1.1, 0.9, 0.5, 0.0]
    compile_templates = entry["compile_templates"]
    compile_templates.__globals__["time"] = SimpleNamespace(monotonic=times.pop)
    compile_templates(app)
    assert times == [1.3, 1.2], "two of the four pages were come to"
