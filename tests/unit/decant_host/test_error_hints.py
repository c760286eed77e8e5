"""Hints in error texts: how they are chosen, and what each of them says."""

from __future__ import annotations

import time

import pytest

from decant_host import error_hints, paths, processes
from decant_host.error_hints import NOT_SERVING, find_hint, requirements_file
from tests.unit.decant_host.machine import NEW, Machine

STOPPED = "it stopped by itself (exit-code, exit status 1)\n"


def serving(text: str, **settings: object) -> str:
    return find_hint(NOT_SERVING, text, otherwise="the reason is below", **settings)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Failed to find attribute 'app' in 'wsgi'.", "wsgi:app names app, which its module does not have"),
        ("SyntaxError: invalid syntax", "the code is not valid Python 3.13: invalid syntax"),
        ("OSError: [Errno 28] No space left on device", "the disk is full. See what fills it: df -h"),
        ("Worker (pid:7) was sent signal 9!", "out of memory"),
        ("Worker (pid:7) was sent SIGKILL! Perhaps out of memory?", "out of memory"),
        ("its health path /up answered status 404", "nothing answers at /up. Set decant:healthPath"),
        ("its health path /up answered status 401", "/up asks for a login"),
        ("its health path /up answered status 403", "/up asks for a login"),
        ("IndentationError: unexpected indent", "the code is not valid Python 3.13: unexpected indent"),
        ("it stopped by itself (oom-kill, exit status 9)", "out of memory"),
        ("it stopped by itself (signal 9)", "out of memory"),
        ("MemoryError", "out of memory"),
        ("psycopg.OperationalError: connection refused", "a server that the app connects to refuses the connection"),
        ("ConnectionRefusedError: [Errno 111]", "a server that the app connects to refuses the connection"),
        ("it stopped by itself soon after its start (exit-code)", "it starts, answers, and crashes seconds later"),
        ("not healthy within 15 s at /up: status 503", "answers with an error; the log below says which"),
        ("not healthy within 15 s at /up: status 301", "the health path /up redirects"),
        ("not healthy within 15 s at /up: status 400", "refuses the site's own name, www.example.com"),
        (
            "not healthy within 15 s at /up: no answer within 5 s",
            "does not answer in time (decant:healthTimeout is 15 s)",
        ),
        ("it stopped by itself (exit-code, exit status 1)", "it crashes when it starts"),
        (
            "not healthy within 15 s at /up: it did not start",
            "longer to start than decant:healthTimeout, which is 15 s: pulumi config set decant:healthTimeout 180",
        ),
        ("it stopped by itself (core-dump, exit status 4)", "a processor with more instructions"),
        ("it stopped by itself (core-dump, exit status 11)", "a package with compiled parts crashes"),
        ("something else", "the reason is below"),
        ("KeyError: '{braces}'", "the reason is below"),
    ],
)
def test_hints_for_a_release_that_does_not_serve(machine: Machine, text: str, hint: str) -> None:
    settings = {"entry": "wsgi:app", "health_path": "/up", "health_timeout": 15}
    assert hint in processes.explain_failure(text, settings, NEW)


@pytest.mark.parametrize(("python", "other"), [("3.13", "3.12"), ("3.12.4", "3.11"), ("3.9", "3.8"), ("3.8", "3.9")])
def test_another_python_is_not_the_one_that_runs(python: str, other: str) -> None:
    for text in ("SyntaxError: invalid syntax", "app.service: Failed with result 'core-dump'. Segmentation fault"):
        assert serving(text, python=python).endswith(f"pulumi config set decant:python {other}")


def test_a_release_says_how_it_is_made(machine: Machine) -> None:
    settings = {
        "entry": "wsgi:app", "health_path": None, "health_timeout": 15, "python": "3.12", "next_persistent": 2,
        "install": ["--requirement", "requirements/prod.txt"], "table_line": "release: flask make",
    }  # fmt: skip
    assert processes.explain_failure("SyntaxError: x", settings, NEW).startswith("the code is not valid Python 3.12: x")
    text = "ModuleNotFoundError: No module named 'requests'"
    assert processes.explain_failure(text, settings, NEW) == (
        "the module requests is not there. Add requests to requirements/prod.txt (or the module to the app folder)"
    )
    text = "OSError: [Errno 30] Read-only file system: 'notes.json'"
    assert processes.explain_failure(text, settings, NEW).endswith("'decant:persistent[2]' notes.json")
    text = "sqlite3.OperationalError: no such table: user"
    assert processes.explain_failure(text, settings, NEW).endswith("to the Procfile: release: flask make")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"requirements": "requirements.txt"}, "requirements.txt"),
        ({"install": ["--requirement", "requirements/prod.txt"]}, "requirements/prod.txt"),
        ({"install": [".[web]"]}, "the app's dependencies"),
        ({"install": ["--requirement", ".decant-lock.txt"]}, "the app's dependencies"),
    ],
)
def test_the_file_that_a_hint_names(settings: dict[str, object], name: str) -> None:
    assert requirements_file(settings) == name


