"""gunicorn's settings and the Python that runs beside the app on machines."""

from __future__ import annotations

import ast
import gc
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug.test import Client

from decant_host import memory
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


@pytest.mark.parametrize(
    "name",
    [
        "gunicorn/gunicorn-requirements.txt", "gunicorn/gunicorn-old-requirements.txt",
        "gunicorn/packaging-requirements.txt", "gunicorn/pkg-resources-requirements.txt", "scripts/uv-requirements.txt",
    ],
)  # fmt: skip
def test_what_machines_install_is_pinned_by_hash(name: str) -> None:
    text = (HERE / name).read_text().replace("\\\n", " ")
    assert text.strip()
    for line in text.strip().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)


def test_gunicorn_knows_every_setting(gunicorn: dict[str, Any]) -> None:
    """It ignores what it does not know, so a typing mistake would never show."""
    from gunicorn.config import Config

    known = Config().settings
    tree = ast.parse((HERE / "gunicorn" / "gunicorn_settings.py").read_text())
    names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    names += [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    own = {"release", "settings", "folder", "from_file", "asked", "hooks", "request_timeout"}
    assert set(names) - set(known) == own
    for name in set(names) & set(known):
        Config().set(name, gunicorn[name])  # raises for a value of the wrong kind


def test_gunicorn_serves_the_release_on_its_own_socket(gunicorn: dict[str, Any]) -> None:
    assert gunicorn["bind"] == f"unix:/run/decant/{RELEASE}/socket/gunicorn.sock"
    assert gunicorn["umask"] == 0o007
    assert gunicorn["worker_tmp_dir"] == f"/run/decant/{RELEASE}/socket"
    assert gunicorn["preload_app"] is True, "an app that cannot be imported fails the start, not its first request"
    assert gunicorn["control_socket_disable"] is True, "any code of the app could stop the server there"
    assert (gunicorn["timeout"], gunicorn["graceful_timeout"]) == (35, 30)
    assert sys.path[-1] == "/opt/decant/python", "no module of the app is hidden"
    assert gunicorn["wsgi_app"] == "decant_entry:application"
    assert os.environ["DECANT_APP"] == "shop:create_app()"
    assert (os.environ["GREETING"], os.environ["SECRET_KEY"]) == ("hello", "canary")


def test_the_worker_is_gunicorns_own(gunicorn: dict[str, Any]) -> None:
    """gunicorn below 23 takes no class here, and the inside of a class differs from version to version."""
    assert gunicorn["worker_class"] == "gthread"


@pytest.mark.parametrize("path", [p for p in ON_MACHINES if p.parent.name == "gunicorn"], ids=lambda p: p.name)
def test_files_beside_the_app_are_python_3_8(path: Path) -> None:
    """An app may choose any Python from 3.8 on."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    lazy = "from __future__ import annotations" in path.read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and not lazy:
            assert node.value.id not in {"list", "dict", "tuple", "set", "type", "Callable", "Iterable"}, node.lineno


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


APP_FOLDER = f"/var/lib/decant/releases/{RELEASE}/app"
OWN_FILE = """
import os
bind = "0.0.0.0:80"
user = "root"
control_socket_disable = False
chdir = "web"
timeout = int("90")
workers = 6
threads = 2
raw_env = ["GREETING=from the file", "FROM_FILE=yes"]
unknown = 5
called = []
def on_starting(server):
    called.append(("on_starting", server))
def post_fork(server, worker):
    called.append(("post_fork", server, worker))
def child_exit(server, worker):
    called.append(("child_exit", server, worker))
def when_ready(server):
    called.append(("when_ready", server))
"""


@pytest.fixture
def serve_with(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """gunicorn's settings of a release whose web: line and own configuration file ask for these."""
    monkeypatch.delenv("FROM_FILE", raising=False)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    run_path = runpy.run_path

    def serve(line: dict[str, Any] | None = None, file: str | None = None, **settings: Any) -> dict[str, Any]:
        machine.settings.update(gunicorn=line or {}, gunicorn_config="conf.py" if file else None, **settings)
        (tmp_path / "conf.py").write_text(file or "")

        def moved(path: str, **options: Any) -> dict[str, Any]:
            return run_path(str(tmp_path / "conf.py") if path == f"{APP_FOLDER}/conf.py" else path, **options)

        monkeypatch.setattr(runpy, "run_path", moved)
        return moved(str(HERE / "gunicorn" / "gunicorn_settings.py"))

    return serve


def test_the_web_lines_settings_are_used(serve_with: Callable[..., Any]) -> None:
    line = {"chdir": "web", "pythonpath": "lib,src", "timeout": 90, "threads": 3, "workers": 2, "max_requests": 50,
            "graceful_timeout": 10, "limit_request_line": 100, "preload_app": True}  # fmt: skip
    made = serve_with(line)
    expected = {**line, "chdir": f"{APP_FOLDER}/web", "pythonpath": f"{APP_FOLDER}/lib,{APP_FOLDER}/src"}
    assert {name: made[name] for name in line} == expected


def test_the_settings_beat_the_line_which_beats_the_file_which_beats_the_variable(
    serve_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "9")
    assert serve_with()["workers"] == 9
    assert serve_with(file="workers = 6\nthreads = 4\n")["workers"] == 6
    assert serve_with({"workers": 2}, "workers = 6\nthreads = 4\n")["threads"] == 4
    assert serve_with({"workers": 2}, "workers = 6\n")["workers"] == 2
    made = serve_with({"workers": 2, "threads": 3}, "workers = 6\nthreads = 4\n", workers=1, threads=7)
    assert (made["workers"], made["threads"]) == (1, 7)
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    assert serve_with(workers=None)["workers"] >= 1


def test_the_apps_own_file_decides_what_it_may(serve_with: Callable[..., Any]) -> None:
    made = serve_with(file=OWN_FILE)
    assert (made["timeout"], made["workers"], made["threads"], made["chdir"]) == (90, 6, 2, f"{APP_FOLDER}/web")
    assert made["bind"] == f"unix:/run/decant/{RELEASE}/socket/gunicorn.sock"
    assert made["control_socket_disable"] is True
    assert {"user", "unknown", "raw_env", "called"}.isdisjoint(made)
    assert (os.environ["GREETING"], os.environ["FROM_FILE"]) == ("hello", "yes"), "decant:env has precedence"


def test_the_apps_own_hooks_run_beside_decants(serve_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    handlers: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *given: handlers.append(given))
    made = serve_with(file=OWN_FILE)
    called = made["when_ready"].__globals__["called"]
    try:
        made["on_starting"]("server")
    finally:
        gc.unfreeze()
    made["post_fork"]("server", "worker")
    made["child_exit"]("server", "worker")
    made["when_ready"]("server")
    assert called == [
        ("on_starting", "server"),
        ("post_fork", "server", "worker"),
        ("child_exit", "server", "worker"),
        ("when_ready", "server"),
    ]
    assert handlers == [(signal.SIGTERM, signal.SIG_DFL)]


@pytest.mark.parametrize(
    ("line", "worker_class", "threads", "preload"),
    [
        ({}, None, 8, True),
        ({"worker_class": "gthread"}, None, 8, True),
        ({"worker_class": "gthread", "threads": 5}, None, 5, True),
        ({"worker_class": "sync"}, "sync", 1, True),
        ({"worker_class": "sync", "threads": 5}, "sync", 5, True),
        ({"worker_class": "gevent"}, "gevent", 1, False),
        ({"worker_class": "gevent", "preload_app": True}, "gevent", 1, True),
        ({"worker_class": "own.Worker"}, "own.Worker", 1, False),
    ],
)
def test_a_worker_class_decides_about_threads_and_preloading(
    serve_with: Callable[..., Any], line: dict[str, Any], worker_class: str | None, threads: int, preload: bool
) -> None:
    made = serve_with(line)
    own = serve_with()["worker_class"]
    got = made["worker_class"]
    assert got == worker_class if worker_class else getattr(got, "__name__", got) == getattr(own, "__name__", own)
    assert (made["threads"], made["preload_app"]) == (threads, preload)


def test_the_master_waits_for_a_request_as_long_as_nginx_does(serve_with: Callable[..., Any]) -> None:
    assert serve_with(request_timeout=120)["timeout"] == 125
    assert serve_with(request_timeout=5)["timeout"] == 30
    assert serve_with({"timeout": 60}, request_timeout=5)["timeout"] == 60
    assert serve_with({"timeout": 10}, request_timeout=30)["timeout"] == 35, (
        "a sync worker must outlast nginx, which answers 504"
    )
    assert serve_with({"timeout": 0})["timeout"] == 0
    assert serve_with({"graceful_timeout": 300})["graceful_timeout"] == 30


def served(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, str]]:
    ran: list[Any] = []
    monkeypatch.setattr(os, "execvp", lambda path, words: ran.append((path, words, dict(os.environ))))
    runpy.run_path(str(HERE / "gunicorn" / "decant_serve.py"))
    ((path, words, environment),) = ran
    assert path == words[0]
    return words, environment


