"""The archive of an app: the same bytes everywhere, links, size, and the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant.app import archive
from decant.errors import AppError
from tests.support.app_folders import PLAIN, TREE, committed, contents, git, members, packed, use_plain_git, write


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


# ------------------------------------------------------------------------------------------------ the same bytes


def test_each_file_of_the_folder_has_a_digest_of_its_mode_and_content(tmp_path: Path) -> None:
    files = {**PLAIN, "b.py": "1\n", "c.py": "1\n", "uv.lock": "version = 1\n"}
    app = write(tmp_path / "app", files)
    first = packed(app).digests
    assert sorted(first) == sorted(files)
    assert {len(digest) for digest in first.values()} == {16}
    assert len(set(first.values())) == len(files), "the name is a part of it"
    (app / "b.py").write_text("2\n")
    (app / "c.py").chmod(0o755)
    second = packed(app).digests
    assert {name for name in files if first[name] != second[name]} == {"b.py", "c.py"}


def test_a_file_that_is_made_from_others_has_no_digest(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"wsgi.py": "", "requirements.txt": "-e .\n", "setup.py": ""})
    made = packed(app)
    assert "decant-requirements.txt" in members(made)
    assert sorted(made.digests) == ["requirements.txt", "setup.py", "wsgi.py"]


def test_a_known_folder_gives_known_bytes(tmp_path: Path) -> None:
    """Recorded once: other bytes, made by another computer or Python, would be a release without a change."""
    app = write(tmp_path / "app", {**PLAIN, "static/a.css": "a{}\n"})
    made = packed(app)
    assert made.sha256 == "8a2399903ea7b4b86d5ac6bd89e6f52fd2881ece950a33d385be610c0908c56e"
    assert made.code_hash == "2e568ea4b297dfbfea4f7466153fcf9f4b6b5732cfb6de41dd90f0b1cf29d9b3"


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
            path.chmod([0o600, 0o640, 0o666, 0o655][number % 4])
    two = packed(other)
    assert one == two
    assert one.files == len(TREE)


def test_another_checkout_and_a_folder_without_git_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(tmp_path / "first", TREE)
    git(tmp_path, "clone", "-q", str(first), "second")
    (first / "app.log").touch()
    (first / "app.log").unlink()
    made = packed(first)
    assert packed(tmp_path / "second") == made
    shutil.rmtree(tmp_path / "second" / ".git")
    assert packed(tmp_path / "second") == made
    monkeypatch.setenv("PATH", str(tmp_path))  # no git program either
    assert packed(tmp_path / "second") == made


def test_the_app_folder_may_be_a_part_of_a_repository(tmp_path: Path) -> None:
    whole = committed(tmp_path / "whole", {"README": "", **{f"app/{k}": v for k, v in TREE.items()}})
    assert packed(whole / "app") == packed(write(tmp_path / "alone", TREE))


def test_the_app_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    app = write(tmp_path / "app", TREE)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "current"
    link.symlink_to(app)
    assert packed(link) == packed(app)


def test_the_tar_holds_nothing_of_this_computer(tmp_path: Path) -> None:
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
def test_a_change_of_content_name_or_mode_changes_the_hash(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    app = write(tmp_path / "app", TREE)
    before = packed(app)
    change(app)
    after = packed(app)
    assert before.code_hash != after.code_hash
    assert before.sha256 != after.sha256


def test_the_target_of_a_link_changes_the_hash(tmp_path: Path) -> None:
    app = write(tmp_path / "app", TREE)
    made = []
    for target in ("wsgi.py", "zz.sh"):
        (app / "link").unlink(missing_ok=True)
        (app / "link").symlink_to(target)
        made.append(packed(app))
    assert made[0].code_hash != made[1].code_hash


def test_no_two_trees_have_the_same_hash(tmp_path: Path) -> None:
    trees: list[dict[str, str | bytes]] = [
        {"a": "bc", "b": ""}, {"a": "b", "b": "c"}, {"a": "", "b": "bc"}, {"ab": "", "c": "bc"}, {'a", "b': "bc"},
    ]  # fmt: skip
    codes = {packed(write(tmp_path / str(i), {**PLAIN, **tree})).code_hash for i, tree in enumerate(trees)}
    assert len(codes) == len(trees)


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
    monkeypatch.setattr(archive, "LARGEST", 1 << 18)
    with pytest.raises(AppError, match="is over 0 MB") as caught:
        packed(app)
    assert ".gitignore" in caught.value.problems[0][1]
    monkeypatch.setattr(archive, "LARGEST", 1 << 19)
    packed(app)


def test_the_cache_keeps_the_newest_tars_under_names_of_their_content(tmp_path: Path) -> None:
    app, cache = write(tmp_path / "app", PLAIN), tmp_path / "packed"
    names = []
    for number in range(13):
        write(app, {"wsgi.py": f"app = {number}\n"})
        made = packed(app)
        os.utime(made.path, (number, number))
        assert made.path == cache / f"app-{made.code_hash[:12]}.tar"
        content = made.path.read_bytes()
        assert (made.sha256, made.size) == (hashlib.sha256(content).hexdigest(), len(content))
        names.append(made.path.name)
    left = sorted(p.name for p in cache.iterdir())
    assert left == sorted(names[-10:]), "other files, such as half-written ones, would be left over"


def test_a_tar_is_written_again_only_where_it_differs(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    path = packed(app).path
    content = path.read_bytes()
    os.utime(path, (5, 5))
    assert packed(app).path.stat().st_mtime == 5
    path.write_bytes(b"cut short")
    assert packed(app).path.read_bytes() == content


def test_the_tar_that_is_asked_for_stays_although_it_is_the_oldest(tmp_path: Path) -> None:
    """As after a change that was undone."""
    app = write(tmp_path / "app", PLAIN)
    made = packed(app)
    os.utime(made.path, (5, 5))
    for number in range(10):
        (made.path.parent / f"app-{number:012}.tar").touch()
    assert packed(app).path == made.path
    assert made.path.exists()


def test_files_for_machines_are_written_into_the_cache(tmp_path: Path) -> None:
    path = archive.cache_file(tmp_path / "cache", "files-1.tar", b"one")
    os.utime(path, (5, 5))
    assert archive.cache_file(tmp_path / "cache", "files-1.tar", b"one").stat().st_mtime == 5
    assert archive.cache_file(tmp_path / "cache", "files-1.tar", b"another").read_bytes() == b"another"


def test_what_is_refused_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    (app / "out").symlink_to("/etc/hostname")
    with pytest.raises(AppError, match="leads out"):
        packed(app)
    assert list((tmp_path / "packed").iterdir()) == []


def test_what_killed_runs_left_in_the_cache_goes_after_a_day(tmp_path: Path) -> None:
    app, cache = write(tmp_path / "app", PLAIN), tmp_path / "packed"
    cache.mkdir()
    for name, hours in (("app.17", 25), ("app.18", 23), ("files.19", 25)):
        (cache / name).touch()
        at = time.time() - hours * 3600
        os.utime(cache / name, (at, at))
    made = packed(app)
    assert sorted(p.name for p in cache.iterdir()) == sorted([made.path.name, "app.18", "files.19"])


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "app", {**PLAIN, "log.txt": "x" * 1000})
    facts = os.fstat

    def longer(descriptor: int) -> Any:
        seen = facts(descriptor)
        return SimpleNamespace(st_size=seen.st_size + (seen.st_size == 1000), st_mode=seen.st_mode)

    monkeypatch.setattr(os, "fstat", longer)
    with pytest.raises(AppError, match=r"has a file log.txt that became shorter while it was read"):
        packed(app)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    (tmp_path / "packed").touch()
    with pytest.raises(AppError, match=rf"cannot be packed into {tmp_path}/packed \(File exists\)"):
        packed(app)


def test_a_large_app_is_packed_in_little_memory(tmp_path: Path) -> None:
    """Two files of 30 MB each, of which neither is held in memory as a whole."""
    app = write(tmp_path / "app", PLAIN)
    for name in ("one", "two"):
        with (app / name).open("wb") as file:
            file.truncate(30 << 20)
    tracemalloc.start()
    try:
        made = packed(app)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.size > 60 << 20
    assert peak < 10 << 20
