"""Virtual environments."""

from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import atomic, compilers, environments, paths
from decant_host.errors import HostError
from tests.unit.decant_host.machine import NEW, OLD, OLDER, Machine


def test_releases_with_the_same_requirements_share_an_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths.OPT / "gunicorn-requirements.txt").write_text("gunicorn==1\n")
    built: list[Path] = []

    def build(venv: Path, app: Path, settings: Any) -> None:
        venv.mkdir(exist_ok=True)
        (venv / ".complete").touch()
        built.append(venv)

    monkeypatch.setattr(environments, "build_environment", build)
    for release, lock in ((OLD, "a"), (NEW, "a"), (OLDER, "b")):
        machine.add(release, lock=lock)
    assert [environments.install(r) for r in (OLD, NEW, OLDER, OLD)] == [True, False, True, False]
    assert (
        atomic.link_target(paths.RELEASES / OLD / "venv")
        == atomic.link_target(paths.RELEASES / NEW / "venv")
        == built[0].name
    )
    assert (paths.RELEASES / OLD / "venv").resolve() == built[0]
    (built[0] / ".complete").unlink()
    assert environments.install(NEW) is True, "one that was not finished is made anew"
    (paths.OPT / "gunicorn-requirements.txt").write_text("gunicorn==2\n")
    assert environments.install(NEW) is True
    assert environments.install(NEW) is False
    monkeypatch.setattr(environments, "_python", lambda: "3.13.99")
    assert environments.install(NEW) is True, "another Python has other compiled files"


# ------------------------------------------------------------------------------------------------ building one

# What systemd-run and uv would do, as far as files are concerned. The build leaves files of every mode.
SYSTEMD_RUN = """#!{python}
import json, os, pathlib, sys
argv = sys.argv[1:]
with open("{log}", "a") as log:
    log.write(json.dumps(argv) + chr(10))
uv = argv[next(i for i, item in enumerate(argv) if item.endswith("/uv/bin/uv")) :]
if "venv" in uv:
    bin = pathlib.Path(uv[-1]) / "bin"
    bin.mkdir()
    (bin / "python").symlink_to("/usr/bin/python3")
    (bin / "tool").touch()
    (bin / "tool").chmod(0o4777)
    bin.chmod(0o2777)
elif "gunicorn-requirements.txt" in uv[-1] or "{brings_gunicorn}":
    site = pathlib.Path(uv[uv.index("--python") + 1]).parents[1] / "lib/python3.13/site-packages/gunicorn"
    site.mkdir(parents=True)
    (site / "__init__.py").touch()
    (site / "__init__.py").chmod(0o666)
sys.stderr.buffer.write(b"caf\\xe9 {error}")
sys.exit(bool("{error}"))
"""


