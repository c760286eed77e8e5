"""The files of an app folder that are shipped, and those that never are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from decant.app.files import app_files, printable, run_git, trust_copy
from decant.errors import AppError
from tests.support.app_folders import PLAIN, committed, contents, git, packed, use_plain_git, write


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


LEFT_OUT = [
    ".env", "shop/.git/config", ".hg/store", ".svn/entries", ".venv/bin/python", "instance/app.db",
    "__pycache__/wsgi.cpython-313.pyc", "shop/__pycache__/a.pyc",
    "shop/old.pyc", ".pytest_cache/v", ".mypy_cache/3.13", ".ruff_cache/x", ".tox/x", ".nox/x", ".DS_Store",
    ".env.local", ".env.production", "shop/.env.staging", "shop/.DS_Store", ".idea/x.xml",
    ".vscode/x.json", "shop/.env", "shop/instance/config.py",
]  # fmt: skip


@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "tracked"])
def test_secrets_data_and_environments_are_never_shipped(tmp_path: Path, tracked: bool) -> None:
    """Not even where they are committed."""
    files = {**PLAIN, **{name: "x" for name in LEFT_OUT if not (tracked and "/.git/" in name)}}
    app = write(tmp_path / "app", files)
    if tracked:
        committed(app, {})
        git(app, "add", "-f", "-A")
    assert set(contents(packed(app))) == set(PLAIN)


TOOLS = ["venv/lib/x.py", "env/lib/x.py", "shop/env/x.py", "node_modules/x/index.js", "static/node_modules/y/y.css"]


def test_folders_that_tools_fill_are_shipped_where_git_tracks_them(tmp_path: Path) -> None:
    app = write(tmp_path / "plain", {**PLAIN, **dict.fromkeys(TOOLS, "x")})
    assert set(contents(packed(app))) == set(PLAIN)
    app = committed(tmp_path / "untracked", PLAIN)
    write(app, dict.fromkeys(TOOLS, "x"))
    assert set(contents(packed(app))) == set(PLAIN)
    app = committed(tmp_path / "tracked", {**PLAIN, **dict.fromkeys(TOOLS, "x")})
    write(app, {"node_modules/z/new.js": "x"})
    assert set(contents(packed(app))) == {*PLAIN, *TOOLS}


@pytest.mark.parametrize("use_git", [False, True], ids=["walked", "git"])
def test_a_package_named_env_is_shipped(tmp_path: Path, use_git: bool) -> None:
    package = {"env/__init__.py": "", "env/settings.py": "x", "shop/venv/__init__.py": "", "shop/venv/deep/x.py": "x"}
    app = committed(tmp_path / "app", PLAIN) if use_git else write(tmp_path / "app", PLAIN)
    write(app, package)
    assert set(contents(packed(app))) == {*PLAIN, *package}


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("mark", ["env/pyvenv.cfg", "env/bin/activate_this.py"])
def test_a_virtual_environment_named_env_is_not_shipped(tmp_path: Path, tracked: bool, mark: str) -> None:
    files = {"env/__init__.py": "", "env/lib/x.py": "x", mark: ""}
    app = committed(tmp_path / "app", {**PLAIN, **files}) if tracked else write(tmp_path / "app", {**PLAIN, **files})
    assert set(contents(packed(app))) == set(PLAIN)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "app", {**PLAIN, "secret.key": "x"})
    opened = Path.open

    def refuse(path: Path, *options: Any, **more: Any) -> Any:
        if path.name == "secret.key":
            raise PermissionError(13, "Permission denied")
        return opened(path, *options, **more)

    monkeypatch.setattr(Path, "open", refuse)
    assert refused(app) == (
        "has secret.key, which cannot be read (Permission denied)",
        "chmod -R u+rX app/secret.key, or move it out of the folder",
    )


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "app", {**PLAIN, "private/x": "x"})
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refused(app)[0] == "has private, which cannot be read (Permission denied)"


def test_names_that_are_no_utf_8_are_shipped(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    os.close(os.open(os.fsencode(app) + b"/caf\xe9.txt", os.O_CREAT | os.O_WRONLY))
    assert set(contents(packed(app))) == {*PLAIN, "caf\udce9.txt"}
    assert printable("caf\udce9 \n.txt") == "caf\\xe9 \\n.txt"


def test_pipes_and_sockets_are_no_files(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    os.mkfifo(app / "pipe")
    assert set(contents(packed(app))) == set(PLAIN)


def test_files_with_similar_names_are_shipped(tmp_path: Path) -> None:
    kept = [".env.example", "shop/.env.sample", ".env.template", ".envrc",
            "environment.py", "env.py", "instances/a.py", "shop/venv.py", ".gitignore", ".flaskenv",
            "a.pyc.txt", "git/config", "static/.well-known/security.txt"]  # fmt: skip
    app = write(tmp_path / "app", {**PLAIN, **dict.fromkeys(kept, "x")})
    assert set(contents(packed(app))) == {*PLAIN, *kept}


@pytest.mark.parametrize("use_git", [False, True], ids=["walked", "git"])
def test_virtual_environments_are_never_shipped(tmp_path: Path, use_git: bool) -> None:
    places = ("py313", "tools/deep/er", "shop/.virtualenv")
    extra = {f"{p}/{f}": "x" for p in places for f in ("pyvenv.cfg", "bin/python", "lib/site-packages/flask/app.py")}
    app = write(tmp_path / "app", {**PLAIN, **extra, "tools/deep/kept.py": ""})
    if use_git:
        committed(app, {})
    assert set(contents(packed(app))) == {*PLAIN, "tools/deep/kept.py"}


def test_ignored_files_are_left_out_and_untracked_ones_are_shipped(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, ".gitignore": "*.log\n/data/\n", "shop/.gitignore": "local.py\n"})
    write(app, {"a.log": "x", "data/b": "x", "shop/local.py": "x", "shop/new.py": "x", "odd name\n.txt": "x"})
    assert set(contents(packed(app))) == {*PLAIN, ".gitignore", "shop/.gitignore", "shop/new.py", "odd name\n.txt"}


def test_an_ignored_file_that_is_tracked_is_shipped(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, "build.css": "x"})
    write(app, {".gitignore": "*.css\n"})
    assert "build.css" in contents(packed(app))


def test_a_deleted_file_is_left_out_although_it_is_tracked(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, "gone.py": "x", "staged.py": "x"})
    (app / "gone.py").unlink()
    git(app, "rm", "-q", "staged.py")
    assert set(contents(packed(app))) == set(PLAIN)


def test_the_work_tree_is_shipped_and_not_the_last_commit(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", PLAIN)
    write(app, {"wsgi.py": "app = 'changed'\n"})
    assert contents(packed(app))["wsgi.py"] == b"app = 'changed'\n"


def test_the_repository_of_another_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container or a CI runner, where git refuses by default."""
    app = committed(tmp_path / "app", {**PLAIN, ".gitignore": "*.log\n"})
    write(app, {"a.log": "x"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert set(contents(packed(app))) == {*PLAIN, ".gitignore"}


def test_a_repositorys_own_settings_run_no_program(tmp_path: Path) -> None:
    """`core.fsmonitor` may name one, which git would start at each listing."""
    app = committed(tmp_path / "app", PLAIN)
    write(tmp_path, {"monitor": f"#!/bin/sh\ntouch '{tmp_path}/started'\n"})
    (tmp_path / "monitor").chmod(0o755)
    git(app, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    assert set(contents(packed(app))) == set(PLAIN)
    assert not (tmp_path / "started").exists()


def test_a_folder_that_is_ignored_as_a_whole_is_walked(tmp_path: Path) -> None:
    whole = committed(tmp_path / "whole", {".gitignore": "/app/\n"})
    app = write(whole / "app", {**PLAIN, ".env": "x", "shop/x.py": ""})
    assert set(contents(packed(app))) == {*PLAIN, "shop/x.py"}


def test_empty_folders_are_left_out(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", PLAIN), write(tmp_path / "two", PLAIN)
    (two / "empty" / "inner").mkdir(parents=True)
    assert packed(one) == packed(two)


# git lists a repository inside the repository by its folder alone; it was once left out without a message.
@pytest.mark.parametrize("submodule", [True, False], ids=["submodule", "clone"])
def test_a_repository_inside_is_shipped_or_refused(tmp_path: Path, submodule: bool) -> None:
    library = committed(tmp_path / "library", {"__init__.py": "", "money.py": "x"})
    app = committed(tmp_path / "app", PLAIN)
    git(app, *(["submodule", "add"] if submodule else ["clone"]), "-q", str(library), "money")
    try:
        shipped = set(contents(packed(app)))
    except AppError:
        return
    assert "money/money.py" in shipped


# ------------------------------------------------------------------------------------------------ git that fails


def checkout(tmp_path: Path) -> Path:
    """An app in a git repository, with a file that only .gitignore keeps from being shipped."""
    whole = committed(
        tmp_path / "whole dir", {".gitignore": "*.sqlite3\n", **{f"app/{k}": v for k, v in PLAIN.items()}}
    )
    return write(whole / "app", {"db.sqlite3": "local data"})


def refused(app: Path) -> tuple[str, str]:
    with pytest.raises(AppError) as caught:
        packed(app)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("place", [".git", "pointer"])
def test_a_repository_without_the_git_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    app = checkout(tmp_path)
    if place == "pointer":  # as in a work tree, .git may be a file
        (app.parent / ".git").rename(tmp_path / "repository")
        (app.parent / ".git").write_text(f"gitdir: {tmp_path / 'repository'}\n")
    assert set(contents(packed(app))) == set(PLAIN)
    monkeypatch.setenv("PATH", str(tmp_path))
    text, fix = refused(app)
    assert text.startswith(
        f"is in the git repository {app.parent}, and without git nothing says which files .gitignore"
    )
    assert "git cannot be run" in text
    assert "apt-get install git" in fix


def test_a_repository_that_git_takes_for_unsafe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git before 2.38 does not take safe.directory from the command line."""
    app = checkout(tmp_path)
    text = f"fatal: detected dubious ownership\n  git config --global --add safe.directory {app.parent}"
    write(tmp_path, {"bin/git": f"#!/bin/sh\necho '{text}' >&2\nexit 128\n"})
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    text, fix = refused(app)
    assert "git failed (fatal: detected dubious ownership" in text
    assert fix == f"git config --global --add safe.directory '{app.parent}'"


def test_a_damaged_repository_is_refused(tmp_path: Path) -> None:
    app = checkout(tmp_path)
    (app.parent / ".git" / "index").write_text("no index")
    text, fix = refused(app)
    assert "git failed (" in text
    assert fix == f"mend what this shows: git -C '{app}' status"


def test_a_folder_in_no_repository_is_shipped_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "app", {**PLAIN, "db.sqlite3": "x"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(contents(packed(app))) == {*PLAIN, "db.sqlite3"}


def test_an_app_folder_may_be_a_link(tmp_path: Path) -> None:
    app = checkout(tmp_path)
    (tmp_path / "link").symlink_to(app)
    assert set(contents(packed(tmp_path / "link"))) == set(PLAIN)


def test_a_listing_beside_a_folder_that_no_build_made_says_nothing(tmp_path: Path) -> None:
    """Neither beside the app folder nor beside a repository inside of it."""
    write(tmp_path, {"home/key": "secret"})
    app = committed(tmp_path / "app", PLAIN)
    inner = committed(app / "inner", {"a.txt": ""})
    (app / "loot").symlink_to("../home")
    (inner / "loot").symlink_to("../../home")
    write(tmp_path, {".app.files.json": '{"files": ["loot/key"]}'})
    write(app, {".inner.files.json": '{"files": ["loot/key"]}'})
    names = {name for name, _ in app_files(app)}
    assert names == {*PLAIN, ".inner.files.json", "inner/a.txt", "inner/loot", "loot"}


def test_a_file_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """git's index may name such a file."""
    write(tmp_path, {"home/key": "secret"})
    app = committed(tmp_path / "app", {**PLAIN, "loot/key": ""})
    shutil.rmtree(app / "loot")
    (app / "loot").symlink_to("../home")
    with pytest.raises(AppError) as caught:
        list(app_files(app))
    assert caught.value.problems == (
        (
            "has loot/key, which a link leads out of the folder",
            "replace the link to a folder in loot/key by what it points to",
        ),
    )


def test_a_listing_names_no_file_outside_of_the_copy(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    write(tmp_path, {".app.files.json": '{"files": ["wsgi.py", "static/../../key"]}', "key": "secret"})
    trust_copy(app)
    with pytest.raises(AppError, match="which a link leads out of the folder"):
        list(app_files(app))


def test_a_repository_that_lacks_objects_starts_no_program_to_fetch_them(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", PLAIN)
    for name, value in (
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", f"ext::touch {tmp_path}/started"),
        ("protocol.ext.allow", "always"),
    ):
        git(app, "config", name, value)
    with pytest.raises(AppError, match="git failed"):
        run_git(app, "cat-file", "blob", "1" * 40)
    assert not (tmp_path / "started").exists()