def test_gunicorn_starts_in_the_releases_environment(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind 0.0.0.0:80")
    venv = f"/var/lib/decant/releases/{RELEASE}/venv"
    command = [
        f"{venv}/bin/gunicorn",
        "--config",
        "/opt/decant/python/gunicorn_settings.py",
        "decant_entry:application",
    ]
    words, environment = served(monkeypatch)
    assert words == command
    assert environment["PATH"] == f"{venv}/bin:/usr/local/bin:/usr/bin:/bin"
    assert (environment["VIRTUAL_ENV"], environment["PORT"], environment["GREETING"]) == (venv, "8000", "hello")
    assert "GUNICORN_CMD_ARGS" not in environment
    machine.settings["wrapper"] = ["newrelic-admin", "run-program"]
    assert served(monkeypatch)[0] == ["newrelic-admin", "run-program", *command]


@pytest.mark.parametrize(
    ("persisted", "scores"), [("releases/aaaaaaaaaaaa", ["300"]), (f"releases/{RELEASE}", []), (None, [])]
)
def test_the_kernel_ends_a_release_that_is_not_confirmed_first(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, persisted: str | None, scores: list[str]
) -> None:
    """Where nothing was ever confirmed, nothing serves that could be spared."""
    written: list[str] = []
    inner = Path.write_text

    def readlink(path: str) -> str:
        assert path == "/var/lib/decant/persisted"
        if persisted is None:
            raise FileNotFoundError(path)
        return persisted

    def write_text(self: Path, text: str, *words: Any, **more: Any) -> int:
        if str(self) != "/proc/self/oom_score_adj":
            return inner(self, text, *words, **more)
        written.append(text)
        return len(text)

    monkeypatch.setattr(os, "readlink", readlink)
    monkeypatch.setattr(Path, "write_text", write_text)
    served(monkeypatch)
    assert written == scores
    assert scores in ([], [str(memory.EXPENDABLE)])


def test_a_wrapper_that_is_missing_is_named(machine: SimpleNamespace) -> None:
    machine.settings["wrapper"] = ["no-such-wrapper"]
    with pytest.raises(SystemExit, match="the program no-such-wrapper, which the web: line starts, is not there"):
        runpy.run_path(str(HERE / "gunicorn" / "decant_serve.py"))
