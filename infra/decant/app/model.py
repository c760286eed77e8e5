"""The types of an app folder: how it is to be read, what was read from it (App), and what is shipped of it (Bundle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """What the stack's settings say about how to read the app folder; None where they say nothing."""

    static: str | None = None
    """The folder of static files in the app; None for Flask's default."""
    wsgi_app: str | None = None
    """gunicorn's application argument, in place of the one that the folder names."""
    python: str | None = None
    """A Python version such as `3.12`, in place of the one that the folder asks for."""
    persistent: tuple[str, ...] = ()
    """Paths in the app folder that the app may write and that outlive a release."""
    workers: int | None = None
    """gunicorn's worker processes, in place of those that the folder asks for."""
    build: bool = False
    """Whether a command of the stack makes more files before the folder is packed."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The app's variables that are no secrets."""
    secret_names: frozenset[str] = frozenset()
    """The names of the app's secret variables."""


@dataclass(frozen=True, kw_only=True)
class WebProcess:
    """How gunicorn serves the app: what the `web:` line says, or what was found where there is none."""

    wsgi_app: str
    """gunicorn's application argument, such as `wsgi:app`."""
    why: str
    """Where the application argument comes from, for people: `the web: line of Procfile`."""
    gunicorn: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """gunicorn's settings that are used, by gunicorn's own names (`chdir`, `workers`, `worker_class`, ...). Folders
    are relative to the app folder."""
    config_file: str | None = None
    """The app's own configuration file for gunicorn, relative to the app folder."""
    wrapper: tuple[str, ...] = ()
    """A program that starts gunicorn, with its arguments: `newrelic-admin run-program`."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables that the line sets. The stack's settings have precedence."""
    release_command: str | None = None
    """The command that runs once before a release gets traffic."""
    notes: tuple[str, ...] = ()
    """Sentences about what Decant replaces or does in another way."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Python:
    """The Python that runs the app."""

    version: str
    """`3.13`, or `3.12.4` where the app asks for exactly that one."""
    why: str
    """Where it comes from, for people: `.python-version`."""
    system: bool
    """Whether it is Debian's own; another one is installed by uv."""


@dataclass(frozen=True, kw_only=True)
class Packages:
    """The packages that the app needs, and how a machine installs them."""

    why: str
    """Where they are named, for people: `uv.lock`."""
    install: tuple[str, ...]
    """Arguments of `uv pip install`, which runs in a copy of the app folder: `--requirement requirements.txt`."""
    files: tuple[str, ...]
    """The files that decide what is installed, relative to the app folder."""
    hashed: bool
    """Whether every package has hashes: then machines install exactly these files."""
    local: bool = False
    """Whether code of the app folder itself is installed: then a change of code is a change of packages."""
    project: str | None = None
    """A folder whose package is installed after the others, without what it needs: a lock has no hash for it."""
    generated: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """Files that are shipped beside those of the folder, such as a lock in another form."""
    variables: tuple[str, ...] = ()
    """Names of variables that the installation needs: `${TOKEN}` in a requirement's URL."""
    debian: tuple[str, ...] = ()
    """Debian packages that the installation itself needs, such as git."""
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What is asked for of each package, by its normalized name: `3.1.0`, `>=3`, a URL, or `any version`."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class App:
    """An app folder that can be served, as far as Decant can see without importing it."""

    folder: Path
    web: WebProcess
    python: Python
    packages: Packages
    debian_packages: tuple[str, ...]
    """Debian packages that machines install for the app."""
    persistent: tuple[str, ...]
    """Paths in the app folder that the app may write and that outlive a release. Everything else is read-only."""
    static: str | None
    """The folder of static files in the app."""
    notes: tuple[str, ...]
    """Sentences about what Decant replaces or does in another way; no reason to worry."""
    warnings: tuple[str, ...]
    table_line: str = ""
    """What the Procfile needs where a table of the database is missing: `release: flask db upgrade`."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An app folder as one tar, the same bytes on every computer."""

    path: Path = field(compare=False)
    """The tar. Its name changes with its content."""
    size: int
    """The bytes of the tar."""
    sha256: str
    """SHA-256 of the tar itself."""
    code_hash: str
    """SHA-256 of the names, modes and contents of the files."""
    requirements_hash: str
    """SHA-256 of everything that decides what is installed; releases with the same one share an environment."""
    files: int
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """By the name of each of the folder's own files, 16 digits of the SHA-256 of its mode and content."""
