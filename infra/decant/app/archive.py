"""The app folder: what Decant reads from it, the reproducible tar made of it, and the id of a release.

Nothing here imports the app or needs Pulumi; the same folder gives the same bytes on every computer.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from decant.errors import AppError

RELEASE_ID = r"[0-9a-f]{12}"

# Never shipped, tracked or not: secrets, data of a local run, version control, environments, caches.
NEVER = frozenset(
    {
        ".git", ".hg", ".svn", ".env", ".venv", "venv", "env", "instance", "node_modules", "__pycache__",
        ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox", ".DS_Store", ".idea", ".vscode",
    }
)  # fmt: skip
# gunicorn's options that take no value; what follows any other is not the application.
_GUNICORN_SWITCHES = frozenset(
    {
        "--check-config", "--print-config", "--reload", "--spew", "--preload", "--no-sendfile", "--reuse-port",
        "--daemon", "-D", "--initgroups", "--capture-output", "--log-syslog", "--disable-redirect-access-to-syslog",
        "-R", "--enable-stdio-inheritance", "--proxy-protocol", "--do-handshake-on-connect", "--no-control-socket",
        "--suppress-ragged-eofs", "--permit-obsolete-folding", "--strip-header-spaces", "--casefold-http-method",
        "--permit-unconventional-http-method", "--permit-unconventional-http-version",
    }
)  # fmt: skip
LARGEST = 512 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class App:
    """An app folder that can be served, as far as can be told without importing it.

    `entry` is gunicorn's application argument, `static` a folder in the app or None, `requirements` the
    requirement files with those they include, `locked` whether each requirement carries a hash.
    """

    folder: Path
    entry: str
    static: str | None
    release_command: str | None
    requirements: tuple[str, ...]
    locked: bool
    local_requirements: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An app folder as one tar: `code` is the hash of its content, `sha256` that of the tar's bytes."""

    data: bytes = field(repr=False)
    code: str
    lock: str
    files: int

    @property
    def sha256(self) -> str:
        """Hash of the tar as it travels."""
        return hashlib.sha256(self.data).hexdigest()

    def write(self, folder: Path) -> Path:
        """Put the tar into `folder` under a name that says its content."""
        return keep(folder, f"app-{self.code[:12]}.tar", self.data)


def keep(folder: Path, name: str, data: bytes) -> Path:
    """Put a file named KIND-DIGEST.tar into `folder`, and remove old ones of its kind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists() or path.read_bytes() != data:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(data)
        unfinished.replace(path)
    for old in sorted(folder.glob(f"{name.partition('-')[0]}-*.tar"), key=lambda p: p.stat().st_mtime)[:-10]:
        if old != path:
            old.unlink(missing_ok=True)
    return path


# ------------------------------------------------------------------------------------------------ reading a folder


def read_app(folder: Path, *, static: str | None) -> App:
    """Look at an app folder. `static` is the setting, None for Flask's default. Raises AppError."""
    choose = "pulumi config set decant:app FOLDER"
    if not folder.is_dir():
        raise AppError("app", ("there is no such folder", choose))
    problems: list[tuple[str, str]] = []
    warnings: list[str] = []
    entry, release_command = "wsgi:app", None
    try:
        processes = _procfile(folder)
        entry = _entry(processes.get("web"))
        _check_entry(folder, entry)
        release_command = processes.get("release")
        for kind in sorted(processes.keys() - {"web", "release"}):
            warnings.append(f"Procfile: the {kind}: line is not run; Decant runs web: and release: alone")
    except ValueError as error:
        problems.append(
            (str(error), f"add wsgi.py with `app` to {folder.name}/, or a Procfile line, e.g. web: gunicorn shop:app")
        )
    requirements: tuple[str, ...] = ()
    locked, local = False, False
    try:
        requirements = tuple(_requirement_files(folder, "requirements.txt", set()))
        text = "\n".join((folder / f).read_text(encoding="utf-8") for f in requirements)
        locked, local = "--hash=" in text, _names_local_code(text)
        if not locked:
            warnings.append(
                f"{folder.name}/requirements.txt has no hashes: machines may install different versions. Lock it:"
                " uv pip compile --generate-hashes --python-version 3.13 requirements.in -o requirements.txt"
            )
    except ValueError as error:
        problems.append((str(error), f"pip freeze > {folder.name}/requirements.txt"))
    if static is None and (folder / "static").is_dir():
        static = "static"
    elif static is not None and not (folder / static).is_dir():
        missing = f"has no folder {static}, which decant:static names"
        problems.append((missing, "pulumi config rm decant:static"))
    if problems:
        raise AppError("app", *problems)
    return App(
        folder=folder,
        entry=entry,
        static=static,
        release_command=release_command,
        requirements=requirements,
        locked=locked,
        local_requirements=local,
        warnings=tuple(warnings),
    )


