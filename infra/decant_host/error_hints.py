"""Hints for error texts of the app: why a release does not serve, and what to do, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decant_host import install_hints, missing_hints, writing_hints
from decant_host.debian import PYTHON
from decant_host.python_changes import LATER_NAMES, MOVED, REMOVED_NAMES

Settings = Mapping[str, Any]
Group = Sequence[tuple[str, str | Callable[[re.Match[str], Settings], str | None]]]
"""Pairs of a pattern in the output and the hint for it. {0} and {1} are the pattern's groups, names are settings.

A function makes the hint from the match; it returns None where the pattern means nothing to it.
"""

Hints = Sequence[Group]
"""Groups are tried one after the other. Within one, the match that ends nearest to the end of the text counts, because
the last exception of a traceback is the one that ended the program. Of matches with the same end, the first does."""

DEFAULTS: Settings = {
    "entry": "the entry point",
    "path": "/healthz",
    "timeout": 15,
    "name": "",
    "python": PYTHON,
    "own": PYTHON,
    "persistent": 0,
    "app": None,
    "requirements": "requirements.txt",
    "version": "",
    "variable": "TOKEN",
    "table_line": "",
}

LINES = 300
"""Lines of a longer text that are searched: half of them at its beginning, half at its end."""

_NAME = r"['\"]?([\w.-]+)['\"]?"
_NEW_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))' | pulumi config set --secret --path"

# What the release answered says more than its log, which may hold errors that the app outlives.
_ANSWERS: Group = (
    (r"answered status 404", "nothing answers at {path}. Set decant:healthPath to a path that answers 200"),
    (
        r"answered status 40[13]",
        "{path} asks for a login. Set decant:healthPath to a path that answers 200 to anybody",
    ),
    (r"status 30\d", "the health path {path} redirects. Set decant:healthPath to a path that answers 200 itself"),
    (r"status 400", "the app refuses the site's own name, {name}. Does it set TRUSTED_HOSTS?"),
)


def _older(match: re.Match[str], settings: Settings) -> str:
    return _too_new(match[1], dict(REMOVED_NAMES)[match.re.pattern], settings)


def _too_new(name: str, last: str, settings: Settings) -> str:
    return (
        f"the app or one of its packages uses {name}, which Python {settings['python']} no longer has. Take a newer"
        f" version of that package, or an older Python: pulumi config set decant:python {last}"
    )


def _newer(match: re.Match[str], settings: Settings) -> str:
    first = dict(LATER_NAMES)[match.re.pattern]
    return (
        f"the app needs Python {first} or newer ({match[1]}), and runs on {settings['python']}:"
        f" pulumi config set decant:python {first}"
    )


def _moved(match: re.Match[str], settings: Settings) -> str:
    line = dict(MOVED)[match.re.pattern]
    package, old = re.split(r"[<>]", line)[0], ">" in line
    return (
        f"the installed {package} is too {'old' if old else 'new'} for this code ({match[0].strip()})."
        f" Add this line to {settings['requirements']}: {line}"
    )


def _variable(match: re.Match[str], settings: Settings) -> str:
    return f"the variable {match[1]} is not set. Set it: {set_command(match[1])}"


def another_python(version: str) -> str:
    """A Python to try where something does not run on `version`: the one before, or the one after the oldest."""
    minor = int(version.split(".")[1])
    return f"3.{minor - 1 if minor > install_hints.OLDEST else minor + 1}"


def set_command(name: str) -> str:
    """The command that sets a variable of the app; a secret's value is asked for."""
    if re.search(r"KEY|SECRET|TOKEN|PASS|PWD|CREDENTIAL|DSN|SALT|DATABASE|_UR[IL]$|MONGO|REDIS", name.upper()):
        return f"pulumi config set --secret --path 'decant:secrets.{name}'"
    return f"pulumi config set --path 'decant:env.{name}' VALUE"


_VERSIONS: Group = (
    *((pattern, _older) for pattern, _ in REMOVED_NAMES),
    *((pattern, _newer) for pattern, _ in LATER_NAMES),
    *((pattern, _moved) for pattern, _ in MOVED),
    (
        r"No module named '(flask\.ext)\.(\w+)'",
        "flask.ext is gone since Flask 1.0. Write `import flask_{1}` in place of {0}.{1}",
    ),
    (
        r"SyntaxError: (Missing parentheses in call to '\w+')",
        "the code is for Python 2, which no machine has: {0}. Convert it first: pipx run 2to3 -w .",
    ),
    (
        r"(?:SyntaxError|IndentationError|TabError): (.*)",
        lambda match, settings: (
            f"the code is not valid Python {settings['python']}: {match[1]}. If it is for another one:"
            f" pulumi config set decant:python {another_python(settings['python'])}"
        ),
    ),
)

