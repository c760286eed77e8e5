"""The app folder: what is read from it, what is shipped of it, and what a release is called."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from decant import bundle
from decant.bundle import App, Bundle, pack, read_app, release_id
from decant.errors import AppError

WSGI = "app = None\n"
LOCKED = "flask==3.1.3 --hash=sha256:" + 64 * "0" + "\n"
PLAIN = {"wsgi.py": WSGI, "requirements.txt": LOCKED}


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """git as it comes, whatever the user or a hook of theirs has set."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def committed(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    write(folder, files)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def packed(folder: Path) -> Bundle:
    return pack(read_app(folder, static=None))


def members(made: Bundle) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(made.data)) as tar:
        return {m.name: m for m in tar.getmembers()}


def contents(made: Bundle) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(made.data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]


def problems(folder: Path, static: str | None = None) -> list[str]:
    with pytest.raises(AppError) as caught:
        read_app(folder, static=static)
    assert all(fix for _, fix in caught.value.problems)
    return [message for message, _ in caught.value.problems]


# ------------------------------------------------------------------------------------------------ the same bytes

TREE: dict[str, str | bytes] = {
    **PLAIN,
    "shop/__init__.py": "",
    "shop/a.txt": b"\x00\xff binary \r\n",
    "shop/größe ü.txt": "name outside ASCII",
    "static/" + "deep/" * 30 + "style.css": "longer than an old tar's field\n",
    "zz.sh": "#!/bin/sh\n",
}


def test_the_bytes_are_these_and_no_others(tmp_path: Path) -> None:
    """Worked out once: another computer, Python or tar module that made others would release for no reason."""
    app = write(tmp_path / "app", {**PLAIN, "static/a.css": "a{}\n"})
    made = packed(app)
    assert made.sha256 == "8a2399903ea7b4b86d5ac6bd89e6f52fd2881ece950a33d385be610c0908c56e"
    assert made.code == "2e568ea4b297dfbfea4f7466153fcf9f4b6b5732cfb6de41dd90f0b1cf29d9b3"


def test_times_umasks_and_order_do_not_matter(tmp_path: Path) -> None:
    one = packed(write(tmp_path / "one" / "app", TREE))
    before = os.umask(0o077)
    try:
        other = write(tmp_path / "elsewhere" / "renamed", dict(reversed(TREE.items())))
    finally:
        os.umask(before)
    for number, path in enumerate(sorted(other.rglob("*"))):
        os.utime(path, (1_000_000 + number, 2_000_000 + number))
        if path.is_file():
            path.chmod([0o600, 0o640, 0o666, 0o604][number % 4])
    two = packed(other)
    assert one == two
    assert one.files == len(TREE)


def test_another_checkout_and_no_git_at_all_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = committed(tmp_path / "first", TREE)
    git(tmp_path, "clone", "-q", str(first), "second")
    (first / "app.log").touch()
    (first / "app.log").unlink()
    assert packed(first) == packed(tmp_path / "second")
    shutil.rmtree(tmp_path / "second" / ".git")
    assert packed(first) == packed(tmp_path / "second")
    monkeypatch.setenv("PATH", str(tmp_path))  # no git program either
    assert packed(first) == packed(tmp_path / "second")


def test_the_apps_folder_may_be_a_part_of_a_repository(tmp_path: Path) -> None:
    whole = committed(tmp_path / "whole", {"README": "", **{f"app/{k}": v for k, v in TREE.items()}})
    assert packed(whole / "app") == packed(write(tmp_path / "alone", TREE))


def test_what_is_in_the_tar_says_nothing_of_this_computer(tmp_path: Path) -> None:
    app = write(tmp_path / "app", TREE)
    (app / "zz.sh").chmod(0o700)
    (app / "link").symlink_to("wsgi.py")
    for member in members(packed(app)).values():
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
        assert member.mode == (0o755 if member.name in ("zz.sh", "link") else 0o644)
        assert member.isfile() or member.name == "link"
    made = packed(app)
    assert contents(made) == {k: v if isinstance(v, bytes) else v.encode() for k, v in TREE.items()}
    assert list(members(made)) == sorted(members(made))


