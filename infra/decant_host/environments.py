"""Virtual environments: one per set of requirements, shared by releases, root's own, the app may read it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant_host.causes import NOT_INSTALLED, name_cause
from decant_host.files import CACHE, OPT, RELEASES, VENVS, HostError, link, linked, read_json

BUILDER = "decant-build"  # installs requirements: their build scripts run neither as root nor as the app
BUILD = CACHE / "build"
GUNICORN = OPT / "gunicorn-requirements.txt"


def install(release: str) -> bool:
    """The release's virtual environment: linked where its requirements are installed, else made. True when made."""
    import hashlib

    folder = RELEASES / release
    settings = read_json(folder / "release.json")
    gunicorn = GUNICORN.read_bytes()
    identity = [settings["lock"], hashlib.sha256(gunicorn).hexdigest(), _python(), os.uname().machine]
    venv = VENVS / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    made = not (venv / ".complete").exists()
    if made:
        build_environment(venv, folder / "app", settings)
    if linked(folder / "venv") != venv.name:
        link(folder / "venv", f"../../venvs/{venv.name}")
    return made


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def build_environment(venv: Path, app: Path, settings: Mapping[str, Any]) -> None:
    """Install the requirements into a new virtual environment that is root's and that the app can only read."""
    builder, app_group = pwd.getpwnam(BUILDER), grp.getgrnam("decant").gr_gid
    # No release uses a half-made one: they are linked to it when it is complete.
    shutil.rmtree(venv, ignore_errors=True)
    VENVS.mkdir(mode=0o755, parents=True, exist_ok=True)
    venv.mkdir(mode=0o750)
    # Made anew for each build and removed after it, so that nothing that one build left is believed by another.
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(mode=0o700, parents=True)
    # A copy, because building a package writes into its folder.
    shutil.copytree(app, BUILD / "app", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*BUILD.rglob("*"), BUILD, venv):
        os.chown(path, builder.pw_uid, builder.pw_gid, follow_symlinks=False)
    try:
        _uv(venv, "venv", "--python", "/usr/bin/python3", "--allow-existing", str(venv))
        to = ("pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode")
        hashes = ("--require-hashes",) if settings["locked"] else ()
        _uv(venv, *to, *hashes, "--requirement", settings["requirements"])
        if not list(venv.glob("lib/python*/site-packages/gunicorn/__init__.py")):
            _uv(venv, *to, "--require-hashes", "--requirement", str(GUNICORN))
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(BUILD, ignore_errors=True)
    for root, folders, files in os.walk(venv):
        for path in [Path(root), *(Path(root) / name for name in folders + files)]:
            os.chown(path, 0, app_group, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755)  # whatever modes a build script chose
    os.sync()
    (venv / ".complete").touch()


def _uv(venv: Path, *words: str) -> None:
    """uv as the builder, in a unit of its own: when it ends, no process of a build script is left to race with root."""
    properties = (
        f"User={BUILDER}", f"Group={BUILDER}", f"WorkingDirectory={BUILD / 'app'}", "UMask=0022",
        "NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "PrivateTmp=yes", "ProtectHome=yes", "ProtectSystem=strict",
        f"ReadWritePaths={venv} {BUILD}", "RuntimeMaxSec=1800", "KillSignal=SIGKILL",
        "CapabilityBoundingSet=", "PrivateDevices=yes", "IPAddressDeny=169.254.169.254 fd00:ec2::254",
        # The machine's own proxy or package index, where it has one; systemd shows nobody what is in the file.
        "EnvironmentFile=-/etc/environment",
    )  # fmt: skip
    variables = {
        "HOME": str(BUILD),
        "UV_CACHE_DIR": str(BUILD / "cache"),
        "UV_SYSTEM_CERTS": "1",  # the machine's own certificates, to which a company may have added its own
        "UV_LINK_MODE": "copy",  # a hard link into the cache would stay the builder's
        "UV_PYTHON_DOWNLOADS": "never",
    }
    command = ["systemd-run", "--wait", "--pipe", "--collect", "--quiet"]
    command += [f"--property={p}" for p in properties]
    command += [f"--setenv={name}={value}" for name, value in variables.items()]
    command += [str(OPT / "uv" / "bin" / "uv"), "--quiet", "--no-progress", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip()
        cause = name_cause(NOT_INSTALLED, said, otherwise="the requirements could not be installed")
        # uv says first what went wrong, and may go on for pages of hashes; a build's own error comes last.
        shown = said if len(said) <= 2000 else f"{said[:1000]}\n...\n{said[-1000:]}"
        raise HostError(f"{cause}.\n{shown}")
