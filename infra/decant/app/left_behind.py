"""What of an app folder stays behind, or is shipped in a state that cannot be meant, and the command that mends it."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from decant.app.files import (
    ENVIRONMENTS,
    NEVER,
    NODE_MODULES,
    app_files,
    list_files,
    printable,
    repository,
    run_git,
    source_folder,
)
from decant.app.model import AppOptions
from decant.app.shown import shown
from decant.app.unbuilt import build_command

LARGEST_TEXT = 1 << 20
MOST_COMMANDS = 25

# Variables that Decant sets itself, and refuses as settings (decant.settings.parsers).
SET_BY_DECANT = ("DATA_DIR", "DECANT_RELEASE", "DECANT_MACHINE", "PROXY_HOPS", "CREDENTIALS_DIRECTORY", "PORT")
# What `flask run` on a developer's computer reads.
_DEVELOPMENT = re.compile(r"FLASK_(APP|ENV|DEBUG|RUN_\w+|SKIP_DOTENV)$|GUNICORN_|PYTHON(UNBUFFERED|DONTWRITEBYTECODE)$")
_SECRET = re.compile(
    r"KEY|SECRET|TOKEN|PASS|PWD|CREDENTIAL|DSN|SALT|PRIVATE|AUTH|SIGNATURE|(DATABASE|DB|REDIS|MONGO\w*|BROKER)_UR[IL]$"
)
_MADE_BY_THE_APP = (".db", ".sqlite", ".sqlite3", ".log", ".pid", ".tmp")
_POINTER = b"version https://git-lfs.github.com/spec/"
_CODE = (".py", ".html", ".htm", ".jinja", ".jinja2", ".j2", ".toml", ".cfg", ".ini", ".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """Sentences about files: `notes` inform; `warnings` name what the app may miss."""

    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_left_behind(folder: Path, options: AppOptions) -> LeftBehind:
    """Files that stay behind although the app may need them, and files that are shipped in a wrong state (Git LFS
    pointers, empty submodules).

    Raises:
        AppError: where the files cannot be listed.
    """
    shipped = dict(app_files(folder))
    code = _code(shipped)
    folder = source_folder(folder)
    warnings = [
        *_environment_files(folder, options),
        *_instance(folder),
        *_pointers(folder, shipped),
        *_submodules(folder),
        *_ignored(folder, options, code),
        *_tool_folders(folder, options, shipped, code),
    ]
    return LeftBehind(notes=tuple(_special_files(folder)), warnings=tuple(warnings))


def _code(shipped: Mapping[str, Path]) -> str:
    """The text of the app's code and templates, to see which names are in it."""
    texts = []
    for name, path in shipped.items():
        if name.endswith(_CODE) and NODE_MODULES not in name and path.is_file():
            try:
                if path.stat().st_size <= LARGEST_TEXT:
                    texts.append(path.read_text(encoding="utf-8", errors="replace"))
            except OSError:
                continue  # `pack` reports a file that cannot be read
    return "\n".join(texts)


def _listed(names: list[str]) -> str:
    first = [printable(name) for name in names[:5]]
    return ", ".join(first) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ------------------------------------------------------------------------------------------------ environment


def _environment_files(folder: Path, options: AppOptions) -> Iterator[str]:
    """A .env with the commands that set its variables. No value of it is ever shown."""
    known = {*options.env, *options.secret_names, *SET_BY_DECANT}
    for path in (folder / ".env", *sorted(folder.glob(".env.prod*"))):
        if path.name.endswith((".example", ".sample", ".template")) or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            continue  # it is not shipped anyway
        variables = {name: value for name, value in _variables(text) if name not in known}
        if not variables:
            continue
        known |= variables.keys()
        commands = [f"\n      {_command(name, value)}" for name, value in variables.items()]
        more = f"\n      and {len(commands) - MOST_COMMANDS} more" if len(commands) > MOST_COMMANDS else ""
        yield (
            f"{path.name} stays behind, because it may hold secrets. Set those of its variables that the app needs:"
            + "".join(commands[:MOST_COMMANDS])
            + more
        )


