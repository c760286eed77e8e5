"""Virtual environments."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from decant_host import atomic, compilers, environments, paths, pythons
from decant_host.errors import HostError
from tests.unit.decant_host.machine import NEW, OLD, OLDER, Machine

PINS = (
    "gunicorn-requirements.txt", "gunicorn-old-requirements.txt", "packaging-requirements.txt",
    "pkg-resources-requirements.txt",
)  # fmt: skip


def pins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PINS, "uv-requirements.txt"):
        (paths.OPT / name).write_text("some==1\n")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid={"decant-build": 55}[name], pw_gid=56))


def test_releases_with_the_same_requirements_share_an_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins(monkeypatch)
    built: list[Path] = []

    def build(venv: Path, python: Path, app: Path, settings: Any) -> None:
        assert python == pythons.SYSTEM
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
    for name in PINS:
        (paths.OPT / name).write_text("another==2\n")
        assert environments.install(NEW) is True, name
        assert environments.install(NEW) is False
    monkeypatch.setattr(environments, "_python", lambda: "3.13.99")
    assert environments.install(NEW) is True, "another Python has other compiled files"


# ------------------------------------------------------------------------------------------------ building one

# What systemd-run and uv would do, as far as files are concerned. The build leaves files of every mode.
SYSTEMD_RUN = """#!{python}
import json, os, pathlib, re, sys
argv = sys.argv[1:]
secrets = [a.partition("=EnvironmentFile=")[2] for a in argv if "EnvironmentFile=/" in a]
with open("{log}", "a") as log:
    log.write(json.dumps([argv, [pathlib.Path(s).read_text() for s in secrets if s != "/etc/environment"]]) + chr(10))
uv = argv[next(i for i, item in enumerate(argv) if item.endswith("/uv/bin/uv")) :]
error = "{error}" if "{fails}" in " ".join(uv) else ""
if "venv" in uv:
    bin = pathlib.Path(uv[-1]) / "bin"
    bin.mkdir()
    (bin / "python").symlink_to(uv[uv.index("--python") + 1])
    (bin / "tool").touch()
    (bin / "tool").chmod(0o4777)
    bin.chmod(0o2777)
    (bin.parent / "lib/python{minor}/site-packages").mkdir(parents=True)
elif "--no-bin" in uv and error:
    pass
elif "--no-bin" in uv:
    folder = [a.partition("UV_PYTHON_INSTALL_DIR=")[2] for a in argv if "UV_PYTHON_INSTALL_DIR=" in a][0]
    bin = pathlib.Path(folder) / ("cpython-" + uv[-1] + ".9-linux") / "bin"
    bin.mkdir(parents=True)
    (bin / ("python" + uv[-1])).touch()
    (bin / ("python" + uv[-1])).chmod(0o4777)
elif "install" in uv:
    for name, target in {plants}.items():
        planted = pathlib.Path(uv[uv.index("--python") + 1]).parents[1] / name
        planted.is_symlink() or planted.symlink_to(target)
    site = next(pathlib.Path(uv[uv.index("--python") + 1]).parents[1].glob("lib/python*/site-packages"))
    brings = {brings} if "packages.txt" in uv[-1] or uv[-1] == "requirements.txt" else []
    for name in brings + (["gunicorn-27.dist-info"] if "gunicorn" in uv[-1] else []):
        (site / name).mkdir(parents=True)
        (site / name / "METADATA").touch()
        (site / name / "METADATA").chmod(0o666)
sys.stderr.buffer.write(b"caf\\xe9 " + error.encode())
sys.exit(bool(error))
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
        pins(monkeypatch)
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"decant": 77}[name]))
        monkeypatch.setattr(os, "chown", self._chown)
        monkeypatch.setattr(os, "sync", lambda: None)
        app = machine.add(NEW, lock="x", locked=True, requirements="requirements.txt") / "app"
        (app / "requirements.txt").write_text("flask==3\n")
        self.behave()

    def _chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        assert not follow_symlinks, "a build script could make a link to any file"
        self.owners[str(path)] = (uid, gid)

    def behave(
        self,
        *,
        brings: Sequence[str] = (),
        plants: Mapping[str, str] = MappingProxyType({}),
        error: str = "",
        fails: str = "",
        minor: str = "3.13",
    ) -> None:
        """`brings` are folders that the app's packages leave; `plants` are links that a build script makes.

        `error` is what uv says where `fails` is in its words.
        """
        text = SYSTEMD_RUN.format(
            python=sys.executable, log=self.log, brings=list(brings), plants=dict(plants), error=error, fails=fails,
            minor=minor,
        )  # fmt: skip
        self.program.write_text(text)
        self.program.chmod(0o755)

    def runs(self) -> list[list[str]]:
        """Command lines of systemd-run so far."""
        return [argv for argv, _ in self._logged()]

    def variables(self) -> list[list[str]]:
        """The files of variables of each run, besides the machine's own."""
        return [files for _, files in self._logged()]

    def _logged(self) -> list[Any]:
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
            "MemoryMax=70%", "OOMScoreAdjust=500", "CPUWeight=20", "Nice=10",
        }  # fmt: skip
        assert {item.removeprefix("--setenv=") for item in argv if item.startswith("--setenv=")} == {
            f"HOME={build}", f"UV_CACHE_DIR={build}/cache", "UV_SYSTEM_CERTS=1", "UV_LINK_MODE=copy",
            "UV_PYTHON_DOWNLOADS=never", "GIT_TERMINAL_PROMPT=0", "UV_NO_WRAP=1",
            *(f"{name}={value}" for name, value in compilers.build_variables().items()),
        }  # fmt: skip


