"""Virtual environments: one for each set of requirements, which releases share and the app can only read."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from decant_host import debian
from decant_host.app_data import ENVIRONMENTS
from decant_host.atomic import link, link_target, read_json, write
from decant_host.compilers import InstallError, build_variables, with_compilers
from decant_host.error_hints import DEFAULTS, NO_PYTHON, NOT_INSTALLED, WITH_LOGIN, Hints, find_hint
from decant_host.errors import HostError
from decant_host.masking import mask, mask_urls
from decant_host.paths import APP_DATA, CACHE, OPT, RELEASES, RUN, VENVS
from decant_host.pythons import SYSTEM, prepare_python, python_version

BUILDER = "decant-build"
"""The user who installs requirements, so that their build scripts run neither as root nor as the app."""

BUILD = CACHE / "build"
GUNICORN = OPT / "gunicorn-requirements.txt"
OLD_GUNICORN = OPT / "gunicorn-old-requirements.txt"
"""For Pythons that GUNICORN does not run on."""
PACKAGING = OPT / "packaging-requirements.txt"
"""What OLD_GUNICORN needs, and the worker class gevent of gunicorn 27, which does not say so."""
PKG_RESOURCES = OPT / "pkg-resources-requirements.txt"
"""What gunicorn 20 needs: a setuptools that still has pkg_resources."""

LONGEST_INSTALL = 1800
"""Seconds after which systemd ends uv."""

GIVEN_UP = (
    "It was given up after {} minutes. Is the package index slow from this machine, or is a large package built here?"
    " Run pulumi up again, or choose versions that have wheels."
)

VARIABLES = RUN / "install.env"
"""The variables of an installation while it runs. Only root can read the file."""

CONSTRAINTS = RUN / "build-constraints.txt"
"""The setuptools that builds have to meet. Not in BUILD, where a build script could put a link in the file's place."""


def install(release: str) -> bool:
    """Link the release to the environment of its requirements, and build that first if it is not here.

    Return whether it was built.

    Raises HostError when the requirements cannot be installed.
    """
    folder = RELEASES / release
    settings = read_json(folder / "release.json")
    if python_version(settings) and _has_environment(folder):
        return False  # its Python stays as long as the environment does
    builder = pwd.getpwnam(BUILDER)
    python = prepare_python(settings, (builder.pw_uid, builder.pw_gid), _install_python)
    venv = VENVS / _identity(settings, python)
    build = not (venv / ".complete").exists()
    if build:
        build_environment(venv, python, folder / "app", settings)
    if link_target(folder / "venv") != venv.name:
        link(folder / "venv", f"../../venvs/{venv.name}")
    return build


def _has_environment(folder: Path) -> bool:
    venv = folder / "venv"
    return (venv / ".complete").exists() and (venv / "bin" / "python").exists()


def _identity(settings: Mapping[str, Any], python: Path) -> str:
    """The name of a release's environment: a hash of all that is in it."""
    import hashlib

    digest = hashlib.sha256()
    for path in (GUNICORN, OLD_GUNICORN, PACKAGING, PKG_RESOURCES):
        digest.update(path.read_bytes())
    version = _python() if python == SYSTEM else str(python)
    identity = [settings["lock"], digest.hexdigest(), version, os.uname().machine]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _install_python(folder: Path, variables: Mapping[str, str], version: str) -> None:
    BUILD.mkdir(mode=0o700, parents=True, exist_ok=True)
    builder = pwd.getpwnam(BUILDER)
    os.chown(BUILD, builder.pw_uid, builder.pw_gid, follow_symlinks=False)
    try:
        _uv("python", "install", "--no-bin", version, writable=folder, work=folder, variables=variables, release=None)
    finally:
        shutil.rmtree(BUILD, ignore_errors=True)