# ------------------------------------------------------------------------------------------------ which hint counts


def test_the_last_exception_of_a_traceback_counts() -> None:
    text = f"""{STOPPED}
ModuleNotFoundError: No module named 'MySQLdb'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "wsgi.py", line 3, in <module>
    open("/data/x", "w")
OSError: [Errno 30] Read-only file system: '/data/x'
[2026-11-28 07:00:00 +0000] [12] [INFO] Shutting down: Master"""
    assert serving(text).startswith("the app writes to /data/x, which is outside of its own folder")


def test_of_two_patterns_of_one_line_the_more_specific_counts() -> None:
    text = 'psycopg2.OperationalError: connection to server at "localhost" (::1), port 5432 failed: Connection refused'
    assert serving(text).startswith("the app connects to a database on this machine, and Decant runs none.")


def test_what_the_release_answered_counts_more_than_its_log() -> None:
    text = "its health path /up answered status 404\n    ConnectionRefusedError: [Errno 111] of a cache"
    assert serving(text, path="/up").startswith("nothing answers at /up")


def test_a_reason_in_the_log_counts_more_than_an_error_status() -> None:
    text = "not healthy within 15 s at /: status 500\n    sqlite3.OperationalError: no such table: user"
    told = "the database has no table user. Add the line that makes it to the Procfile: "
    assert serving(text) == f"{told}release: flask db upgrade"
    assert serving(text, table_line="release: flask make") == f"{told}release: flask make"


# ------------------------------------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "ImportError: cannot import name 'Mapping' from 'collections' (/usr/lib/python3.13/x.py)",
            "uses Mapping, which Python 3.13 no longer has. Take a newer version of that package, or an older Python:"
            " pulumi config set decant:python 3.9",
        ),
        ("AttributeError: module 'ast' has no attribute 'Str'", "decant:python 3.13"),
        ("AttributeError: module 'inspect' has no attribute 'getargspec'", "decant:python 3.10"),
        ("AttributeError: module 'pkgutil' has no attribute 'ImpImporter'. Did you mean", "decant:python 3.11"),
        ("AttributeError: module 'asyncio' has no attribute 'coroutine'", "decant:python 3.10"),
        ("ModuleNotFoundError: No module named 'distutils'", "the module distutils, which Python 3.13 no longer has"),
        ("ModuleNotFoundError: No module named 'imp'", "decant:python 3.11"),
        ("ModuleNotFoundError: No module named 'cgi'", "decant:python 3.12"),
        ("ModuleNotFoundError: No module named 'telnetlib'", "decant:python 3.12"),
        ("ModuleNotFoundError: No module named 'tomllib'", "the app needs Python 3.11 or newer (tomllib)"),
        ("ImportError: cannot import name 'Self' from 'typing' (/x/typing.py)", "decant:python 3.11"),
        ("ImportError: cannot import name 'override' from 'typing' (/x/typing.py)", "decant:python 3.12"),
        ("TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'", "decant:python 3.10"),
        ("SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?", "the code is for Python 2"),
    ],
)
def test_what_a_python_no_longer_has_names_one_that_has_it(text: str, hint: str) -> None:
    assert hint in serving(STOPPED + text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ImportError: cannot import name 'url_quote' from 'werkzeug.urls' (/x)", "werkzeug<3"),
        ("ImportError: cannot import name 'url_decode' from 'werkzeug.urls' (/x)", "werkzeug<3"),
        ("ImportError: cannot import name 'safe_str_cmp' from 'werkzeug.security' (/x)", "werkzeug<2.1"),
        ("ImportError: cannot import name 'BaseResponse' from 'werkzeug.wrappers' (/x)", "werkzeug<2.1"),
        ("ImportError: cannot import name 'secure_filename' from 'werkzeug' (/x)", "werkzeug<1"),
        ("ModuleNotFoundError: No module named 'werkzeug.contrib'", "werkzeug<1"),
        ("ImportError: cannot import name 'escape' from 'jinja2' (/x)", "jinja2<3.1"),
        ("ImportError: cannot import name 'Markup' from 'jinja2' (/x)", "jinja2<3.1"),
        ("AttributeError: module 'jinja2' has no attribute 'contextfunction'", "jinja2<3.1"),
        ("ImportError: cannot import name 'soft_unicode' from 'markupsafe' (/x)", "markupsafe<2.1"),
        ("ImportError: cannot import name 'json' from 'itsdangerous' (/x)", "itsdangerous<2.1"),
        ("ImportError: cannot import name 'TimedJSONWebSignatureSerializer' from 'itsdangerous'", "itsdangerous<2.1"),
        ("ImportError: cannot import name 'escape' from 'flask' (/x)", "flask<3"),
        ("ImportError: cannot import name '_request_ctx_stack' from 'flask' (/x)", "flask<2.3"),
        ("ImportError: cannot import name '_app_ctx_stack' from 'flask' (/x)", "flask<2.3"),
        ("ImportError: cannot import name 'JSONEncoder' from 'flask.json' (/x)", "flask<2.3"),
        ("AttributeError: 'Flask' object has no attribute 'before_first_request'. Did you mean", "flask<2.3"),
        ("AttributeError: 'Flask' object has no attribute 'json_encoder'", "flask<2.3"),
        ("ModuleNotFoundError: No module named 'flask._compat'", "flask<2"),
        ("AttributeError: module 'sqlalchemy' has no attribute '__all__'", "sqlalchemy<2"),
        ("AttributeError: 'Engine' object has no attribute 'execute'", "sqlalchemy<2"),
        ("Class <class 'x'> directly inherits TypingOnly but has additional attributes", "sqlalchemy>=2.0.31"),
        ("ImportError: cannot import name 'BaseQuery' from 'flask_sqlalchemy' (/x)", "flask-sqlalchemy<3"),
        ("ImportError: cannot import name 'MigrateCommand' from 'flask_migrate' (/x)", "flask-migrate<3"),
        ("ImportError: cannot import name 'TextField' from 'wtforms' (/x)", "wtforms<3"),
        ("ModuleNotFoundError: No module named 'wtforms.fields.html5'", "wtforms<3"),
        ("AttributeError: attribute '__default__' of 'typing.ParamSpec' objects is not writable",
         "typing_extensions>=4.12"),
        ("AttributeError: module 'numpy' has no attribute 'float'.", "numpy<1.24"),
        ("ValueError: numpy.dtype size changed, may indicate binary incompatibility", "numpy<2"),
        ("ModuleNotFoundError: No module named 'pkg_resources'", "setuptools<81"),
        ("PydanticImportError: `BaseSettings` has been moved to the `pydantic-settings` package", "pydantic<2"),
    ],
)  # fmt: skip
def test_an_import_that_moved_names_the_line_for_the_requirements(text: str, line: str) -> None:
    hint = serving(f"{STOPPED}    {text}", requirements="reqs.txt")
    package = line.replace(">", "<").split("<")[0]
    age = "old" if ">" in line else "new"
    assert hint.startswith(f"the installed {package} is too {age} for this code (")
    assert hint.endswith(f"Add this line to reqs.txt: {line}")


