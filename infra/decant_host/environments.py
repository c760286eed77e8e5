"""Virtual environments: one for each set of requirements, shared by releases, which the app may read."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decant_host.app_data import ENVIRONMENTS
from decant_host.atomic import link, link_target, read_json
from decant_host.compilers import InstallError, build_variables, with_compilers
from decant_host.error_hints import NOT_INSTALLED, find_hint
from decant_host.paths import APP_DATA, CACHE, OPT, RELEASES, VENVS

BUILDER = "decant-build"
"""The user who installs requirements, so that their build scripts run neither as root nor as the app."""

BUILD = CACHE / "build"
GUNICORN = OPT / "gunicorn-requirements.txt"


def install(release: str) -> bool:
    """Link the release to the environment of its requirements, which is built if it is not here; whether it was built.

    Raises HostError when the requirements cannot be installed.
    """
    import hashlib

    folder = RELEASES / release
    settings = read_json(folder / "release.json")
    gunicorn = GUNICORN.read_bytes()
    identity = [settings["lock"], hashlib.sha256(gunicorn).hexdigest(), _python(), os.uname().machine]
    venv = VENVS / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    build = not (venv / ".complete").exists()
    if build:
        build_environment(venv, folder / "app", settings)
    if link_target(folder / "venv") != venv.name:
        link(folder / "venv", f"../../venvs/{venv.name}")
    return build


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def build_environment(venv: Path, app: Path, settings: Mapping[str, Any]) -> None:
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
        _uv(venv, "venv", "--python", "/usr/bin/python3", "--allow-existing", str(venv))
        pip_install = ("pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode")
        hashes = ("--require-hashes",) if settings["locked"] else ()
        with_compilers(
            lambda: _uv(venv, *pip_install, *hashes, *_install_arguments(settings)),
            system_python=not settings.get("python"),
        )
        if not list(venv.glob("lib/python*/site-packages/gunicorn/__init__.py")):
            _uv(venv, *pip_install, "--require-hashes", "--requirement", str(GUNICORN))
        if not (venv / "var").exists():
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
    (venv / ".complete").touch()


def _install_arguments(settings: Mapping[str, Any]) -> Sequence[str]:
    """The arguments of `uv pip install`; releases made before version 0.7 name a file of requirements."""
    return settings["install"] if "install" in settings else ("--requirement", settings["requirements"])


def _uv(venv: Path, *arguments: str) -> None:
    """Run uv as the builder, in a unit of its own: when it ends, systemd kills every process that a build script left.

    Raises HostError with a hint and uv's output.
    """
    properties = (
        f"User={BUILDER}", f"Group={BUILDER}", f"WorkingDirectory={BUILD / 'app'}", "UMask=0022",
        "NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "PrivateTmp=yes", "ProtectHome=yes", "ProtectSystem=strict",
        f"ReadWritePaths={venv} {BUILD}", "RuntimeMaxSec=1800", "KillSignal=SIGKILL",
        # A compiler must not take the memory of the app that serves. Without swap, MemoryHigh= would stall it.
        "MemoryMax=70%", "CPUWeight=20", "Nice=10",
        "CapabilityBoundingSet=", "PrivateDevices=yes", "IPAddressDeny=169.254.169.254 fd00:ec2::254",
        # A proxy or package index of the machine, with its password: `systemctl show` gives the file's name alone.
        "EnvironmentFile=-/etc/environment",
    )  # fmt: skip
    variables = {
        "HOME": str(BUILD),
        "UV_CACHE_DIR": str(BUILD / "cache"),
        "UV_SYSTEM_CERTS": "1",  # the machine's certificates, among which may be a company's own
        "UV_LINK_MODE": "copy",  # hard links into the cache would still belong to the builder
        "UV_PYTHON_DOWNLOADS": "never",
        **build_variables(),
    }
    command = ["systemd-run", "--wait", "--pipe", "--collect", "--quiet"]
    command += [f"--property={p}" for p in properties]
    command += [f"--setenv={name}={value}" for name, value in variables.items()]
    command += [str(OPT / "uv" / "bin" / "uv"), "--quiet", "--no-progress", *arguments]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        output = done.stderr.strip()
        hint = find_hint(NOT_INSTALLED, output, otherwise="the requirements could not be installed")
        # uv prints the error first, sometimes followed by pages of hashes. A build's own error comes last.
        shown = output if len(output) <= 2000 else f"{output[:1000]}\n...\n{output[-1000:]}"
        raise InstallError(f"{hint}.\n{shown}", output)
