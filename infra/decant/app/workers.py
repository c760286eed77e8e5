"""gunicorn's workers: classes that need a package, and apps that need exactly one process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decant.app.gunicorn_config import GunicornConfig
from decant.app.model import AppOptions
from decant.app.python_source import python_files
from decant.app.shown import shown
from decant.app.text_files import decode_leniently
from decant.errors import AppError

_PACKAGES = {"gevent": "gevent", "gevent_wsgi": "gevent", "gevent_pywsgi": "gevent", "eventlet": "eventlet",
             "tornado": "tornado"}  # fmt: skip
_FILES = ("requirements*.txt", "requirements*.in", "requirements/*.txt", "*/requirements*.txt", "pyproject.toml",
          "uv.lock", "poetry.lock", "Pipfile", "Pipfile.lock", "setup.py", "setup.cfg")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _OneWorker:
    """Why an app has to have exactly one worker, as parts of sentences."""

    note: str
    needs: str
    harm: str


_SOCKET_IO = _OneWorker(
    note="Flask-SocketIO without a message queue keeps its sessions in one process",
    needs="Flask-SocketIO without a message queue needs",
    harm="visitors would lose their sessions",
)
_EVENTS = _OneWorker(
    note="server-sent events from a queue in memory reach the visitors of one process alone",
    needs="server-sent events from a queue in memory need",
    harm="visitors of the other processes would miss them",
)


def check_workers(
    folder: Path, used: dict[str, Any], config: GunicornConfig | None, options: AppOptions, notes: list[str], place: str
) -> list[str]:
    """Settle whether an app has to have one worker, and whether a worker class can be imported.

    Changes `used` and `notes`; the warnings come back.

    Raises:
        AppError: for a worker class whose package the app does not name.
    """
    named = str(used.get("worker_class", ""))
    first = named.partition(".")[0]
    package = _PACKAGES.get(named) or (first if "." in named else None)
    known = package and package not in ("gunicorn",) and not (folder / package).exists()
    if known and package and not (folder / f"{package}.py").exists():
        text = "\n".join(_requirements(folder))
        names = {"geventwebsocket": "gevent-websocket"}.get(package, package)
        if text and not re.search(rf"(?i)\b{re.escape(names).replace('_', '[-_]')}\b", text):
            fix = f"echo {names} >> {shown(folder)}/requirements.txt"
            raise AppError("app", (f"gunicorn's worker class {named} needs {names}, which no requirement names", fix))
        if package == "eventlet" and not _gunicorn_below(text, 26):
            fix = f"echo 'gunicorn<26' >> {shown(folder)}/requirements.txt, or {place}-k gthread ..."
            raise AppError("app", ("gunicorn 26 and newer have no worker class eventlet", fix))
    given = options.workers or used.get("workers") or options.env.get("WEB_CONCURRENCY")
    computed = config is not None and "workers" in config.names
    alone = _needs_one_worker(folder)
    if alone is None:
        return []
    if not given and not computed:
        used["workers"] = 1
        notes.append(f"{alone.note}, so Decant starts 1 worker")
        return []
    if str(given) == "1":
        return []
    asked = given or f"the number in {config.file}" if config else given
    return [
        f"{alone.needs} exactly 1 worker, and {asked} are asked for: {alone.harm}."
        " To change that: pulumi config set decant:workers 1"
    ]


def _gunicorn_below(text: str, major: int) -> bool:
    """Whether the requirements name a gunicorn below a version: without any, the newest is installed."""
    name = r"^\s*['\"]?gunicorn(?:\[[^\]]*\])?\s*"
    exact = re.search(rf"(?im){name}(?:==|~=)\s*(\d+)", text) or re.search(
        r'(?i)name = "gunicorn"\s+version = "(\d+)|"gunicorn"\s*:\s*\{[^}]*"version":\s*"==(\d+)', text
    )
    if exact:
        return int(exact[1] or exact[2]) < major
    upper = re.search(rf"(?im){name}[^\n#]*?<(=?)\s*(\d+)", text)
    return bool(upper and int(upper[2]) + (upper[1] == "=") <= major)


def _needs_one_worker(folder: Path) -> _OneWorker | None:
    """Why an app has to have one worker; None where it may have any number."""
    text = "\n".join(decode_leniently(path.read_bytes()) for path in python_files(folder))
    if re.search(r"^\s*(from|import)\s+flask_socketio\b", text, re.MULTILINE) and "message_queue" not in text:
        return _SOCKET_IO
    queue = re.search(r"^\s*import\s+(.*,\s*)?queue\b|^\s*from\s+queue\s+import\b|\bqueue\.Queue\(", text, re.MULTILINE)
    if queue and "text/event-stream" in text and not _names_redis(text) and not _names_redis(*_requirements(folder)):
        return _EVENTS
    return None


def _names_redis(*texts: str) -> bool:
    return any(re.search(r"(?i)\bredis\b", text) for text in texts)


def _requirements(folder: Path) -> Iterator[str]:
    for pattern in _FILES:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield decode_leniently(path.read_bytes())
