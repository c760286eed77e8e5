"""The build of an app: its copy, what is shipped of it, when the command runs, and its errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decant.app import build
from decant.app.files import app_files
from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.errors import AppError
from tests.support.app_folders import PLAIN, committed, contents, pack_beside, use_plain_git, write


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


@dataclass
class Builder:
    """An app folder in a project. `said` is what the user was told, `builds` counts runs of the command."""

    project: Path
    said: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def app(self) -> Path:
        return self.project / "app"

    def __call__(self, command: str) -> Path:
        options = AppOptions(env=self.env)
        return build.built_app(
            self.app, f"echo x >>{self.project}/runs; {command}", options, self.project / ".decant", self.said.append
        )

    @property
    def runs(self) -> int:
        path = self.project / "runs"
        return path.read_text().count("x") if path.exists() else 0

    def shipped(self, command: str) -> dict[str, str]:
        folder = self(command)
        assert folder.name == "app"
        return {name: path.read_text() for name, path in app_files(folder) if path.is_file()}


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    project = tmp_path / "project"
    committed(project, {".gitignore": ".decant/\nruns\n", **{f"app/{name}": text for name, text in PLAIN.items()}})
    return Builder(project)


def test_what_the_command_makes_is_shipped_and_the_users_folder_stays(builder: Builder) -> None:
    write(
        builder.app,
        {".gitignore": "static/dist/\n.env\nlocal.txt\n", "local.txt": "mine", ".env": "SECRET=1", "a.txt": "a"},
    )
    command = (
        "mkdir -p static/dist node_modules .cache; echo made >static/dist/x.css; echo b >a.txt;"
        " touch node_modules/x .cache/y; ls -A >seen"
    )
    shipped = builder.shipped(command)
    assert shipped.pop("seen").split() == [
        ".cache",
        ".git",
        ".gitignore",
        "a.txt",
        "node_modules",
        "requirements.txt",
        "seen",
        "static",
        "wsgi.py",
    ]
    assert shipped == {
        **PLAIN,
        ".gitignore": "static/dist/\n.env\nlocal.txt\n",
        "a.txt": "b\n",
        "static/dist/x.css": "made\n",
    }
    assert (builder.app / "a.txt").read_text() == "a"
    assert sorted(path.name for path in builder.app.iterdir()) == [
        ".env",
        ".gitignore",
        "a.txt",
        "local.txt",
        "requirements.txt",
        "wsgi.py",
    ]
    status = subprocess.run(
        ["git", "status", "--short"], cwd=builder.project, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? app/.gitignore\n?? app/a.txt\n", "the copy is not in the user's repository"


def test_the_command_runs_again_only_after_a_change(builder: Builder) -> None:
    command = "cp wsgi.py made.py"
    first = builder.shipped(command)
    assert builder.shipped(command) == first
    assert builder.runs == 1
    builder.app.joinpath("wsgi.py").write_text("app = 1\n")
    assert builder.shipped(command)["made.py"] == "app = 1\n"
    assert builder.runs == 2
    builder.app.joinpath("wsgi.py").chmod(0o755)
    builder(command)
    assert builder.runs == 3
    builder.env["MODE"] = "x"
    builder(command)
    assert builder.runs == 4
    builder(f"{command} ")
    assert builder.runs == 5, "another command"
    folder = builder(command)
    assert builder.runs == 5
    (folder / "made.py").unlink()
    builder(command)
    assert builder.runs == 6, "what it made is gone"


def test_the_same_inputs_give_the_same_bundle_after_other_builds(builder: Builder) -> None:
    command = (
        "cat *.txt >all.out; mkdir -p made/$(cat name.txt); touch made/$(cat name.txt)/x;"
        " mkdir -p node_modules; date >>node_modules/log"
    )
    write(builder.app, {"name.txt": "one"})

    def bundle() -> bytes:
        return pack_beside(read_app(builder(command), AppOptions())).path.read_bytes()

    first = bundle()
    (builder.app / "name.txt").write_text("two")
    (builder.app / "name.txt").chmod(0o600)
    assert bundle() != first
    (builder.app / "name.txt").write_text("one")
    assert bundle() == first
    assert "made/one/x" in contents(pack_beside(read_app(builder(command), AppOptions())))
    copy = builder(command)
    assert not (copy / "made" / "two").exists()
    assert len((copy / "node_modules" / "log").read_text().splitlines()) == 3, "caches stay"
    shutil.rmtree(builder.project / ".decant")
    assert bundle() == first


def test_a_failure_leaves_nothing_that_counts_as_built(builder: Builder) -> None:
    write(builder.app, {"word": "good"})
    command = "cat word >out; ! grep -q bad word"
    assert builder.shipped(command)["out"] == "good"
    write(builder.app, {"word": "bad"})
    with pytest.raises(AppError):
        builder(command)
    write(builder.app, {"word": "good"})
    assert builder.shipped(command)["out"] == "good", "and not what the failed run made"
    assert builder.runs == 3


def test_sources_that_change_their_kind_are_copied(builder: Builder) -> None:
    write(builder.app, {"x": "file", "y/a": "in a folder"})
    builder("true")
    (builder.app / "x").unlink()
    shutil.rmtree(builder.app / "y")
    write(builder.app, {"x/a": "now a folder", "y": "now a file"})
    (builder.app / "z").symlink_to("y")
    shipped = builder.shipped("true")
    assert (shipped["x/a"], shipped["y"], shipped["z"]) == ("now a folder", "now a file", "now a file")
    (builder.app / "z").unlink()
    write(builder.app, {"z": "own"})
    shipped = builder.shipped("true")
    assert (shipped["y"], shipped["z"]) == ("now a file", "own")


def test_a_file_that_the_command_removes_is_not_shipped(builder: Builder) -> None:
    write(builder.app, {"big.psd": "x"})
    assert "big.psd" not in builder.shipped("rm big.psd")
    builder.app.joinpath("wsgi.py").write_text("app = 2\n")
    assert "big.psd" not in builder.shipped("rm big.psd"), "it was there again for the second run"


def test_the_user_is_told_before_and_after(builder: Builder) -> None:
    copy = builder("true")
    runs = builder.project / "runs"
    assert builder.said == [
        f"decant:build runs: echo x >>{runs}; true",
        f"decant:build is done after 0 s; its output is in {copy.parent / 'log.txt'}",
    ]


def test_a_command_that_fails_is_an_error_with_its_last_lines(builder: Builder) -> None:
    lines = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $i; done"
    for attempt in (1, 2):
        with pytest.raises(AppError) as caught:
            builder(f"{lines}; echo oh >&2; exit 3")
        ((message, fix),) = caught.value.problems
        assert message.startswith(f"could not be built: decant:build, 'echo x >>{builder.project}/runs; {lines}")
        assert "ended with status 3 after 0 s. Its last lines, of " in message
        assert message.splitlines()[1:] == [*(f"        line {n}" for n in range(7, 21)), "        oh"]
        assert fix.startswith(f"to try it: cd {builder.project}/.decant/build/")
        assert builder.runs == attempt, "a failure is not remembered as done"


def test_the_command_gets_the_users_variables_and_no_secret_of_pulumis(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "canary")
    monkeypatch.setenv("PULUMI_CONFIG", '{"decant:secrets": "canary"}')
    monkeypatch.setenv("NPM_TOKEN", "mine")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    builder.env["FLASK_APP"] = "shop"
    seen = builder.shipped("env >seen")["seen"]
    assert "canary" not in seen
    assert "PYTHONPATH" not in seen
    assert "NPM_TOKEN=mine\n" in seen
    assert "FLASK_APP=shop\n" in seen


def test_a_virtual_environment_in_the_copy_is_not_shipped(builder: Builder) -> None:
    shipped = builder.shipped("mkdir tools; touch tools/pyvenv.cfg tools/x keep .env.local a.pyc")
    assert sorted(shipped) == sorted([*PLAIN, "keep"])


def test_copies_of_other_commands_are_removed_when_they_are_many(builder: Builder) -> None:
    names = []
    for number in range(build.BUILDS + 2):
        copy = builder(f"true {number}")
        os.utime(copy.parent, (number, number))
        names.append(copy.parent.name)
    left = sorted(path.name for path in (builder.project / ".decant" / "build").iterdir())
    assert left == sorted(names[-build.BUILDS :])