_VARIABLES: Group = (
    # os.environ[NAME] has this frame; a dictionary has none.
    (r"<frozen os>\", line \d+, in __getitem__\n(?:.*\n)?\s*KeyError: '(\w+)'", _variable),
    (r"[/\\]os\.py\", line \d+, in __getitem__\n(?:.*\n){0,2}\s*KeyError: '(\w+)'", _variable),
    (r"UndefinedValueError: (\w+) not found", _variable),
    (r"EnvError: Environment variable \"(\w+)\" not set", _variable),
    (r"[Mm]issing (?:required )?env(?:ironment)? var(?:iable)?s?:? '?\"?(\w+)", _variable),
    (r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?: environment variable)? (?:is |was |must be |has )?(?:not set|not been set"
     r"|not defined|is required|required)\b", _variable),
    (
        r"no secret key was set|[Aa] secret key is required|Must provide a secret key|secret[_ ]key (?:is )?not set"
        r"|SECRET_KEY (?:is )?(?:not set|required|must be set|missing)",
        f"the app has no secret key. Set one: {_NEW_KEY} 'decant:secrets.SECRET_KEY'",
    ),
    (
        r"Either 'SQLALCHEMY_DATABASE_URI' or 'SQLALCHEMY_BINDS' must be set|Neither SQLALCHEMY_DATABASE_URI"
        r"|Expected string or URL object, got None|Could not parse (?:rfc1738|SQLAlchemy) URL from (?:given URL )?"
        r"string ''",
        "the app gets no database URL. Set the variable that it reads it from, for example:"
        " pulumi config set --secret --path 'decant:secrets.DATABASE_URL'",
    ),
    (
        r"Can't load plugin: sqlalchemy\.dialects:postgres\b",
        "SQLAlchemy needs postgresql:// where the database URL has postgres://. Set it again:"
        " pulumi config set --secret --path 'decant:secrets.DATABASE_URL'",
    ),
    (
        rf"KeyError: {_NAME}",
        "KeyError {0}. If that is a variable, set it: pulumi config set --path 'decant:env.{0}' VALUE",
    ),
)  # fmt: skip

_SERVICES: Group = (
    (
        r"could not translate host name \"?([\w.-]+)|getaddrinfo failed for '?([\w.-]+)|Unknown (?:MySQL )?server host"
        r" '([\w.-]+)'|Error -[235] connecting to ([\w.-]+):|host='([\w.-]+)', port=\d+\).*(?:NameResolution|resolve)"
        r"|failed to resolve host '([\w.-]+)'|([\w.-]+):\d+: \[Errno -[235]\]",
        lambda match, settings: (
            f"the app connects to a server named {next(g for g in match.groups() if g)}, which does not exist here"
            " (Docker Compose has such names). Set the variable that names it, for example:"
            " pulumi config set --secret --path 'decant:secrets.DATABASE_URL'"
        ),
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|nodename nor servname",
        "the app connects to a server whose name does not exist here. Set the variable that names it, for example:"
        " pulumi config set --secret --path 'decant:secrets.DATABASE_URL'",
    ),
    (
        r"(?:password|[Ii]dent|[Pp]eer) authentication failed for user|Access denied for user|WRONGPASS|NOAUTH",
        "the database refuses the user or the password. Set the variable that holds them again, for example:"
        " pulumi config set --secret --path 'decant:secrets.DATABASE_URL'",
    ),
    (
        r"no such table: ([\w.]+)|relation \"([\w.]+)\" does not exist|Table '([\w.]+)' doesn't exist",
        lambda match, settings: (
            f"the database has no table {next(g for g in match.groups() if g)}. Add the line that makes it to the"
            f" Procfile: {settings['table_line'] or 'release: flask db upgrade'}"
        ),
    ),
    (
        r"(?:database|FATAL:\s+database) \"([\w-]+)\" does not exist|Unknown database '([\w-]+)'",
        lambda match, settings: f"the database {match[1] or match[2]} does not exist: create it on the database server",
    ),
    (
        r"Error 111 connecting to (?:localhost|127\.0\.0\.1):6379|redis\S*ConnectionError"
        r"|Redis connection to (?:localhost|127\.0\.0\.1)",
        "no Redis answers, and Decant runs none. Set the variable that names one, for example:"
        " pulumi config set --secret --path 'decant:secrets.REDIS_URL'",
    ),
    (
        r"(?:connection to server at|Can't connect to (?:MySQL|MariaDB) server on|ServerSelectionTimeoutError:)"
        r" \"?'?(?:localhost|127\.0\.0\.1|::1)",
        "the app connects to a database on this machine, and Decant runs none. Set the variable that names one, for"
        " example: pulumi config set --secret --path 'decant:secrets.DATABASE_URL'",
    ),
    (
        r"ConnectionRefusedError|[Cc]onnection refused|Can't connect to (?:MySQL|MariaDB) server"
        r"|ServerSelectionTimeoutError",
        "a server that the app connects to refuses the connection: is it running, and may this machine reach it?",
    ),
)

