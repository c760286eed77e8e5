"""What a build's command finds: programs, and a virtual environment with the app's packages."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decant.app import build_programs
from decant.app.build_programs import build_environment, missing_program, programs
from decant.app.model import AppOptions, Packages
from decant.errors import AppError
from tests.support.app_folders import write


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("npm ci && npm run build", ["npm", "npm"]),
        ("cd web && NODE_ENV=production npx tailwindcss -i a.css -o b.css; cd ..", ["npx"]),
        ("if test -e x; then make css; fi", ["make"]),
        ("(flask translate compile) | tee log >out.txt", ["flask", "tee"]),
        ("exec ./build.sh", ["./build.sh"]),
        ("echo 'npm run; flask'", []),
        ("echo 'open", []),
    ],
)
def test_the_programs_of_a_command(command: str, found: list[str]) -> None:
    assert programs(command) == found


@pytest.fixture
def path(tmp_path: Path) -> str:
    for name in ("make", "sh"):
        write(tmp_path / "bin", {name: "#!/bin/sh\n"})
        (tmp_path / "bin" / name).chmod(0o755)
    return str(tmp_path / "bin")


def test_a_program_that_is_not_there_is_named(path: str) -> None:
    assert missing_program("make css && ./x && $TOOL", path) is None
    says = "cannot be built: decant:build runs {}, which is not on this computer"
    assert missing_program("make; npm ci", path) == (
        says.format("npm"),
        "install Node.js, e.g. sudo apt-get install npm",
    )
    assert missing_program("hugo", path) == (says.format("hugo"), "install it, e.g. sudo apt-get install hugo")
    assert missing_program("pybabel x", path) == (
        says.format("pybabel"), "install pybabel, or add the Python package that has it to the app's packages",
    )  # fmt: skip


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, path: str) -> list[Path]:
    """The environments that were asked for; none is made."""
    asked: list[Path] = []

    def make(options: AppOptions, work: Path, *rest: Any) -> Path:
        asked.append(work)
        return Path("/venv")

    monkeypatch.setattr(build_programs, "_virtual_environment", make)
    monkeypatch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}{os.pathsep}{path}")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    return asked


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("make css", False),
        ("npm run build", False),
        ("flask translate compile", True),
        ("python3 build.py", True),
        ("pybabel compile -d translations", True),
        ("make i18n", True),
        ("make babel-i18n", True),
        ("sh scripts/build.sh", True),
        ("sh scripts/plain.sh", False),
        ("make css && echo not-python", False),
    ],
)
def test_a_command_that_needs_the_apps_packages_finds_them_first(
    tmp_path: Path, made: list[Path], path: str, command: str, needs: bool
) -> None:
    files = {"scripts/build.sh": "flask digest\n", "scripts/plain.sh": "ls\n"}
    if "i18n" in command:
        tool = "pybabel compile" if "babel" in command else "flask translate compile"
        files["Makefile"] = f"i18n:\n\t{tool}\n"
    files["package.json"] = '{"name": "python", "scripts": {"build": "vite build"}}'
    work = write(tmp_path / "work", files)
    environment = build_environment(command, AppOptions(), work, tmp_path, tmp_path / "log", print)
    assert environment["PATH"] == (f"/venv/bin{os.pathsep}{path}" if needs else path), "not Decant's own environment"
    assert environment.get("VIRTUAL_ENV") == ("/venv" if needs else None)
    assert len(made) == needs


def test_scripts_of_package_json_count(tmp_path: Path, made: list[Path]) -> None:
    work = write(tmp_path / "work", {"package.json": '{"scripts": {"build": "flask assets && vite"}}'})
    build_environment("npm run build", AppOptions(), work, tmp_path, tmp_path / "log", print)
    assert len(made) == 1


def environment_of(work: Path, tmp_path: Path, said: list[str]) -> Path:
    made = build_environment("python x.py", AppOptions(), work, tmp_path / "cache", tmp_path / "log", said.append)
    return Path(made["VIRTUAL_ENV"])


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for uv, which notes its command lines, and fails where the file `fail` holds its first argument."""
    text = (
        '#!/bin/sh\necho "$@" >>{log}\nif grep -qsx "$1" {log}.fail; then echo "error: no such package"; exit 2; fi\n'
        'if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; fi\n'
    ).format(log=tmp_path / "uv.log")
    program = write(tmp_path / "uv-bin", {"uv": text}) / "uv"
    program.chmod(0o755)
    monkeypatch.setattr(build_programs, "find_uv_bin", lambda: str(program))
    return tmp_path / "uv.log"