def _variables(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*(.*)$", text, re.MULTILINE):
        if not _DEVELOPMENT.match(match[1]):
            yield match[1], match[2]


def _command(name: str, value: str) -> str:
    if _SECRET.search(name.upper()) or re.search(r"://[^/\s:]*:[^@\s]+@|BEGIN [A-Z ]*PRIVATE KEY", value):
        return f"pulumi config set --secret --path 'decant:secrets.{name}'      # asks for the value"
    return f"pulumi config set --path 'decant:env.{name}' VALUE"


def _instance(folder: Path) -> Iterator[str]:
    """Flask's instance folder holds data of this computer; a configuration in it is what an app may miss."""
    files = [p.name for p in sorted((folder / "instance").glob("*.*")) if p.suffix in (".py", ".cfg", ".toml", ".json")]
    if files:
        yield (
            f"instance/{files[0]} stays behind, because the folder instance holds data and secrets of this computer."
            " Set what the app reads from it: pulumi config set --secret --path 'decant:secrets.NAME'"
        )


# ------------------------------------------------------------------------------------------------ git


def _pointers(folder: Path, shipped: Mapping[str, Path]) -> Iterator[str]:
    found = []
    for name, path in shipped.items():
        try:
            if path.is_file() and path.stat().st_size < 1024:
                with path.open("rb") as file:
                    found += [name] if file.read(len(_POINTER)) == _POINTER else []
        except OSError:
            continue  # `pack` reports a file that cannot be read
    if found:
        yield (
            f"{_listed(found)}: a pointer of Git LFS is shipped in place of the file itself. Get the files:"
            f" git -C {shlex.quote(shown(folder))} lfs pull"
        )


def _submodules(folder: Path) -> Iterator[str]:
    root = repository(folder) or folder
    try:
        text = (root / ".gitmodules").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    resolved = folder.resolve()
    for name in re.findall(r"^\s*path\s*=\s*(.+?)\s*$", text, re.MULTILINE):
        path = (root / name).resolve()
        inside = path.is_relative_to(resolved)
        if inside and not (path.is_dir() and any(path.iterdir())):
            place = path.relative_to(resolved).as_posix()
            yield (
                f"{printable(place)} is a git submodule without files, so nothing of it is shipped. Get it:"
                f" git -C {shlex.quote(shown(folder))} submodule update --init {shlex.quote(printable(place))}"
            )


def _ignored(folder: Path, options: AppOptions, code: str) -> Iterator[str]:
    """Files that git ignores and that the app plainly needs: static files, templates, modules, files that it names."""
    if repository(folder) is None or list_files(folder).tracked is None:
        return
    names = run_git(folder, "ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory")
    wanted = {options.static or "static", "static", "templates"}
    built = []
    for name in names:
        path = PurePosixPath(name)
        # git lists a folder that holds nothing but ignored ones, and these as well.
        if _is_never(path) or any(other != name and other.startswith(name) for other in names):
            continue
        track = f"git add -f {shlex.quote(f'{shown(folder)}/{printable(name)}')}"
        if wanted & set(path.parts):
            built.append(name.rstrip("/"))
        elif (path.suffix == ".py" or (folder / name / "__init__.py").exists()) and _imports(code, path):
            yield (
                f"{printable(name)} stays behind, because git ignores it, and the app imports {path.stem}. Track it:"
                f" {track}, or read its values from the environment"
            )
        elif path.suffix not in _MADE_BY_THE_APP and (folder / name).is_file() and _names(code, path):
            yield (
                f"{printable(name)} stays behind, because git ignores it, and its name is in the app's code."
                f" Track it: {track}"
            )
    if built and not options.build:
        yield (
            f"git ignores these, so they stay behind: {_listed(built)}. If a build makes them, let Decant run"
            f" that build: pulumi config set decant:build {build_command(folder)}"
        )


def _is_never(path: PurePosixPath) -> bool:
    left_out = NEVER | ENVIRONMENTS | {NODE_MODULES}
    return bool(left_out & set(path.parts)) or path.suffix == ".pyc" or path.name.startswith(".")


def _names(code: str, path: PurePosixPath) -> bool:
    return re.search(rf"['\"/]{re.escape(path.name)}['\"]", code) is not None


def _imports(code: str, path: PurePosixPath) -> bool:
    name = re.escape(path.stem)
    return bool(re.search(rf"^\s*(?:from\s+\.?(?:[\w.]+\.)?{name}\s+import|import\s+(?:[\w.]+\.)?{name}\b)"
                          rf"|^\s*from\s+[\w.]+\s+import\s+(?:.*\W)?{name}\b", code, re.MULTILINE))  # fmt: skip


# ------------------------------------------------------------------------------------------------ tools' folders


def _tool_folders(folder: Path, options: AppOptions, shipped: Mapping[str, Path], code: str) -> Iterator[str]:
    """node_modules that templates use and git does not track, and a package `env` that looks like an environment."""
    static_modules = sorted(
        path.relative_to(folder).as_posix()
        for depth in ("", "*/", "*/*/")
        for path in folder.glob(f"{depth}{NODE_MODULES}")
        if path.is_dir()
    )
    for name in static_modules:
        if (
            not options.build
            and f"{NODE_MODULES}/" in code
            and not any(inner.startswith(f"{name}/") for inner in shipped)
        ):
            parent = PurePosixPath(name).parent.as_posix()
            command = "npm ci" if (folder / parent / "package-lock.json").exists() else "npm install"
            prefix = "" if parent == "." else f" --prefix {parent}"
            yield (
                f"{name} stays behind, and the app uses files of it. Let Decant make it:"
                f" pulumi config set decant:build '{command}{prefix}', or track it: git add -f {shown(folder)}/{name}"
            )
    for name in sorted(ENVIRONMENTS):
        path = folder / name
        own = path.is_dir() and any(path.glob("*.py")) and not (path / "pyvenv.cfg").exists()
        used = re.search(rf"^\s*(?:from|import)\s+{name}\b", code, re.MULTILINE)
        if own and used and not any(inner.startswith(f"{name}/") for inner in shipped):
            yield (
                f"{name}/ stays behind, because virtual environments have that name, and the app imports {name}. If it"
                f" is a package of the app: touch {shlex.quote(f'{shown(folder)}/{name}/__init__.py')}"
            )


def _special_files(folder: Path) -> Iterator[str]:
    """Named pipes, sockets and devices, which no archive can hold. git lists none of them."""
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            yield f"{printable(path.name)} is no file (a named pipe, a socket or a device) and stays behind"