class Builder:
    """A machine where an environment can be built."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = machine.root / "systemd-run.log"
        self.owners: dict[str, tuple[int, int]] = {}
        programs = machine.root / "programs"
        programs.mkdir()
        self.program = programs / "systemd-run"
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid={"decant-build": 55}[name], pw_gid=56))
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"decant": 77}[name]))
        monkeypatch.setattr(os, "chown", self._chown)
        monkeypatch.setattr(os, "sync", lambda: None)
        (paths.OPT / "gunicorn-requirements.txt").write_text("gunicorn==1\n")
        app = machine.add(NEW, lock="x", locked=True, requirements="requirements.txt") / "app"
        (app / "requirements.txt").write_text("flask==3\n")
        self.behave()

    def _chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        assert not follow_symlinks, "a build script could make a link to any file"
        self.owners[str(path)] = (uid, gid)

    def behave(self, *, brings_gunicorn: str = "", error: str = "") -> None:
        text = SYSTEMD_RUN.format(python=sys.executable, log=self.log, brings_gunicorn=brings_gunicorn, error=error)
        self.program.write_text(text)
        self.program.chmod(0o755)

    def runs(self) -> list[list[str]]:
        """Command lines of systemd-run so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def builder(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(machine, monkeypatch)


def uv_of(argv: list[str]) -> list[str]:
    return argv[argv.index(str(paths.OPT / "uv" / "bin" / "uv")) :]


def test_requirements_are_installed_in_a_sandbox(builder: Builder) -> None:
    assert environments.install(NEW) is True
    venv = (paths.RELEASES / NEW / "venv").resolve()
    build = environments.BUILD
    for argv in builder.runs():
        assert argv[:4] == ["--wait", "--pipe", "--collect", "--quiet"]
        assert {item.removeprefix("--property=") for item in argv if item.startswith("--property=")} == {
            "User=decant-build", "Group=decant-build", f"WorkingDirectory={build}/app", "UMask=0022",
            "NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "PrivateTmp=yes", "ProtectHome=yes", "ProtectSystem=strict",
            f"ReadWritePaths={venv} {build}", "RuntimeMaxSec=1800", "KillSignal=SIGKILL", "CapabilityBoundingSet=",
            "PrivateDevices=yes", "IPAddressDeny=169.254.169.254 fd00:ec2::254", "EnvironmentFile=-/etc/environment",
            "MemoryMax=70%", "CPUWeight=20", "Nice=10",
        }  # fmt: skip
        assert {item.removeprefix("--setenv=") for item in argv if item.startswith("--setenv=")} == {
            f"HOME={build}", f"UV_CACHE_DIR={build}/cache", "UV_SYSTEM_CERTS=1", "UV_LINK_MODE=copy",
            "UV_PYTHON_DOWNLOADS=never", *(f"{name}={value}" for name, value in compilers.build_variables().items()),
        }  # fmt: skip


def test_an_environment_gets_the_requirements_and_gunicorn_by_their_hashes(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    made, required, gunicorn = (uv_of(argv)[3:] for argv in builder.runs())
    assert made == ["venv", "--python", "/usr/bin/python3", "--allow-existing", str(venv)]
    install = ["pip", "install", "--python", f"{venv}/bin/python", "--compile-bytecode", "--require-hashes"]
    assert required == [*install, "--requirement", "requirements.txt"]
    assert gunicorn == [*install, "--requirement", str(environments.GUNICORN)]


def test_an_apps_own_gunicorn_is_used(builder: Builder) -> None:
    builder.behave(brings_gunicorn="yes")
    environments.install(NEW)
    assert len(builder.runs()) == 2


def test_requirements_without_hashes_are_installed_without_them(builder: Builder, machine: Machine) -> None:
    machine.add(OLD, lock="y", locked=False, requirements="requirements.txt")
    environments.install(OLD)
    _, required, gunicorn = builder.runs()
    assert "--require-hashes" not in required
    assert "--require-hashes" in gunicorn


def test_an_environment_belongs_to_root_and_the_app_can_only_read_it(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    found = {p for p in venv.rglob("*") if p.name != ".complete"} | {venv}
    assert {builder.owners[str(p)] for p in found} == {(0, 77)}
    modes = {p.name: p.stat().st_mode & 0o7777 for p in found if not p.is_symlink()}
    assert (modes["tool"], modes["bin"], modes["__init__.py"], modes[venv.name]) == (0o755, 0o755, 0o644, 0o750)
    assert (venv / ".complete").exists()
    assert not environments.BUILD.exists(), "the next build must not find anything of this one"


def test_the_builder_gets_a_copy_of_the_app(builder: Builder) -> None:
    (paths.RELEASES / NEW / "app" / "__pycache__").mkdir()
    environments.install(NEW)
    assert not [path for path in builder.owners if "__pycache__" in path], "compiled files are of no use to a build"
    copy = environments.BUILD / "app"
    assert builder.owners[str(copy / "requirements.txt")] == builder.owners[str(environments.BUILD)] == (55, 56)
    assert not any(path.startswith(str(paths.RELEASES)) for path in builder.owners)


def test_a_build_that_fails_leaves_nothing_and_shows_its_output(builder: Builder) -> None:
    builder.behave(error="error: Hash mismatch for flask")
    with pytest.raises(HostError, match=r"requirements\.txt does not match its hashes") as caught:
        environments.install(NEW)
    assert "caf\ufffd error: Hash mismatch" in str(caught.value), "its output need not be UTF-8"
    assert [p.name for p in paths.VENVS.iterdir()] == [f"venv-of-{NEW}"]
    assert not environments.BUILD.exists()
    builder.behave(error="first " + "x" * 5000 + " last")
    with pytest.raises(HostError) as caught:
        environments.install(NEW)
    assert "first" in str(caught.value)
    assert str(caught.value).endswith("last")
    assert len(str(caught.value)) < 2200


def test_flasks_folder_for_an_installed_package_is_the_apps_to_write(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    assert (venv / "var").readlink() == paths.APP_DATA / "+var"
    assert builder.owners[str(venv / "var")] == (0, 77)


def test_the_builder_gets_no_link_to_the_apps_data(builder: Builder, machine: Machine) -> None:
    app = machine.add(OLD, lock="y", locked=False, install=[], persistent=["instance", "logs"]) / "app"
    (app / "instance").symlink_to(paths.APP_DATA / "instance")
    (app / "logs").mkdir()
    environments.install(OLD)
    assert str(environments.BUILD / "app" / "logs") in builder.owners
    assert str(environments.BUILD / "app" / "instance") not in builder.owners


@pytest.mark.parametrize(("python", "headers"), [(None, ["python3-dev"]), ("3.12", [])])
def test_a_build_that_misses_a_compiler_is_repeated_with_one(
    builder: Builder, machine: Machine, monkeypatch: pytest.MonkeyPatch, python: str | None, headers: list[str]
) -> None:
    asked: list[str] = []

    def install_missing(packages: tuple[str, ...], *, why: str) -> tuple[str, ...]:
        asked.extend(packages)
        builder.behave()
        return packages

    def with_compilers(install: Callable[[], None], *, system_python: bool) -> None:
        builder.behave(error="error: Failed to build ext==1 command 'gcc' failed")
        real(install, system_python=system_python)

    real = compilers.with_compilers
    monkeypatch.setattr(environments, "with_compilers", with_compilers)
    monkeypatch.setattr(compilers, "install_missing", install_missing)
    machine.add(OLD, lock="y", locked=False, install=["./ext"], python=python)
    assert environments.install(OLD) is True
    assert asked == ["build-essential", "pkg-config", *headers]
    assert [uv_of(argv)[-1] for argv in builder.runs()].count("./ext") == 2