def test_an_environment_is_made_once_for_the_same_packages(tmp_path: Path, uv: Path) -> None:
    work = write(tmp_path / "work", {"requirements.txt": "flask\n", "x.py": ""})
    said: list[str] = []
    venv = environment_of(work, tmp_path, said)
    assert environment_of(work, tmp_path, said) == venv
    assert said == ["decant:build needs the app's packages; installing them on this computer"]
    assert uv.read_text().splitlines() == [
        f"venv --quiet --allow-existing --python 3.13 {venv}",
        f"pip install --quiet --python {venv}/bin/python --requirement requirements.txt",
    ]
    write(work, {"requirements.txt": "flask\nbabel\n", "x.py": "1"})
    assert environment_of(work, tmp_path, said) != venv
    assert len(said) == 2


def test_packages_that_cannot_be_installed_are_an_error(tmp_path: Path, uv: Path) -> None:
    work = write(tmp_path / "work", {"requirements.txt": "nope\n"})
    uv.with_name("uv.log.fail").write_text("pip\n")
    for _ in range(2):
        with pytest.raises(AppError, match=r"which decant:build needs, could not be installed here:\n +error: no such"):
            environment_of(work, tmp_path, [])


def test_old_environments_are_removed(tmp_path: Path, uv: Path) -> None:
    kept = []
    for number in range(build_programs.ENVIRONMENTS + 2):
        work = write(tmp_path / "work", {"requirements.txt": f"a=={number}\n"})
        venv = environment_of(work, tmp_path, [])
        os.utime(venv, (number, number))
        kept.append(venv)
    assert sorted(kept[0].parent.iterdir()) == sorted(kept[-build_programs.ENVIRONMENTS :])


def test_a_real_environment_runs_python(tmp_path: Path) -> None:
    work = write(tmp_path / "work", {"requirements.txt": "# nothing\n"})
    venv = environment_of(work, tmp_path, [])
    done = subprocess.run(
        [venv / "bin" / "python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{venv}\n"


def test_the_command_has_no_credentials_of_pulumis_and_of_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "DIGITALOCEAN_TOKEN", "SPACES_SECRET_ACCESS_KEY", "PULUMI_CONFIG_PASSPHRASE")
    for name in (*names, "NPM_TOKEN"):
        monkeypatch.setenv(name, "x")
    options = AppOptions(env={"AWS_REGION": "eu-central-1"})
    environment = build_environment("true", options, tmp_path, tmp_path, tmp_path / "log", print)
    assert not environment.keys() & set(names)
    assert environment["NPM_TOKEN"] == "x"
    assert environment["AWS_REGION"] == "eu-central-1", "decant:env names it"


def test_generated_files_are_not_written_through_a_link(tmp_path: Path, uv: Path) -> None:
    work = write(tmp_path / "work", {"a.txt": ""})
    (work / "generated.txt").symlink_to(tmp_path / "outside")
    packages = Packages(why="", install=(), files=(), hashed=True, generated={"generated.txt": b"x"})
    with contextlib.suppress(AppError):
        build_programs._install(tmp_path / "venv", packages, work, 1, {}, tmp_path / "log")
    assert not (tmp_path / "outside").exists()
    assert (work / "generated.txt").is_symlink()