@pytest.mark.parametrize(
    "change",
    [
        lambda app: (app / "wsgi.py").write_text("app = 1\n"),
        lambda app: (app / "wsgi.py").rename(app / "zz.py") and write(app, {"wsgi.py": ""}),
        lambda app: (app / "zz.sh").chmod(0o755),
        lambda app: (app / "new").touch(),
        lambda app: (app / "zz.sh").unlink(),
        lambda app: (app / "link").symlink_to("zz.sh"),
    ],
    ids=["content", "name", "executable", "added", "removed", "link"],
)
def test_what_does_matter(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    app = write(tmp_path / "app", TREE)
    before = packed(app)
    change(app)
    after = packed(app)
    assert before.code != after.code
    assert before.sha256 != after.sha256


def test_where_a_link_leads_matters(tmp_path: Path) -> None:
    app = write(tmp_path / "app", TREE)
    made = []
    for target in ("wsgi.py", "zz.sh"):
        (app / "link").unlink(missing_ok=True)
        (app / "link").symlink_to(target)
        made.append(packed(app))
    assert made[0].code != made[1].code


def test_moving_content_between_files_matters(tmp_path: Path) -> None:
    """No two different trees run into the same text that is hashed."""
    trees: list[dict[str, str | bytes]] = [
        {"a": "bc", "b": ""}, {"a": "b", "b": "c"}, {"a": "", "b": "bc"}, {"ab": "", "c": "bc"}, {'a", "b': "bc"},
    ]  # fmt: skip
    codes = {packed(write(tmp_path / str(i), {**PLAIN, **tree})).code for i, tree in enumerate(trees)}
    assert len(codes) == len(trees)


# ------------------------------------------------------------------------------------------------ what is shipped

LEFT_OUT = [
    ".env", ".git/config", ".hg/store", ".svn/entries", ".venv/bin/python", "venv/lib/x.py", "env/lib/x.py",
    "instance/app.db", "node_modules/x/index.js", "__pycache__/wsgi.cpython-313.pyc", "shop/__pycache__/a.pyc",
    "shop/old.pyc", ".pytest_cache/v", ".mypy_cache/3.13", ".ruff_cache/x", ".tox/x", ".nox/x", ".DS_Store",
    ".env.local", ".env.production", "shop/.env.staging", "shop/.DS_Store", ".idea/x.xml",
    ".vscode/x.json", "shop/.env", "shop/instance/config.py",
]  # fmt: skip


@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "tracked"])
def test_never_shipped(tmp_path: Path, tracked: bool) -> None:
    """Secrets, data and environments stay, even where somebody committed them."""
    files = {**PLAIN, **{name: "x" for name in LEFT_OUT if not (tracked and name.startswith(".git/"))}}
    app = write(tmp_path / "app", files)
    if tracked:
        committed(app, {})
        git(app, "add", "-f", "-A")
    assert set(contents(packed(app))) == set(PLAIN)


def test_names_that_only_look_like_them_are_shipped(tmp_path: Path) -> None:
    kept = [".env.example", "shop/.env.sample", ".env.template", ".envrc",
            "environment.py", "env.py", "instances/a.py", "shop/venv.py", ".gitignore", ".flaskenv",
            "a.pyc.txt", "git/config", "static/.well-known/security.txt"]  # fmt: skip
    app = write(tmp_path / "app", {**PLAIN, **dict.fromkeys(kept, "x")})
    assert set(contents(packed(app))) == {*PLAIN, *kept}


@pytest.mark.parametrize("use_git", [False, True], ids=["walked", "git"])
def test_environments_anywhere_stay(tmp_path: Path, use_git: bool) -> None:
    places = ("py313", "tools/deep/er", "shop/.virtualenv")
    extra = {f"{p}/{f}": "x" for p in places for f in ("pyvenv.cfg", "bin/python", "lib/site-packages/flask/app.py")}
    app = write(tmp_path / "app", {**PLAIN, **extra, "tools/deep/kept.py": ""})
    if use_git:
        committed(app, {})
    assert set(contents(packed(app))) == {*PLAIN, "tools/deep/kept.py"}