def _procfile(folder: Path) -> dict[str, str]:
    path = folder / "Procfile"
    if not path.exists():
        return {}
    processes: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kind, colon, command = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_-]+", kind.strip()):
            raise ValueError(f"Procfile: {line.strip()!r} is not of the form `name: command`")
        processes[kind.strip()] = command.strip()
    return processes


def _entry(web: str | None) -> str:
    """gunicorn's application argument out of a `web:` line; `wsgi:app` without one."""
    if web is None:
        return "wsgi:app"
    try:
        words = shlex.split(web)
    except ValueError as error:
        raise ValueError(f"Procfile: the web: line cannot be read ({error})") from None
    names = [PurePosixPath(word).name for word in words]
    if "gunicorn" not in names:
        raise ValueError(f"Procfile: web: runs {words[0] if words else 'nothing'}, but Decant runs gunicorn")
    rest = iter(words[names.index("gunicorn") + 1 :])
    for word in rest:
        if not word.startswith("-"):
            if not re.fullmatch(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*(\(.*\))?)?", word):
                raise ValueError(f"Procfile: {word!r} is no application such as wsgi:app or 'shop:create_app()'")
            return word  # gunicorn takes the first plain word
        attached = "=" in word or (len(word) > 2 and not word.startswith("--"))
        if not attached and word not in _GUNICORN_SWITCHES:
            next(rest, None)  # the option's value
    raise ValueError("Procfile: the web: line names no application, such as wsgi:app")


def _check_entry(folder: Path, entry: str) -> None:
    module = entry.partition(":")[0].replace(".", "/")
    if not any((folder / f).is_file() for f in (f"{module}.py", f"{module}/__init__.py")):
        raise ValueError(f"has no entry point: {entry} needs {module}.py or {module}/__init__.py")


def _requirement_files(folder: Path, name: str, seen: set[str]) -> Iterator[str]:
    """`name` and the files it includes with -r and -c, each once: `seen` collects them."""
    seen.add(name)
    path = folder / name
    if not path.is_file():
        raise ValueError(f"has no {name}, so nothing says what the app needs")
    yield name
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*(-e\b|--editable\b)", line):
            raise ValueError(f"{name}: {line.strip()!r} cannot be editable on a machine; leave out -e")
        included = re.match(r"\s*(?:-r|-c|--requirement[\s=]|--constraint[\s=])[\s=]*([^\s#]+)", line)
        if included:
            inner = os.path.normpath(PurePosixPath(name).parent / included[1])
            if inner.startswith(("..", "/")):
                raise ValueError(f"{name} includes {included[1]}, which is outside the app folder")
            if inner not in seen:
                yield from _requirement_files(folder, inner, seen)


def _names_local_code(text: str) -> bool:
    """Does a requirement point into the app folder itself (`.`, `./lib`), so that code is part of the lock?"""
    return any(re.match(r"\s*(\.{1,2}(/|$|\[)|file:|\S+\s*@\s*file:)", line) for line in text.splitlines())


# ------------------------------------------------------------------------------------------------ making the tar