def test_an_extension_by_its_old_name() -> None:
    assert serving("No module named 'flask.ext.login'").endswith(
        "Write `import flask_login` in place of flask.ext.login"
    )


# ------------------------------------------------------------------------------------------------ variables


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('File "<frozen os>", line 717, in __getitem__\n    KeyError: \'GREETING\'',
         "the variable GREETING is not set. Set it: pulumi config set --path 'decant:env.GREETING' VALUE"),
        ('File "<frozen os>", line 717, in __getitem__\n    raise KeyError(key) from None\nKeyError: \'STRIPE_KEY\'',
         "the variable STRIPE_KEY is not set. Set it: pulumi config set --secret --path 'decant:secrets.STRIPE_KEY'"),
        ('File "/lib/python3.12/os.py", line 685, in __getitem__\n    raise KeyError(key)\nKeyError: \'MAIL_PASSWORD\'',
         "the variable MAIL_PASSWORD is not set. Set it: pulumi config set --secret --path"
         " 'decant:secrets.MAIL_PASSWORD'"),
        ("KeyError: 'colour'", "KeyError colour. If that is a variable, set it: pulumi config set --path"
         " 'decant:env.colour' VALUE"),
        ("decouple.UndefinedValueError: DEBUG not found. Declare it as envvar", "'decant:env.DEBUG' VALUE"),
        ('environs.exceptions.EnvError: Environment variable "API_TOKEN" not set', "'decant:secrets.API_TOKEN'"),
        ("ValueError: DATABASE_URL environment variable is required", "'decant:secrets.DATABASE_URL'"),
        ("RuntimeError: FLASK_CONFIG is not set", "'decant:env.FLASK_CONFIG' VALUE"),
        ("RuntimeError: The session is unavailable because no secret key was set.",
         "the app has no secret key. Set one: python3 -c 'import secrets; print(secrets.token_hex(32))' |"
         " pulumi config set --secret --path 'decant:secrets.SECRET_KEY'"),
        ("RuntimeError: A secret key is required to use CSRF.", "the app has no secret key"),
        ("RuntimeError: Either 'SQLALCHEMY_DATABASE_URI' or 'SQLALCHEMY_BINDS' must be set.", "gets no database URL"),
        ("ArgumentError: Expected string or URL object, got None", "gets no database URL"),
        ("NoSuchModuleError: Can't load plugin: sqlalchemy.dialects:postgres", "needs postgresql:// where"),
    ],
)  # fmt: skip
def test_a_variable_that_is_not_set_is_named_with_its_command(text: str, command: str) -> None:
    assert serving(STOPPED + text).endswith(command) or command in serving(STOPPED + text)