def test_what_git_ignores_stays_and_what_it_does_not_know_yet_goes(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, ".gitignore": "*.log\n/data/\n", "shop/.gitignore": "local.py\n"})
    write(app, {"a.log": "x", "data/b": "x", "shop/local.py": "x", "shop/new.py": "x", "odd name\n.txt": "x"})
    assert set(contents(packed(app))) == {*PLAIN, ".gitignore", "shop/.gitignore", "shop/new.py", "odd name\n.txt"}


def test_an_ignored_file_that_is_tracked_goes(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, "build.css": "x"})
    write(app, {".gitignore": "*.css\n"})
    assert "build.css" in contents(packed(app))


def test_a_deleted_file_that_is_tracked_stays(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", {**PLAIN, "gone.py": "x", "staged.py": "x"})
    (app / "gone.py").unlink()
    git(app, "rm", "-q", "staged.py")
    assert set(contents(packed(app))) == set(PLAIN)


def test_the_work_tree_goes_and_not_the_last_commit(tmp_path: Path) -> None:
    app = committed(tmp_path / "app", PLAIN)
    write(app, {"wsgi.py": "app = 'changed'\n"})
    assert contents(packed(app))["wsgi.py"] == b"app = 'changed'\n"


def test_a_repository_of_another_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container or a CI runner, where git would otherwise refuse and ignored files would be shipped."""
    app = committed(tmp_path / "app", {**PLAIN, ".gitignore": "*.log\n"})
    write(app, {"a.log": "x"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert set(contents(packed(app))) == {*PLAIN, ".gitignore"}


def test_a_folder_that_is_ignored_as_a_whole_is_walked(tmp_path: Path) -> None:
    whole = committed(tmp_path / "whole", {".gitignore": "/app/\n"})
    app = write(whole / "app", {**PLAIN, ".env": "x", "shop/x.py": ""})
    assert set(contents(packed(app))) == {*PLAIN, "shop/x.py"}


def test_empty_folders_are_nothing(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", PLAIN), write(tmp_path / "two", PLAIN)
    (two / "empty" / "inner").mkdir(parents=True)
    assert packed(one) == packed(two)


# git lists a repository inside the repository by its folder alone: once it was left out without a word.
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


# ------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("use_git", [False, True], ids=["walked", "git"])
def test_links_inside_stay_links(tmp_path: Path, use_git: bool) -> None:
    app = write(tmp_path / "app", {**PLAIN, "shop/a.txt": "x"})
    links = {"shop/up.py": "../wsgi.py", "folder": "shop", "shop/not-yet": "later.txt", "shop/self": "."}
    for name, target in links.items():
        (app / name).symlink_to(target)
    if use_git:
        committed(app, {})
    made = members(packed(app))
    assert {n: m.linkname for n, m in made.items() if m.issym()} == links
    assert "folder/a.txt" not in made


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "shop/../../outside", "{app}/wsgi.py", ".."])
@pytest.mark.parametrize("use_git", [False, True], ids=["walked", "git"])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str, use_git: bool) -> None:
    app = write(tmp_path / "app", {**PLAIN, "shop/a.txt": ""})
    write(tmp_path, {"outside": "x"})
    (app / "shop" / "link").symlink_to(target.replace("../", "../../").format(app=app))
    if use_git:
        committed(app, {})
    if target == "..":
        assert "shop/link" in members(packed(app)), "the app folder itself is still inside"
        return
    with pytest.raises(AppError, match=r"has a link shop/link that leads out of the folder") as caught:
        packed(app)
    assert caught.value.problems[0][1] == "replace shop/link by what it points to"


def test_a_link_through_another_link_cannot_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    app = write(tmp_path / "app", {**PLAIN, "shop/a.txt": ""})
    (app / "shop" / "inner").symlink_to("../../secrets")
    (app / "link").symlink_to("shop/inner/key")
    with pytest.raises(AppError, match="leads out of the folder"):
        packed(app)


# ------------------------------------------------------------------------------------------------ size and file


def test_too_large_an_app_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "app", {**PLAIN, "film.mp4": b"0" * 300_000})
    monkeypatch.setattr(bundle, "LARGEST", 1 << 18)
    with pytest.raises(AppError, match="is over 0 MB") as caught:
        packed(app)
    assert ".gitignore" in caught.value.problems[0][1]
    monkeypatch.setattr(bundle, "LARGEST", 1 << 19)
    packed(app)


def test_the_tars_name_says_its_content_and_old_ones_go(tmp_path: Path) -> None:
    app, cache = write(tmp_path / "app", PLAIN), tmp_path / "new" / "cache"
    names = []
    for number in range(13):
        write(app, {"wsgi.py": f"app = {number}\n"})
        made = packed(app)
        path = made.write(cache)
        os.utime(path, (number, number))
        assert path.name == f"app-{made.code[:12]}.tar"
        assert path.read_bytes() == made.data
        names.append(path.name)
    left = sorted(p.name for p in cache.iterdir())
    assert left == sorted(names[-10:]), "other files, such as half-written ones, would be left over"


def test_writing_again_replaces_only_what_differs(tmp_path: Path) -> None:
    made = packed(write(tmp_path / "app", PLAIN))
    path = made.write(tmp_path / "cache")
    os.utime(path, (5, 5))
    assert made.write(tmp_path / "cache").stat().st_mtime == 5
    path.write_bytes(b"cut short")
    assert made.write(tmp_path / "cache").read_bytes() == made.data


# ------------------------------------------------------------------------------------------------ the entry point

SHOP = {"requirements.txt": LOCKED, "shop.py": "", "wsgi.py": "", "pkg/__init__.py": "", "pkg/web.py": ""}
PROCFILES = {
    "gunicorn shop:app": "shop:app",
    "gunicorn shop": "shop",
    "gunicorn pkg:app": "pkg:app",
    "gunicorn pkg.web:app.wsgi": "pkg.web:app.wsgi",
    "gunicorn shop:create_app()": "shop:create_app()",
    "gunicorn 'shop:create_app()'": "shop:create_app()",
    "gunicorn \"shop:create_app(testing=False, name='x y')\"": "shop:create_app(testing=False, name='x y')",
    "gunicorn shop:app --log-file -": "shop:app",
    "gunicorn shop:app --log-file=-": "shop:app",
    "gunicorn --log-file - shop:app": "shop:app",
    "gunicorn -k gthread shop:app": "shop:app",
    "gunicorn shop:app -k gthread": "shop:app",
    "gunicorn shop -k gthread": "shop",
    "gunicorn -k gthread shop": "shop",
    "gunicorn --worker-class gthread --threads 4 shop:app": "shop:app",
    "gunicorn -w 4 -b 0.0.0.0:$PORT shop:app": "shop:app",
    "gunicorn -b localhost:8000 shop:app": "shop:app",
    "gunicorn --bind=:$PORT --workers=2 shop:app --timeout 20": "shop:app",
    "gunicorn --bind unix:/tmp/a.sock shop:app": "shop:app",
    "gunicorn -c gunicorn.conf.py shop:app": "shop:app",
    "gunicorn --config=gunicorn.conf.py shop:app": "shop:app",
    "gunicorn shop:app --config gunicorn.conf.py": "shop:app",
    "gunicorn --preload shop:app": "shop:app",
    "gunicorn --max-requests 1000 --max-requests-jitter 50 shop:app --access-logfile -": "shop:app",
    "python -m gunicorn shop:app": "shop:app",
    "./bin/gunicorn shop:app": "shop:app",
    ".venv/bin/gunicorn shop:app": "shop:app",
    "newrelic-admin run-program gunicorn shop:app": "shop:app",
    "WEB_CONCURRENCY=2 gunicorn shop:app": "shop:app",
    "exec gunicorn shop:app": "shop:app",
}


@pytest.mark.parametrize(("web", "entry"), PROCFILES.items())
def test_entry_point(tmp_path: Path, web: str, entry: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), static=None).entry == entry


def test_without_a_procfile_it_is_wsgi_app(tmp_path: Path) -> None:
    assert read_app(write(tmp_path / "a", SHOP), static=None).entry == "wsgi:app"
    assert read_app(write(tmp_path / "b", {**SHOP, "Procfile": ""}), static=None).entry == "wsgi:app"
    only = {"Procfile": "release: flask db upgrade\n"}
    assert read_app(write(tmp_path / "c", {**SHOP, **only}), static=None).entry == "wsgi:app"
    package = {"requirements.txt": LOCKED, "wsgi/__init__.py": ""}
    assert read_app(write(tmp_path / "d", package), static=None).entry == "wsgi:app"


WRONG_PROCFILES = {
    "web: uvicorn shop:app": "web: runs uvicorn, but Decant runs gunicorn",
    "web: python shop.py": "web: runs python, but Decant runs gunicorn",
    "web: flask run": "web: runs flask, but Decant runs gunicorn",
    "web:": "web: runs nothing, but Decant runs gunicorn",
    "web: gunicorn": "names no application, such as wsgi:app",
    "web: gunicorn --workers 4": "names no application, such as wsgi:app",
    "web: gunicorn -k gthread --log-file -": "names no application, such as wsgi:app",
    "web: gunicorn 'shop:app": "the web: line cannot be read (No closing quotation)",
    "web gunicorn shop:app": "'web gunicorn shop:app' is not of the form `name: command`",
    "we b: gunicorn shop:app": "is not of the form `name: command`",
    "web: gunicorn nowhere:app": "nowhere:app needs nowhere.py or nowhere/__init__.py",
    "web: gunicorn pkg.nowhere:app": "needs pkg/nowhere.py or pkg/nowhere/__init__.py",
}


@pytest.mark.parametrize(("line", "message"), WRONG_PROCFILES.items())
def test_wrong_procfile(tmp_path: Path, line: str, message: str) -> None:
    (problem,) = problems(write(tmp_path / "app", {**SHOP, "Procfile": line + "\n"}))
    assert message in problem


def test_procfile_lines(tmp_path: Path) -> None:
    text = "# a comment\r\n\r\n  # another\nweb:   gunicorn shop:app\r\nrelease :  flask db upgrade --yes: now \n"
    app = read_app(write(tmp_path / "app", {**SHOP, "Procfile": text}), static=None)
    assert app.entry == "shop:app"
    assert app.release_command == "flask db upgrade --yes: now"
    assert app.warnings == ()


def test_other_processes_are_told_and_not_run(tmp_path: Path) -> None:
    text = "web: gunicorn shop:app\nworker: rq worker\nclock: python clock.py\n"
    app = read_app(write(tmp_path / "app", {**SHOP, "Procfile": text}), static=None)
    assert [w.split(" line")[0] for w in app.warnings] == ["Procfile: the clock:", "Procfile: the worker:"]
    assert app.release_command is None


def test_a_procfile_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    assert len(problems(write(tmp_path / "app", {**SHOP, "Procfile": b"web: \xff\xfe\n"}))) == 1


# gunicorn's own short form, after an option that carries its value, or takes none.
@pytest.mark.parametrize("web", ["gunicorn --workers=3 shop", "gunicorn --log-file=- shop", "gunicorn --preload shop"])
def test_a_bare_module_after_an_option(tmp_path: Path, web: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), static=None).entry == "shop"


# The application is gunicorn's first plain argument, whatever looks like one after an option.
@pytest.mark.parametrize("web", ["gunicorn shop:app --bind unix:shop", "gunicorn shop:app --logger-class pkg.web:Log",
                                 "gunicorn shop:app -k pkg.web:Worker"])  # fmt: skip
def test_what_follows_an_option_is_not_the_application(tmp_path: Path, web: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), static=None).entry == "shop:app"


# ------------------------------------------------------------------------------------------------ static files


def test_static_folder(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {**PLAIN, "static/a.css": "", "shop/public/b.css": ""})
    assert read_app(app, static=None).static == "static"
    assert read_app(app, static="shop/public").static == "shop/public"
    assert read_app(write(tmp_path / "none", PLAIN), static=None).static is None
    assert read_app(write(tmp_path / "file", {**PLAIN, "static": "a file"}), static=None).static is None


def test_a_static_folder_that_is_not_there(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {**PLAIN, "public": "a file"})
    for name in ("assets", "public"):
        (problem,) = problems(app, static=name)
        assert problem == f"has no folder {name}, which decant:static names"


# ------------------------------------------------------------------------------------------------ requirements


def requirements(tmp_path: Path, text: str) -> App:
    return read_app(write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": text}), static=None)


def test_no_requirements(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path / "app", {"wsgi.py": WSGI}))
    assert problem == "has no requirements.txt, so nothing says what the app needs"


def test_locked_or_not(tmp_path: Path) -> None:
    locked = requirements(tmp_path / "a", LOCKED)
    assert (locked.locked, locked.warnings) == (True, ())
    loose = requirements(tmp_path / "b", "flask\n")
    assert not loose.locked
    (warning,) = loose.warnings
    assert "uv pip compile --generate-hashes --python-version 3.13" in warning
    assert warning.startswith("app/requirements.txt has no hashes")


INCLUDES = "# first\n-r base.txt\n  -c limits.txt # why\n--requirement=extra/more.txt\n--constraint more.txt\n"


def included(folder: Path) -> Path:
    return write(
        folder,
        {
            "wsgi.py": WSGI, "requirements.txt": INCLUDES, "base.txt": LOCKED, "limits.txt": "", "more.txt": "",
            "extra/more.txt": "-r ../deep.txt\n-r same.txt\n", "deep.txt": "-r requirements.txt\n",
            "extra/same.txt": "",
        },
    )  # fmt: skip


def test_included_files_belong_to_the_lock(tmp_path: Path) -> None:
    app = read_app(included(tmp_path / "app"), static=None)
    names = ["requirements.txt", "base.txt", "limits.txt", "extra/more.txt", "deep.txt", "extra/same.txt", "more.txt"]
    assert list(app.requirements) == names
    assert app.locked
    before = pack(app).lock
    for name in names:
        changed = included(tmp_path / name.replace("/", "-"))
        (changed / name).write_text((changed / name).read_text() + "# changed\n")
        assert packed(changed).lock != before, name


def test_code_alone_leaves_the_lock(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    before = packed(app)
    write(app, {"wsgi.py": "app = 2\n", "new.py": ""})
    after = packed(app)
    assert (before.lock == after.lock, before.code == after.code) == (True, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "requirements.txt: '-e .' cannot be editable on a machine; leave out -e"),
        ("  --editable ./lib", "'--editable ./lib' cannot be editable on a machine"),
        ("-e git+https://example.com/a.git#egg=a", "cannot be editable on a machine"),
        ("-r missing.txt", "has no missing.txt"),
        ("-r ../other.txt", "requirements.txt includes ../other.txt, which is outside the app folder"),
        ("-r extra/../../other.txt", "which is outside the app folder"),
        ("-c /etc/limits.txt", "which is outside the app folder"),
        ("-r inner.txt", "inner.txt: '-e .' cannot be editable"),
    ],
)
def test_requirements_that_no_machine_could_install(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, {"other.txt": ""})
    (problem,) = problems(
        write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": f"flask\n{line}\n", "inner.txt": "-e .\n"})
    )
    assert message in problem


def test_all_problems_of_a_folder_at_once(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"Procfile": "web: uvicorn a:b\n"})
    assert len(problems(app, static="assets")) == 3
    (only,) = problems(tmp_path / "nowhere")
    assert only == "there is no such folder"
    (only,) = problems(app / "Procfile")
    assert only == "there is no such folder"


@pytest.mark.parametrize(
    ("line", "local"),
    [
        (".", True), ("./lib", True), (".[web]", True), ("..", True), ("  ./lib", True), ("file:./lib", True),
        ("money @ file:./lib", True), ("money@file:///srv/x", True), ("flask", False), ("zope.interface", False),
        ("# ./lib", False), ("money @ https://example.com/m.whl", False), (".hidden-is-no-name", False),
    ],
)  # fmt: skip
def test_requirements_that_are_the_apps_own_code(tmp_path: Path, line: str, local: bool) -> None:
    app = write(tmp_path / "app", {**PLAIN, "requirements.txt": f"flask\n{line}\n"})
    assert read_app(app, static=None).local_requirements == local
    before = packed(app).lock
    write(app, {"lib/setup.py": "changed"})
    assert (packed(app).lock != before) == local


def test_a_file_that_two_others_include_is_there_once(tmp_path: Path) -> None:
    files = {"requirements.txt": "-r a.txt\n-r b.txt\n", "a.txt": "-r c.txt\n", "b.txt": "-r c.txt\n", "c.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), static=None)
    assert sorted(app.requirements) == ["a.txt", "b.txt", "c.txt", "requirements.txt"]


# pip and uv take `-rbase.txt`, too; outside the lock, a change of it would install nothing.
def test_an_include_without_a_space(tmp_path: Path) -> None:
    files = {"requirements.txt": "-rbase.txt\n", "base.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), static=None)
    assert app.requirements == ("requirements.txt", "base.txt")


# ------------------------------------------------------------------------------------------------ the release's id

MADE = Bundle(data=b"tar", code="c" * 64, lock="d" * 64, files=3)
SHAPE: dict[str, Any] = {"entry": "wsgi:app", "workers": None, "env": {"A": "1", "B": "2"}, "runtime": "abc"}
KEYS = {"SECRET_KEY": "correct horse", "MAIL": "battery staple"}


def ids(**changes: Any) -> Iterator[str]:
    given: dict[str, Any] = {"bundle": MADE, "shape": SHAPE, "secrets": KEYS, "key": "k"} | changes
    yield release_id(given["bundle"], given["shape"], given["secrets"], given["key"])


def one_id(**changes: Any) -> str:
    return next(ids(**changes))


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": dataclasses.replace(MADE, code="e" * 64)},
        {"bundle": dataclasses.replace(MADE, lock="e" * 64)},
        {"bundle": dataclasses.replace(MADE, code=MADE.lock, lock=MADE.code)},
        {"shape": {**SHAPE, "entry": "wsgi:other"}},
        {"shape": {**SHAPE, "workers": 0}},
        {"shape": {**SHAPE, "threads": None}},
        {"shape": {k: v for k, v in SHAPE.items() if k != "workers"}},
        {"shape": {**SHAPE, "env": {"A": "1", "B": "3"}}},
        {"shape": {**SHAPE, "env": {"A": "12"}}},
        {"secrets": {**KEYS, "MAIL": "another"}},
        {"secrets": {"SECRET_KEY": KEYS["SECRET_KEY"]}},
        {"secrets": {"SECRET_KEY": KEYS["MAIL"], "MAIL": KEYS["SECRET_KEY"]}},
        {"secrets": {}},
        {"key": "another"},
        {"key": ""},
    ],
)
def test_each_ingredient_changes_the_id(change: dict[str, Any]) -> None:
    assert one_id(**change) != one_id()


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": dataclasses.replace(MADE, data=b"another tar of the same content")},
        {"bundle": dataclasses.replace(MADE, files=4)},
        {"shape": dict(reversed(SHAPE.items()))},
        {"secrets": dict(reversed(KEYS.items()))},
    ],
)
def test_nothing_else_does(change: dict[str, Any]) -> None:
    assert one_id(**change) == one_id()


def test_without_secrets_the_key_does_not_matter() -> None:
    assert one_id(secrets={}, key="a") == one_id(secrets={}, key="b")


def test_the_id_is_what_settings_and_machines_take() -> None:
    import re

    assert re.fullmatch(bundle.RELEASE_ID, one_id())
    assert len({one_id(key=str(i)) for i in range(200)}) == 200


def test_secrets_enter_by_an_hmac_with_a_key_of_its_own() -> None:
    """Written out again: whoever knows all but the stack's key cannot test a guess."""

    def canonical(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    derived = hashlib.sha256(b"decant release id\0" + b"k").digest()
    mac = hmac.new(derived, canonical(KEYS), hashlib.sha256).hexdigest()
    expected = hashlib.sha256(canonical([MADE.code, MADE.lock, SHAPE, mac])).hexdigest()[:12]
    assert one_id() == expected
    for without_key in (canonical(KEYS), b""):
        for guess in (
            hashlib.sha256(without_key).hexdigest(),
            hmac.new(b"", without_key, hashlib.sha256).hexdigest(),
        ):
            assert hashlib.sha256(canonical([MADE.code, MADE.lock, SHAPE, guess])).hexdigest()[:12] != one_id()
