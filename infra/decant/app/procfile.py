"""The Procfile of an app: its processes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

# gunicorn's options that take no value. Of any other option, the next argument is the value.
_GUNICORN_SWITCHES = frozenset(
    {
        "--check-config", "--print-config", "--reload", "--spew", "--preload", "--no-sendfile", "--reuse-port",
        "--daemon", "-D", "--initgroups", "--capture-output", "--log-syslog", "--disable-redirect-access-to-syslog",
        "-R", "--enable-stdio-inheritance", "--proxy-protocol", "--do-handshake-on-connect", "--no-control-socket",
        "--suppress-ragged-eofs", "--permit-obsolete-folding", "--strip-header-spaces", "--casefold-http-method",
        "--permit-unconventional-http-method", "--permit-unconventional-http-version",
    }
)  # fmt: skip
_APPLICATION = r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*(\(.*\))?)?"
DEFAULT_APP = "wsgi:app"


def read_procfile(folder: Path) -> dict[str, str]:
    """The commands of the folder's Procfile by process name; empty where there is no Procfile.

    Raises:
        ValueError: for a line that is not `name: command`, and for a file that is not UTF-8.
    """
    path = folder / "Procfile"
    if not path.exists():
        return {}
    processes: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, command = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_-]+", name.strip()):
            raise ValueError(f"Procfile: {line.strip()!r} is not of the form `name: command`")
        processes[name.strip()] = command.strip()
    return processes


def wsgi_app(web: str | None) -> str:
    """gunicorn's application argument in the command of `web:`; `wsgi:app` without a command.

    Raises:
        ValueError: where the command does not run gunicorn, or names no application.
    """
    if web is None:
        return DEFAULT_APP
    try:
        argv = shlex.split(web)
    except ValueError as error:
        raise ValueError(f"Procfile: the web: line cannot be read ({error})") from None
    programs = [PurePosixPath(argument).name for argument in argv]
    if "gunicorn" not in programs:
        raise ValueError(f"Procfile: web: runs {argv[0] if argv else 'nothing'}, but Decant runs gunicorn")
    arguments = iter(argv[programs.index("gunicorn") + 1 :])
    for argument in arguments:
        if not argument.startswith("-"):
            if not re.fullmatch(_APPLICATION, argument):
                raise ValueError(f"Procfile: {argument!r} is no application such as wsgi:app or 'shop:create_app()'")
            return argument  # like gunicorn, which takes the first argument that is no option
        has_value = "=" in argument or (len(argument) > 2 and not argument.startswith("--"))
        if not has_value and argument not in _GUNICORN_SWITCHES:
            next(arguments, None)  # the option's value
    raise ValueError("Procfile: the web: line names no application, such as wsgi:app")


def check_wsgi_app(folder: Path, app: str) -> None:
    """The module of the application is in the folder.

    Raises:
        ValueError: where it is not.
    """
    module = app.partition(":")[0].replace(".", "/")
    if not any((folder / file).is_file() for file in (f"{module}.py", f"{module}/__init__.py")):
        raise ValueError(f"has no entry point: {app} needs {module}.py or {module}/__init__.py")