@pytest.mark.parametrize(("seconds", "given_up"), [(1799.9, False), (1800.0, True)])
def test_an_installation_that_is_ended_says_so(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, seconds: float, given_up: bool
) -> None:
    """systemd kills uv, which then says nothing."""
    times = iter([0.0, 0.0, seconds])  # the start of `uv venv`, then start and end of `uv pip install`
    monkeypatch.setattr(environments, "time", SimpleNamespace(monotonic=lambda: next(times)))
    builder.behave(error="x", fails="requirements.txt")
    with pytest.raises(HostError, match="the requirements could not be installed") as caught:
        environments.install(NEW)
    text = "It was given up after 30 minutes. Is the package index slow from this machine, or is a large package built"
    assert (text in str(caught.value)) == given_up


def test_an_environment_gets_the_requirements_and_gunicorn_by_their_hashes(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    made, required, gunicorn = (uv_of(argv)[3:] for argv in builder.runs())
    assert made == ["venv", "--python", str(pythons.SYSTEM), "--allow-existing", str(venv)]
    install = ["pip", "install", "--python", f"{venv}/bin/python", "--compile-bytecode", "--require-hashes"]
    assert required == [*install, "--requirement", "requirements.txt"]
    assert gunicorn == [*install, "--no-deps", "--requirement", str(environments.GUNICORN)]


def test_an_apps_own_gunicorn_is_used(builder: Builder) -> None:
    builder.behave(brings=["gunicorn-23.0.0.dist-info"])
    environments.install(NEW)
    assert len(builder.runs()) == 2


@pytest.mark.parametrize("version", ["20.0.4", "20.1.0"])
def test_gunicorn_20_gets_pkg_resources_where_it_is_not_there(builder: Builder, version: str) -> None:
    builder.behave(brings=[f"gunicorn-{version}.dist-info"])
    environments.install(NEW)
    assert uv_of(builder.runs()[2])[-3:] == ["--require-hashes", "--requirement", str(environments.PKG_RESOURCES)]


def test_gunicorn_20_uses_the_apps_own_pkg_resources(builder: Builder) -> None:
    builder.behave(brings=["gunicorn-20.1.0.dist-info", "pkg_resources"])
    environments.install(NEW)
    assert len(builder.runs()) == 2


@pytest.mark.parametrize(
    ("brings", "installed"),
    [
        ([], ["packaging-requirements.txt", "gunicorn-old-requirements.txt"]),
        (["packaging"], ["gunicorn-old-requirements.txt"]),
    ],
)
def test_an_old_python_gets_an_older_gunicorn(builder: Builder, brings: list[str], installed: list[str]) -> None:
    """And no other packaging than the app's own."""
    builder.behave(brings=brings, minor="3.9")
    environments.install(NEW)
    more = [uv_of(argv) for argv in builder.runs()[2:]]
    assert [Path(uv[-1]).name for uv in more] == installed
    assert "--no-deps" in more[-1]


def test_python_3_10_gets_the_newest_gunicorn(builder: Builder) -> None:
    builder.behave(minor="3.10")
    environments.install(NEW)
    assert [Path(uv_of(argv)[-1]).name for argv in builder.runs()[2:]] == ["gunicorn-requirements.txt"]


def test_the_project_is_installed_after_its_lock(builder: Builder, machine: Machine) -> None:
    machine.add(OLD, lock="y", locked=True, install=["--no-deps", "--requirement", "x.txt"], install_project=".")
    environments.install(OLD)
    _, packages, project, _ = (uv_of(argv)[3:] for argv in builder.runs())
    assert packages[5:] == ["--require-hashes", "--no-deps", "--requirement", "x.txt"]
    assert project[5:] == ["--no-deps", "."]


def test_packages_may_be_installed_again(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    before = len(builder.runs())
    environments.install_packages(venv, paths.RELEASES / NEW / "app", {"locked": False, "install": ["."]})
    assert uv_of(builder.runs()[-1])[-2:] == ["--compile-bytecode", "."]
    assert len(builder.runs()) == before + 1


def test_builds_may_need_an_old_setuptools(builder: Builder) -> None:
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    environments.BUILD.mkdir(parents=True)
    settings = {"locked": True, "install": ["."]}
    environments.install_packages(venv, paths.RELEASES / NEW / "app", settings, "setuptools<58")
    constraints = environments.CONSTRAINTS
    assert constraints.parent == paths.RUN, "which is root's"
    assert uv_of(builder.runs()[-1])[-4:] == ["--require-hashes", "--build-constraints", str(constraints), "."]
    assert constraints.read_text() == "setuptools<58\n"
    assert constraints.stat().st_mode & 0o777 == 0o644  # the builder reads it, and root writes it


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_root_writes_nothing_where_a_build_script_can_put_something_else(builder: Builder, kind: str) -> None:
    """A setup.py makes it and then fails with what needs an old setuptools."""
    environments.install(NEW)
    venv = (paths.RELEASES / NEW / "venv").resolve()
    target = builder.program.with_name("sudoers")
    target.write_text("root ALL=(ALL) ALL\n")
    target.chmod(0o440)
    environments.BUILD.mkdir(parents=True)
    planted = environments.BUILD / "build-constraints.txt"
    planted.symlink_to(target) if kind == "link" else os.mkfifo(planted)
    with waiting_at_most(5):
        environments.install_packages(venv, paths.RELEASES / NEW / "app", {"locked": True, "install": ["."]}, "x<1")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("root ALL=(ALL) ALL\n", 0o440)


@contextlib.contextmanager
def waiting_at_most(seconds: int) -> Iterator[None]:
    """Who opens a pipe that nobody reads waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_link_that_a_build_script_leaves_as_the_mark_is_not_followed(builder: Builder, machine: Machine) -> None:
    nologin = machine.root / "nologin"
    builder.behave(plants={".complete": str(nologin), "var": str(machine.root / "nothing")})
    assert environments.install(NEW) is True
    assert not nologin.exists()
    venv = (paths.RELEASES / NEW / "venv").resolve()
    assert not (venv / ".complete").is_symlink()
    assert environments.install(NEW) is False


@pytest.mark.parametrize("folder", ["python3", "python3.", "python3.x", "python3.9.1-x"])
def test_a_folder_that_a_build_script_leaves_is_taken_for_no_python(builder: Builder, folder: str) -> None:
    builder.behave(plants={f"lib/{folder}": "python3.13"})
    assert environments.install(NEW) is True
    assert Path(uv_of(builder.runs()[-1])[-1]).name == "gunicorn-requirements.txt"
    builder.behave(plants={f"lib/{folder}": "python3.13"}, error="Because flask is not there", fails="requirements.txt")
    (paths.RELEASES / NEW / "venv" / ".complete").unlink()
    with pytest.raises(HostError, match="Because flask is not there"):
        environments.install(NEW)


def test_an_environment_without_packages_is_an_error_of_the_build(builder: Builder) -> None:
    builder.behave(minor="3.x")
    with pytest.raises(HostError, match=r"build has damaged the virtual environment: .*/lib has no python3 "):
        environments.install(NEW)
    assert list(paths.VENVS.glob("[0-9a-f]*")) == []


# ------------------------------------------------------------------------------------------------ variables


def test_the_installer_gets_the_variables_that_requirements_name_and_no_others(
    builder: Builder, machine: Machine
) -> None:
    release = machine.add(OLD, lock="y", locked=False, install=["-r", "requirements.txt"],
                          install_variables=["TOKEN", "GONE"], secret_names=["TOKEN", "SECRET_KEY"])  # fmt: skip
    (release / "environment.json").write_text(json.dumps({"TOKEN": 'a"b$c`d\\e', "SECRET_KEY": "canary"}))
    environments.install(OLD)
    made, packages, gunicorn = builder.variables()
    assert (made, gunicorn) == ([], [])
    assert packages == ['TOKEN="a\\"b\\$c\\`d\\\\e"\n']
    assert f"--property=EnvironmentFile={environments.VARIABLES}" in builder.runs()[1]
    assert not environments.VARIABLES.exists()
    assert 'a"b' not in str(builder.runs())


def test_a_package_that_a_private_index_does_not_show_is_a_question_of_its_secret(
    builder: Builder, machine: Machine
) -> None:
    release = machine.add(OLD, lock="y", locked=False, install=["-r", "requirements.txt"],
                          install_variables=["TOKEN"], secret_names=["TOKEN"])  # fmt: skip
    (release / "environment.json").write_text(json.dumps({"TOKEN": "hunter22"}))
    builder.behave(error="Because shop was not found in the package registry", fails="pip")
    with pytest.raises(HostError, match=r"^shop is in none of the package indexes\..*'decant:secrets\.TOKEN'\.\n"):
        environments.install(OLD)
    with pytest.raises(HostError, match=r"^the package index has no package shop"):
        environments.install(NEW)


def test_only_root_can_read_the_variables(builder: Builder, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    release = machine.add(OLD, lock="y", locked=False, install=["-r", "r.txt"], install_variables=["TOKEN"])
    (release / "environment.json").write_text(json.dumps({"TOKEN": "hunter22"}))
    modes: list[int] = []
    inner = atomic.write

    def write(path: Path, text: str, mode: int = 0o644) -> None:
        inner(path, text, mode)
        if path == environments.VARIABLES:
            modes.append(path.stat().st_mode & 0o777)

    monkeypatch.setattr(environments, "write", write)
    environments.install(OLD)
    assert modes == [0o600]


def test_secrets_and_passwords_are_masked_in_errors(builder: Builder, machine: Machine) -> None:
    release = machine.add(OLD, lock="y", locked=False, install=["-r", "requirements.txt"],
                          install_variables=["TOKEN"], secret_names=["TOKEN"])  # fmt: skip
    (release / "environment.json").write_text(json.dumps({"TOKEN": "hunter22"}))
    builder.behave(error="no https://me:word1@x.org/simple and hunter22", fails="pip")
    with pytest.raises(HostError) as caught:
        environments.install(OLD)
    assert "no https://[...]@x.org/simple and [TOKEN]" in str(caught.value)
    assert not environments.VARIABLES.exists()


# ------------------------------------------------------------------------------------------------ Pythons


def test_a_python_of_the_apps_choice_is_installed_and_its_environment_made_with_it(
    builder: Builder, machine: Machine
) -> None:
    machine.add(OLD, lock="y", locked=True, requirements="requirements.txt", python="3.11")
    assert environments.install(OLD) is True
    python, venv = builder.runs()[:2]
    assert uv_of(python)[1:] == ["--no-progress", "python", "install", "--no-bin", "3.11"]
    (folder,) = pythons.PYTHONS.iterdir()
    settings = {item.removeprefix("--setenv=") for item in python if item.startswith("--setenv=")}
    assert {f"UV_PYTHON_INSTALL_DIR={folder}", "UV_PYTHON_DOWNLOADS=manual"} <= settings
    assert f"--property=ReadWritePaths={folder} {environments.BUILD}" in python
    assert f"--property=WorkingDirectory={folder}" in python
    interpreter = folder / "cpython-3.11.9-linux" / "bin" / "python3.11"
    assert uv_of(venv)[3:6] == ["venv", "--python", str(interpreter)]
    assert environments.install(OLD) is False
    made = (paths.RELEASES / OLD / "venv").resolve()
    builder.behave(error="the mirror is gone", fails="python install")
    (paths.OPT / "uv-requirements.txt").write_text("uv==99\n")
    (made / "bin" / "python").unlink()
    (made / "bin" / "python").symlink_to(interpreter)
    assert environments.install(OLD) is False, "an environment that works needs no newer Python"
    (made / ".complete").unlink()
    with pytest.raises(HostError, match=r"^Python 3\.11 could not be installed\.\n"):
        environments.install(OLD)


def test_an_environment_of_another_python_is_another_one(builder: Builder, machine: Machine) -> None:
    for release, python in ((OLD, "3.11"), ("d" * 12, "3.12"), (OLDER, None)):
        machine.add(release, lock="same", locked=True, requirements="requirements.txt", python=python)
        environments.install(release)
    assert len({(paths.RELEASES / r / "venv").resolve() for r in (OLD, "d" * 12, OLDER)}) == 3


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
    assert (modes["tool"], modes["bin"], modes["METADATA"], modes[venv.name]) == (0o755, 0o755, 0o644, 0o750)
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

    def with_compilers(install: Callable[[str], None], *, python: str | None) -> None:
        builder.behave(error="error: Failed to build ext==1 command 'gcc' failed")
        real(install, python=python)

    real = compilers.with_compilers
    monkeypatch.setattr(environments, "with_compilers", with_compilers)
    monkeypatch.setattr(compilers, "install_missing", install_missing)
    machine.add(OLD, lock="y", locked=False, install=["./ext"], python=python)
    assert environments.install(OLD) is True
    assert asked == ["build-essential", "pkg-config", *headers]
    assert [uv_of(argv)[-1] for argv in builder.runs()].count("./ext") == 2