# ------------------------------------------------------------------------------------------------ other servers


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('could not translate host name "db" to address: Name or service not known', "a server named db, which"),
        ("redis.exceptions.ConnectionError: Error -2 connecting to redis:6379. Name or", "a server named redis,"),
        ("pymysql: Unknown MySQL server host 'mysql' (-2)", "a server named mysql,"),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "whose name does not exist here"),
        ("pymongo.errors.ServerSelectionTimeoutError: mongo:27017: [Errno -3] Temporary failure", "named mongo,"),
        ("redis.exceptions.ConnectionError: Error 111 connecting to localhost:6379. Connection refused.",
         "no Redis answers, and Decant runs none"),
        ("Can't connect to MySQL server on 'localhost' ([Errno 111] Connection refused)", "Decant runs none"),
        ('FATAL:  password authentication failed for user "shop"', "refuses the user or the password"),
        ('psycopg2.errors.UndefinedTable: relation "user" does not exist', "the database has no table user"),
        ('FATAL:  database "shop" does not exist', "the database shop does not exist"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer(text: str, hint: str) -> None:
    assert hint in serving(STOPPED + text)


# ------------------------------------------------------------------------------------------------ gunicorn


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Error: class uri 'gevent' invalid or not found:", "Add gevent to requirements.txt"),
        ("Error: class uri 'eventlet' invalid or not found:", "Add eventlet to requirements.txt"),
        ("class uri 'geventwebsocket.gunicorn.workers.GeventWebSocketWorker' invalid or not found",
         "Add gevent-websocket to requirements.txt"),
        ("RuntimeError: gevent worker requires gevent 24.10.1 or higher",
         "Add this line to requirements.txt: gevent>=24.10.1"),
        ("Invalid session 3yQ1 (further occurrences of this error will be", "pulumi config set decant:workers 1"),
        ("OSError: [Errno 98] Address already in use", "under `if __name__ == '__main__':`"),
        (" * Serving Flask app 'shop'", "the app starts a server of its own when it is imported"),
        ("ValueError: signal only works in main thread of the main interpreter", "sets a signal handler in a thread"),
        ("TypeError: create_app() missing 1 required positional argument: 'config'",
         "create_app() needs arguments that nobody gives it: 'config'"),
    ],
)  # fmt: skip
def test_how_the_app_is_served(text: str, hint: str) -> None:
    assert hint in serving("not healthy within 15 s at /healthz: it did not start\n" + text)


def test_a_text_of_megabytes_is_searched_in_a_moment() -> None:
    started = time.monotonic()
    for hints in (error_hints.NOT_SERVING, error_hints.NOT_INSTALLED):
        assert find_hint(hints, "xyz" * 100_000 + "\n" + "a b " * 100_000, otherwise="none") == "none"
        assert "disk is full" in find_hint(hints, "x\n" * 50_000 + "No space left on device", otherwise="none")
    assert time.monotonic() - started < 5


def test_every_hint_can_be_written(machine: Machine) -> None:
    """No row names a setting or a group that does not exist."""
    for hints in (error_hints.NOT_SERVING, error_hints.NOT_INSTALLED):
        for group in hints:
            for _, hint in group:
                if isinstance(hint, str):
                    hint.format("a", "b", "c", **error_hints.DEFAULTS)


def test_a_folder_of_the_release_that_holds_code_is_known(machine: Machine) -> None:
    settings = {"entry": "wsgi:app", "health_path": None, "health_timeout": 15}
    machine.add(NEW)
    package = paths.RELEASES / NEW / "app" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = "OSError: [Errno 30] Read-only file system: 'shop/state.json'"
    assert processes.explain_failure(text, settings, NEW).endswith("'decant:persistent[0]' shop/state.json")


def test_the_middle_of_a_long_text_is_not_searched() -> None:
    lines = ["x"] * 1000
    for place, said in ((0, True), (149, True), (500, False), (851, True), (999, True)):
        text = "\n".join([*lines[:place], "No space left on device", *lines[place + 1 :]])
        assert (serving(text) != "the reason is below") is said
