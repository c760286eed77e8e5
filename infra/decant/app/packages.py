"""The packages of an app: which of the files that name them is used, and what a machine installs.

The first of these that is there is used; notes say which others are not:

1. requirements.txt, with the files that it includes, if it names a package
2. uv.lock, 3. poetry.lock, 4. Pipfile.lock: as requirements with hashes, made here
5. pyproject.toml, 6. setup.py or setup.cfg
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from decant.app import locks
from decant.app.files import app_files
from decant.app.model import AppOptions, Packages
from decant.app.pins import check_gunicorn, clashes, in_its_place
from decant.app.project_files import is_installed, names_packages, read_pyproject, serving_extra
from decant.app.python_version import SYSTEM, read_python
from decant.app.requirement_checks import applies, check_requirements
from decant.app.requirement_versions import asked_versions
from decant.app.requirements import (
    Entry,
    Problem,
    Requirements,
    has_credentials,
    hide_credentials,
    parse_requirements,
    read_requirements,
)
from decant.app.shown import shown
from decant.app.system_libraries import system_libraries, system_notes
from decant.app.text_files import read_text
from decant.errors import AppError

GENERATED = "decant-requirements.txt"
"""What machines install in place of a lock of another form, or of requirements that uv cannot read as they are."""

CONSTRAINTS = "decant-constraints.txt"
OVERRIDES = "decant-overrides.txt"

_VARIANTS = ("requirements/*.txt", "requirements-*.txt", "requirements_*.txt", "*requirements.txt", "requirements.in")
_PRODUCTION = ("prod", "production", "deploy", "heroku", "base", "main", "common", "web")


def read_packages(folder: Path, options: AppOptions) -> Packages:
    """The packages of an app folder.

    Raises:
        AppError: with all problems, where they cannot be installed.
    """
    try:
        python = read_python(folder, options).version
    except AppError:
        python = SYSTEM  # `read_app` reports it
    sources = _sources(folder)
    if not sources:
        raise AppError("app", _nothing(folder))
    name, read = sources[0]
    packages = read(folder, options, python)
    unused = [
        other for other, _ in sources[1:] if not (other == "pyproject.toml" and name in ("uv.lock", "poetry.lock"))
    ]
    note = f"packages come from {name}; {_and(unused)} {'is' if len(unused) == 1 else 'are'} not used for them"
    return replace(packages, notes=(*((note,) if unused else ()), *packages.notes))


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


_Reader = Callable[[Path, AppOptions, str], Packages]


def _sources(folder: Path) -> list[tuple[str, _Reader]]:
    """The files that say what the app needs, the one that is used first."""

    def has(*names: str) -> bool:
        return all((folder / name).is_file() for name in names)

    found: list[tuple[str, _Reader]] = []
    if has("requirements.txt") and _names_something(folder):
        found.append(("requirements.txt", _from_requirements))
    if has("uv.lock", "pyproject.toml"):
        found.append(("uv.lock", _from_uv_lock))
    if has("poetry.lock", "pyproject.toml"):
        found.append(("poetry.lock", _from_poetry_lock))
    if has("Pipfile.lock"):
        found.append(("Pipfile.lock", _from_pipfile_lock))
    if names_packages(read_pyproject(folder)):
        found.append(("pyproject.toml", _from_pyproject))
    found.extend((name, _from_setup) for name in ("setup.py", "setup.cfg") if _is_setup(folder / name))
    if not found and has("requirements.txt") and not _imports_flask(folder):
        found.append(("requirements.txt", _from_requirements))  # empty: an app that needs gunicorn alone
    return found


def _names_something(folder: Path) -> bool:
    try:
        return bool(read_requirements(folder).packages)
    except AppError:
        return True  # whoever reads it again reports the problem


def _is_setup(path: Path) -> bool:
    """Whether it describes a package; setup.cfg often holds only the settings of tools."""
    return path.is_file() and (path.name == "setup.py" or "[options]" in read_text(path))


def _imports_flask(folder: Path) -> bool:
    return any(
        name.endswith(".py") and re.search(rb"^\s*(?:from|import)\s+flask\b", path.read_bytes(), re.MULTILINE)
        for name, path in app_files(folder)
    )


def _nothing(folder: Path) -> Problem:
    """The problem of a folder where no file that Decant reads says what the app needs."""
    here = shown(folder)
    for name, fix in (
        ("Pipfile", f"(cd {here} && pipenv lock)"),
        ("pdm.lock", f"(cd {here} && pdm export --prod --output requirements.txt)"),
        ("environment.yml", f"pip list --format=freeze > {here}/requirements.txt, in that environment"),
        ("environment.yaml", f"pip list --format=freeze > {here}/requirements.txt, in that environment"),
    ):
        if (folder / name).is_file():
            return f"has {name}, which says what the app needs, but not in a form that machines install", fix
    variants = sorted(
        {p.relative_to(folder).as_posix() for v in _VARIANTS for p in folder.glob(v)} - {"requirements.txt"}
    )
    if variants:
        best = min(
            variants, key=lambda v: next((i for i, word in enumerate(_PRODUCTION) if word in v), len(_PRODUCTION))
        )
        text = f"has no requirements.txt; which of these says what the app needs here? {', '.join(variants)}"
        return text, f"echo '-r {best}' > {here}/requirements.txt"
    if (folder / "requirements.txt").is_file():
        return "has an empty requirements.txt, and its code imports flask", f"echo flask >> {here}/requirements.txt"
    return (
        "has no requirements.txt, pyproject.toml or lock, so nothing says what the app needs",
        f"pip freeze > {here}/requirements.txt, where the app runs today; or: echo flask > {here}/requirements.txt",
    )


def _from_requirements(folder: Path, options: AppOptions, python: str) -> Packages:
    requirements = read_requirements(folder)
    changes = _check(requirements, folder, python, options, loose=not requirements.hashed)
    arguments = _arguments(requirements)
    generated: dict[str, bytes] = {}
    install, files = ("--requirement", "requirements.txt", *arguments), requirements.files
    constraints = ""
    if not requirements.plain:
        install, files = ("--requirement", GENERATED, *arguments), (GENERATED,)
        generated[GENERATED] = requirements.flat(constraints=False).encode()
        constraints = requirements.flat(constraints=True)
    more = _files_of(changes, constraints)
    generated |= {name: text for _, name, text in more}
    install = (*install, *(word for option, name, _ in more for word in (option, name)))
    files = (*files, *(name for _, name, _ in more))
    source = "requirements.in" if (folder / "requirements.in").is_file() else "requirements.txt"
    loose = (
        f"{shown(folder)}/requirements.txt has no hashes: machines may install different versions. To lock them:"
        f" {_compile(folder, source, python)}"
    )
    return Packages(
        why="requirements.txt",
        install=install,
        files=files,
        generated=generated,
        hashed=requirements.hashed,
        local=requirements.local,
        variables=requirements.variables,
        debian=_debian(requirements),
        versions=asked_versions(requirements, python),
        notes=(*_said(changes), *system_notes(requirements)),
        warnings=(*(() if requirements.hashed else (loose,)), *_cautions(requirements)),
    )


def _compile(folder: Path, source: str, python: str) -> str:
    """The command that locks what `source` names, typed in the project's root."""
    here = shown(folder)
    return (
        f".venv/bin/uv pip compile --generate-hashes --universal --python-version {python}"
        f" {shlex.quote(f'{here}/{source}')} -o {shlex.quote(f'{here}/requirements.txt')}"
    )