_SERVING: Group = (
    (
        r"class uri '(geventwebsocket|gevent|eventlet|tornado|uvicorn|meinheld)[\w.]*' invalid or not found",
        lambda match, settings: (
            f"the worker class needs a package that is not there. Add {missing_hints.requirement(match[1])} to"
            f" {settings['requirements']}"
        ),
    ),
    (
        r"(gevent|eventlet|tornado) worker requires \w+ ([\d.]+) or higher",
        "the worker class needs a newer package. Add this line to {requirements}: {0}>={1}",
    ),
    (
        r"Invalid (?:session|websocket upgrade) \S*|Unknown session ID|Session is not connected|'Invalid session'",
        "Socket.IO needs all requests of a client in one process: pulumi config set decant:workers 1",
    ),
    (
        r"Address already in use|\* Serving Flask app|\* Running on (?:http|all addresses)|wsgi starting up on",
        "the app starts a server of its own when it is imported. Put app.run() or socketio.run() under"
        " `if __name__ == '__main__':`",
    ),
    (
        r"signal only works in main thread",
        "the app sets a signal handler in a thread, such as that of a development server. Put app.run() under"
        " `if __name__ == '__main__':`, without debug and reloader",
    ),
    (
        rf"Failed to find attribute {_NAME}",
        "{entry} names {0}, which its module does not have. Name what it has:"
        " pulumi config set decant:wsgiApp 'MODULE:NAME'",
    ),
    (
        r"TypeError: (\w+)\(\) missing \d+ required positional arguments?: (.*)",
        "{0}() needs arguments that nobody gives it: {1}. If it is the app's factory, name it with them:"
        " pulumi config set decant:wsgiApp 'MODULE:{0}(...)'",
    ),
    (r"No space left on device", "the disk is full. See what fills it: df -h"),
    (
        r"oom-kill|signal, 9|signal 9|was sent SIGKILL|out of memory|MemoryError",
        "out of memory. Choose a larger decant:size or fewer decant:workers",
    ),
    (
        r"(?:core-dump|signal), exit status (?:4|ILL)|Illegal instruction",
        "a package needs a processor with more instructions (such as AVX) than the machine has. Choose another"
        " decant:size, or an older version of the package",
    ),
    (
        r"(?:core-dump|signal), exit status (?:11|SEGV)|Segmentation fault",
        lambda match, settings: (
            "a package with compiled parts crashes. Choose another version of it, or another Python:"
            f" pulumi config set decant:python {another_python(settings['python'])}"
        ),
    ),
)

_GENERAL: Group = (
    (r"status 5\d\d", "the health path {path} answers with an error; the log below says which"),
    (r"no answer within", "the health path {path} does not answer in time (decant:healthTimeout is {timeout} s)"),
    (r"stopped by itself soon after", "it starts, answers, and crashes seconds later; the log below says where"),
    (r"it stopped by itself", "it crashes when it starts; the log below says where"),
    (
        r"not healthy within",
        "it takes longer to start than decant:healthTimeout, which is {timeout} s:"
        " pulumi config set decant:healthTimeout 180",
    ),
)

NOT_SERVING: Hints = (
    _ANSWERS,
    (
        *writing_hints.HINTS,
        *_VERSIONS,
        *missing_hints.hints(_too_new),
        *_VARIABLES,
        *_SERVICES,
        *_SERVING,
    ),
    *((row,) for row in _GENERAL),
)

NOT_INSTALLED: Hints = tuple((row,) for row in install_hints.ROWS)
WITH_LOGIN: Hints = tuple((row,) for row in install_hints.WITH_LOGIN)
NO_PYTHON: Hints = tuple((row,) for row in install_hints.NO_PYTHON)


def requirements_file(settings: Settings) -> str:
    """Where a release's packages are named, for people."""
    # Releases made before version 0.7 have no such list.
    names = [str(name) for name in settings.get("install", ("requirements.txt",))]
    files = (name for name in names if name.endswith((".txt", ".in")) and "decant" not in name)
    return next(files, "the app's dependencies")


def find_hint(hints: Hints, text: str, *, otherwise: str, **settings: object) -> str:
    """The hint for what the text says (see Hints); `otherwise` where there is none."""
    known = {**DEFAULTS, **settings}
    # A line of many kilobytes says no more than its beginning, and would make the search slow.
    lines = [line[:1000] for line in text.splitlines()]
    text = "\n".join(lines if len(lines) <= LINES else lines[: LINES // 2] + lines[-LINES // 2 :])
    for group in hints:
        found: list[tuple[int, str]] = []
        for pattern, hint in group:
            for match in re.finditer(pattern, text):
                if isinstance(hint, str):
                    said: str | None = hint.format(*(part or "" for part in match.groups()), **known)
                else:
                    said = hint(match, known)
                if said:
                    found.append((match.end(), said))
        if found:
            # The line and not the character: a longer pattern of the same line says no more.
            ends = [(text.count("\n", 0, end), said) for end, said in found]
            last = max(line for line, _ in ends)
            return next(said for line, said in ends if line == last)
    return otherwise