def pack(app: App) -> Bundle:
    """The app folder as a tar. Raises AppError for a link that leads out of it, and for too large an app."""
    entries = sorted(_files(app.folder), key=lambda e: e[0])
    buffer = io.BytesIO()
    code = hashlib.sha256()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in entries:
            info = tarfile.TarInfo(name)
            if path.is_symlink():
                info.type, info.linkname, content = tarfile.SYMTYPE, _link_target(app.folder, path), b""
            else:
                content = path.read_bytes()
                info.size = len(content)
            # What Windows and umasks make of modes is noise; being a program or not is content.
            info.mode = 0o755 if path.is_symlink() or path.stat().st_mode & 0o100 else 0o644
            tar.addfile(info, io.BytesIO(content))
            code.update(json.dumps([name, info.mode, info.linkname, hashlib.sha256(content).hexdigest()]).encode())
            if buffer.tell() > LARGEST:
                raise AppError("app", (f"is over {LARGEST >> 20} MB", "move data out of it, or list it in .gitignore"))
    lock = hashlib.sha256()
    for name in app.requirements:
        lock.update((name + "\n" + (app.folder / name).read_text(encoding="utf-8")).encode())
    if app.local_requirements:
        lock.update(code.digest())
    return Bundle(data=buffer.getvalue(), code=code.hexdigest(), lock=lock.hexdigest(), files=len(entries))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    listed = _git_files(folder)
    names: Iterable[str] = listed if listed is not None else _walk(folder)
    for name in names:
        path = folder / name
        parts = PurePosixPath(name).parts
        hidden = any(part in NEVER or part.endswith(".pyc") or _holds_secrets(part) for part in parts)
        if path.is_dir() and not path.is_symlink() and not hidden:
            # git lists a repository inside the repository by its folder alone.
            yield from ((f"{name.rstrip('/')}/{inner}", file) for inner, file in _files(path))
        elif not hidden and not _is_environment(folder, parts) and (path.is_file() or path.is_symlink()):
            yield name, path


def _holds_secrets(name: str) -> bool:
    """.env.local, .env.production and the like; an example of one is for everybody."""
    return name.startswith(".env.") and not name.endswith((".example", ".sample", ".template"))


def _is_environment(folder: Path, parts: tuple[str, ...]) -> bool:
    return any((folder.joinpath(*parts[:i]) / "pyvenv.cfg").exists() for i in range(1, len(parts)))


def _git_files(folder: Path) -> list[str] | None:
    """Tracked files and those that are neither tracked nor ignored; None where git does not know the folder."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "-c",
        "core.fsmonitor=false",
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]
    try:
        listing = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    names = sorted({os.fsdecode(n) for n in listing.split(b"\0") if n})
    # A folder that is ignored as a whole lists nothing; its user still means it to be served.
    return names or None


def _walk(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in NEVER]
        here = Path(root)
        links = [f for f in folders if (here / f).is_symlink()]
        for name in files + links:
            yield (here / name).relative_to(folder).as_posix()


def _link_target(folder: Path, path: Path) -> str:
    target = path.readlink()
    inside = (path.parent / target).resolve().is_relative_to(folder.resolve())
    if target.is_absolute() or not inside:
        name = path.relative_to(folder)
        raise AppError(
            "app", (f"has a link {name} that leads out of the folder", f"replace {name} by what it points to")
        )
    return target.as_posix()


# ------------------------------------------------------------------------------------------------ naming a release


def release_id(bundle: Bundle, shape: Mapping[str, Any], secrets: Mapping[str, str], key: str) -> str:
    """The id of a release: 12 hexadecimal digits over everything that serves a request.

    `shape` is what settings add to the code (entry point, environment, workers, ...). Secrets enter by an HMAC
    with a key that only the stack has: the id can be shown, and guessing a secret against it takes that key.
    """
    mac = ""
    if secrets:
        secret_key = hashlib.sha256(b"decant release id\0" + key.encode()).digest()
        mac = hmac.new(secret_key, _canonical(secrets), hashlib.sha256).hexdigest()
    return hashlib.sha256(_canonical([bundle.code, bundle.lock, shape, mac])).hexdigest()[:12]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