def _from_lock(
    name: str, text: str, relock: str, folder: Path, options: AppOptions, python: str, *, project: bool
) -> Packages:
    """Packages that another tool has locked, and with `project` the project itself, which has no hash."""
    requirements = parse_requirements(name, text)
    _check(requirements, folder, python, options, relock=relock)
    packages = [entry for entry in requirements.packages if applies(entry.package, python)]
    return Packages(
        why=name,
        # The lock names all packages, so nothing is left to resolve.
        install=("--no-deps", "--requirement", GENERATED, *_arguments(requirements)),
        files=(GENERATED,),
        generated={GENERATED: text.encode()},
        hashed=all(entry.hashed for entry in packages),
        local=requirements.local or project,
        project="." if project else None,
        variables=requirements.variables,
        debian=_debian(requirements),
        versions=asked_versions(requirements, python),
        notes=system_notes(requirements),
        warnings=_cautions(requirements),
    )


def _from_uv_lock(folder: Path, options: AppOptions, python: str) -> Packages:
    _check_sources(folder, read_pyproject(folder))
    project = is_installed(folder, read_pyproject(folder))
    relock = f".venv/bin/uv lock --directory {shown(folder)}"
    return _from_lock("uv.lock", locks.uv_lock(folder), relock, folder, options, python, project=project)