def build_environment(venv: Path, python: Path, app: Path, settings: Mapping[str, Any]) -> None:
    """Install the requirements into a new virtual environment that belongs to root and that the app can only read."""
    builder, app_group = pwd.getpwnam(BUILDER), grp.getgrnam("decant").gr_gid
    # No release uses an unfinished one: releases are linked to it when it is complete.
    shutil.rmtree(venv, ignore_errors=True)
    VENVS.mkdir(mode=0o755, parents=True, exist_ok=True)
    venv.mkdir(mode=0o750)
    # A new folder for each build: a build script must not leave anything that a later build would use.
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(mode=0o700, parents=True)
    # A copy, because the build of a package writes into its folder.
    shutil.copytree(app, BUILD / "app", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in settings.get("persistent", ()):
        if (BUILD / "app" / name).is_symlink():  # to what the builder may not read
            (BUILD / "app" / name).unlink()
    for path in (*BUILD.rglob("*"), BUILD, venv):
        os.chown(path, builder.pw_uid, builder.pw_gid, follow_symlinks=False)
    try:
        arguments = ("--python", str(python), "--allow-existing", str(venv))
        _uv("venv", *arguments, writable=venv, release=app.parent.name)
        own = None if python == SYSTEM else settings.get("python") or debian.PYTHON
        with_compilers(lambda setuptools: install_packages(venv, app, settings, setuptools), python=own)
        _install_gunicorn(venv, app)
        if not os.path.lexists(venv / "var"):
            (venv / "var").symlink_to(APP_DATA / ENVIRONMENTS)
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(BUILD, ignore_errors=True)
    for root, folders, files in os.walk(venv):
        for path in [Path(root), *(Path(root) / name for name in folders + files)]:
            os.chown(path, 0, app_group, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755)  # a build script may have chosen any mode
    os.sync()
    write(venv / ".complete", "")  # which replaces a link that a build script has left there


def install_packages(venv: Path, app: Path, settings: Mapping[str, Any], setuptools: str = "") -> None:
    """Install what the app needs into `venv`, from the copy of the app in BUILD; it may be called again.

    `setuptools` is a requirement that builds have to meet. Raises HostError with a hint and uv's output.
    """
    release = app.parent.name
    hashes = ("--require-hashes",) if settings["locked"] else ()
    builds: tuple[str, ...] = ()
    if setuptools:
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(CONSTRAINTS, f"{setuptools}\n")
        builds = ("--build-constraints", str(CONSTRAINTS))
    arguments = (*hashes, *builds, *_install_arguments(settings))
    _pip_install(venv, release, *arguments, variables=_variables(release, settings))
    if project := settings.get("install_project"):
        _pip_install(venv, release, "--no-deps", project)


def _install_gunicorn(venv: Path, app: Path) -> None:
    """Install gunicorn where the app brings none, and what a gunicorn needs that does not say so.

    Nothing that the app has is replaced, except for a setuptools that gunicorn 20 cannot use.
    """
    release = app.parent.name
    version = _python_in(venv)
    if version is None:
        raise HostError(f"a package's build has damaged the virtual environment: {venv}/lib has no python3 folder")
    site = venv / "lib" / f"python{version}" / "site-packages"
    found = next(site.glob("gunicorn-*.dist-info"), None)
    if found is None:
        old = tuple(map(int, version.split("."))) < (3, 10)
        if old:
            _install_packaging(venv, release, site)
        wanted = OLD_GUNICORN if old else GUNICORN
        _pip_install(venv, release, "--require-hashes", "--no-deps", "--requirement", str(wanted))
    elif found.name.startswith("gunicorn-20.") and not (site / "pkg_resources").exists():
        _pip_install(venv, release, "--require-hashes", "--requirement", str(PKG_RESOURCES))
    if (site / "gevent").exists():
        _install_packaging(venv, release, site)


def _python_in(venv: Path) -> str | None:
    """The version of a virtual environment's Python, such as `3.13`; a build script may have made folders beside it."""
    names = (re.fullmatch(r"python(3\.[0-9]+)", path.name) for path in venv.glob("lib/python3.*"))
    return next((match[1] for match in names if match), None)


def _install_packaging(venv: Path, release: str, site: Path) -> None:
    if not (site / "packaging").exists():
        _pip_install(venv, release, "--require-hashes", "--requirement", str(PACKAGING))


def _install_arguments(settings: Mapping[str, Any]) -> Sequence[str]:
    """The arguments of `uv pip install`; releases made before version 0.7 name a file of requirements."""
    return settings["install"] if "install" in settings else ("--requirement", settings["requirements"])


def _variables(release: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """The variables of the release that its requirements name."""
    names = settings.get("install_variables") or ()
    environment = read_json(RELEASES / release / "environment.json") if names else {}
    return {name: environment[name] for name in names if name in environment}


def _pip_install(venv: Path, release: str, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
    command = ("pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode", *arguments)
    if not variables:
        _uv(*command, writable=venv, release=release)
        return
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(VARIABLES, "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items()), mode=0o600)
    try:
        _uv(*command, writable=venv, release=release, secrets=VARIABLES)
    finally:
        VARIABLES.unlink()


def _quoted(value: str) -> str:
    """A value as systemd.exec(5), EnvironmentFile=, reads it."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def _uv(
    *arguments: str,
    writable: Path,
    release: str | None,
    work: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    secrets: Path | None = None,
) -> None:
    """Run uv as the builder, in a unit of its own: when it ends, systemd kills every process that a build script left.

    `secrets` is a file of variables that only root can read. Raises HostError with a hint and uv's output, in which
    the secrets of `release` and passwords in URLs are masked.
    """
    properties = (
        f"User={BUILDER}", f"Group={BUILDER}", f"WorkingDirectory={work or BUILD / 'app'}", "UMask=0022",
        "NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "PrivateTmp=yes", "ProtectHome=yes", "ProtectSystem=strict",
        f"ReadWritePaths={writable} {BUILD}", f"RuntimeMaxSec={LONGEST_INSTALL}", "KillSignal=SIGKILL",
        # A compiler must not take the memory of the app that serves. Without swap, MemoryHigh= would stall it.
        "MemoryMax=70%", "OOMScoreAdjust=500", "CPUWeight=20", "Nice=10",
        "CapabilityBoundingSet=", "PrivateDevices=yes", "IPAddressDeny=169.254.169.254 fd00:ec2::254",
        # A proxy or package index of the machine, with its password: `systemctl show` gives the file's name alone.
        "EnvironmentFile=-/etc/environment",
        *([f"EnvironmentFile={secrets}"] if secrets else []),
    )  # fmt: skip
    every = {
        "HOME": str(BUILD),
        "UV_CACHE_DIR": str(BUILD / "cache"),
        "UV_SYSTEM_CERTS": "1",  # the machine's certificates, among which may be a company's own
        "UV_LINK_MODE": "copy",  # hard links into the cache would still belong to the builder
        "UV_PYTHON_DOWNLOADS": "manual" if arguments[0] == "python" else "never",
        "GIT_TERMINAL_PROMPT": "0",
        "UV_NO_WRAP": "1",  # hints are found line by line
        **build_variables(),
    }
    command = ["systemd-run", "--wait", "--pipe", "--collect", "--quiet"]
    command += [f"--property={p}" for p in properties]
    command += [f"--setenv={name}={value}" for name, value in {**every, **variables}.items()]
    quiet = [] if arguments[0] == "python" else ["--quiet"]  # with it, `uv python install` gives no reason
    command += [str(OPT / "uv" / "bin" / "uv"), *quiet, "--no-progress", *arguments]
    started = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        output = mask_urls(done.stderr.strip())
        if time.monotonic() - started >= LONGEST_INSTALL:
            output = f"{output}\n{GIVEN_UP.format(LONGEST_INSTALL // 60)}".strip()
        login = secrets.read_text().partition("=")[0] if secrets else ""
        python = _python_in(writable) or DEFAULTS["python"]
        raise _install_error(arguments, output if release is None else mask(release, output), login, python)


def _install_error(arguments: Sequence[str], output: str, login: str, python: str) -> InstallError:
    """The error of a failed uv. `login` is a variable that a URL needs, if any does; `python` runs the app."""
    hints: Hints = (*WITH_LOGIN, *NOT_INSTALLED) if login else NOT_INSTALLED
    otherwise = "the requirements could not be installed"
    if arguments[0] == "python":
        hints, otherwise = NO_PYTHON, f"Python {arguments[-1]} could not be installed"
    hint = find_hint(
        hints,
        output,
        otherwise=otherwise,
        version=arguments[-1],
        variable=login,
        python=python,
        own=debian.own_python(),
    )
    # uv prints the error first, sometimes followed by pages of hashes. A build's own error comes last.
    shown = output if len(output) <= 2000 else f"{output[:1000]}\n...\n{output[-1000:]}"
    return InstallError(f"{hint}.\n{shown}", output)