def _from_poetry_lock(folder: Path, options: AppOptions, python: str) -> Packages:
    project = is_installed(folder, read_pyproject(folder))
    relock = f"(cd {shown(folder)} && poetry lock)"
    text = locks.poetry_lock(folder, python)
    return _from_lock("poetry.lock", text, relock, folder, options, python, project=project)


def _from_pipfile_lock(folder: Path, options: AppOptions, python: str) -> Packages:
    relock = f"(cd {shown(folder)} && pipenv lock)"
    return _from_lock("Pipfile.lock", locks.pipfile_lock(folder), relock, folder, options, python, project=False)


def _check_sources(folder: Path, pyproject: Mapping[str, Any]) -> None:
    """Raises AppError for a package that uv would take from a folder beside the app's, which is not shipped."""
    sources = pyproject.get("tool", {}).get("uv", {}).get("sources", {})
    outside = [
        (name, source["path"])
        for name, source in sources.items()
        if isinstance(source, dict)
        and isinstance(source.get("path"), str)
        and not (folder / source["path"]).resolve().is_relative_to(folder.resolve())
    ]
    if outside:
        problems = (
            (
                f"pyproject.toml takes {name} from {path}, which is outside of the app folder",
                f"delete the line of {name} below [tool.uv.sources] in {shown(folder)}/pyproject.toml",
            )
            for name, path in outside
        )
        raise AppError("app", *problems)


def _from_pyproject(folder: Path, options: AppOptions, python: str) -> Packages:
    pyproject = read_pyproject(folder)
    _check_sources(folder, pyproject)
    project = is_installed(folder, pyproject)
    dependencies = pyproject.get("project", {}).get("dependencies", ())
    extra = serving_extra(pyproject)
    if extra:
        dependencies = [*dependencies, *pyproject["project"]["optional-dependencies"][extra]]
    requirements = parse_requirements("pyproject.toml", "\n".join(dependencies) + "\n")
    more = _files_of(changes := _check(requirements, folder, python, options, loose=True))
    if "project" not in pyproject and "build-system" not in pyproject:
        text = "pyproject.toml names packages in Poetry's form, and neither a lock nor a build-system is there"
        raise AppError("app", (text, f"(cd {shown(folder)} && poetry lock)"))
    loose = f"{shown(folder)}/pyproject.toml has no lock: machines may install different versions. To lock them:"
    return Packages(
        why="pyproject.toml",
        install=(
            "--requirement",
            "pyproject.toml",
            *(("--extra", extra) if extra else ()),
            *(word for option, name, _ in more for word in (option, name)),
        ),
        files=("pyproject.toml", *(name for _, name, _ in more)),
        generated={name: text for _, name, text in more},
        hashed=False,
        # Dynamic dependencies come from any file of the project.
        local=project or bool(pyproject.get("project", {}).get("dynamic")),
        project="." if project else None,
        variables=requirements.variables,
        debian=_debian(requirements),
        versions=asked_versions(requirements, python),
        notes=(
            *([f"the extra {extra} of pyproject.toml has gunicorn, so machines install it"] if extra else []),
            *_said(changes),
            *system_notes(requirements),
        ),
        warnings=(f"{loose} .venv/bin/uv lock --directory {shown(folder)}", *_cautions(requirements)),
    )


def _from_setup(folder: Path, options: AppOptions, python: str) -> Packages:
    name = "setup.py" if (folder / "setup.py").is_file() else "setup.cfg"
    loose = f"{shown(folder)}/{name} has no lock: machines may install different versions. To lock them:"
    return Packages(
        why=name,
        install=(".",),
        files=(name,),
        hashed=False,
        local=True,
        warnings=(f"{loose} {_compile(folder, name, python)}",),
    )


def _check(
    requirements: Requirements,
    folder: Path,
    python: str,
    options: AppOptions,
    *,
    relock: str | None = None,
    loose: bool = False,
) -> list[Change]:
    """Raises AppError with all problems. `relock` is the command that makes the lock where they come from.

    Returns the changes that `loose` requirements need, where a machine chooses versions. In a lock they are problems.
    """
    problems = check_requirements(requirements, folder, python, options)
    named = _named(requirements.packages, python)
    changes: list[Change] = []
    for entry in named:
        if entry.package and entry.package.name.lower() == "gunicorn":
            for text, fix in check_gunicorn(entry.package, entry.where, python):
                changes.append(Change(text, "--override", in_its_place(entry.package), fix))
    file = requirements.files[0]
    for text, line in clashes(entry.package for entry in named if entry.package):
        fix = f"echo '{line}' >> {shown(folder)}/{file}"
        changes.append(Change(f"{text} in {file}", "--constraint", line, fix))
    if not loose:
        problems.extend((change.text, change.fix) for change in changes)
    if relock is not None:
        of_lock = f"change that where the project names it, then: {relock}"
        problems = [(text, fix if fix.startswith("pulumi ") else of_lock) for text, fix in problems]
    if problems:
        raise AppError("app", *problems)
    return changes


class Change(NamedTuple):
    """A change of what the app's files say, without which it would not run: uv's option for it, and the line."""

    text: str
    option: str
    line: str
    fix: str


def _files_of(changes: Sequence[Change], constraints: str = "") -> list[tuple[str, str, bytes]]:
    """The files that make the changes: uv's option, the name and the text. `constraints` are the app's own."""
    found = []
    for option, name, text in (("--constraint", CONSTRAINTS, constraints), ("--override", OVERRIDES, "")):
        text += "".join(f"{change.line}\n" for change in changes if change.option == option)
        if text:
            found.append((option, name, text.encode()))
    return found


def _said(changes: Iterable[Change]) -> Iterator[str]:
    return (f"{change.text}: machines install {change.line}" for change in changes)


def _named(entries: Iterable[Entry], python: str) -> list[Entry]:
    return [entry for entry in entries if entry.package is not None and applies(entry.package, python)]


def _arguments(requirements: Requirements) -> tuple[str, ...]:
    """uv's arguments for options of pip's that uv does not take from a file."""
    arguments: list[str] = []
    for host in requirements.values("--trusted-host"):
        arguments += ["--allow-insecure-host", host]
    if any(entry.option == "--pre" for entry in requirements.entries):
        arguments += ["--prerelease", "allow"]
    if requirements.values("--extra-index-url"):
        arguments += ["--index-strategy", "unsafe-best-match"]  # as pip: the best version of all indexes
    return tuple(arguments)


def _cautions(requirements: Requirements) -> tuple[str, ...]:
    """What is no problem of the installation, but of its safety: passwords in files."""
    written = [
        f"{entry.where} holds a password that everybody with the code can read: {hide_credentials(entry.line.text)}"
        ". Write ${TOKEN} in its place, and: pulumi config set --secret --path 'decant:secrets.TOKEN'"
        for entry in requirements.entries
        if has_credentials(entry.line.text)
    ]
    return tuple(written)


def _debian(requirements: Requirements) -> tuple[str, ...]:
    git = ("git",) if any(entry.url.startswith("git+") for entry in requirements.packages) else ()
    return tuple(dict.fromkeys([*git, *system_libraries(requirements)]))
