"""What the app writes into its own folder."""

from __future__ import annotations

import errno
import os
import pwd
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import app_data, paths
from decant_host.errors import HostError
from tests.unit.decant_host.machine import Machine


@pytest.fixture
def owners(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """User and group by path, as the program sets them; what is done as the app is done by the test."""
    found: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {"decant": SimpleNamespace(pw_uid=66, pw_gid=77)}[name])
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: found.__setitem__(str(path), (uid, gid)))
    monkeypatch.setattr(app_data, "_as_app", lambda action: action())
    return found


@pytest.fixture
def app(machine: Machine) -> Path:
    folder = machine.root / "unpacked" / "app"
    folder.mkdir(parents=True)
    return folder


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def link(app: Path, *names: str, static: str | None = "static") -> None:
    app_data.link_app_data(app, {"persistent": list(names), "static": static})


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_persistent_path_is_a_link_to_a_folder_of_the_apps(app: Path, owners: dict[str, tuple[int, int]]) -> None:
    link(app, "instance", "var/cache")
    for name, folder in (("instance", "instance"), ("var/cache", "var+cache")):
        assert (app / name).readlink() == paths.APP_DATA / folder
        assert owners[str(paths.APP_DATA / folder)] == (66, 77)
        assert owners[str(app / name)] == (66, 77), "as what it leads to: nginx compares them"
        assert mode(paths.APP_DATA / folder) == 0o700
    assert owners[str(paths.APP_DATA)] == owners[str(app / "var")] == (0, 77), "the app cannot replace its folders"
    assert (mode(paths.APP_DATA), mode(app / "var")) == (0o710, 0o750)
    assert sorted(path.name for path in paths.APP_DATA.iterdir()) == ["+var", "instance", "var+cache"]


def test_nginx_may_read_what_is_in_the_static_folder_and_nothing_else(app: Path, owners: object) -> None:
    link(app, "static/up", "shop/static/up", "statics")
    assert {p.name: mode(p) for p in paths.APP_DATA.iterdir()} == {
        "static+up": 0o750, "shop+static+up": 0o700, "statics": 0o700, "+var": 0o700,
    }  # fmt: skip
    (app / "static/up").unlink()
    link(app, "static/up", static=None)
    assert mode(paths.APP_DATA / "static+up") == 0o700


def test_what_a_release_brings_is_the_first_content_and_replaces_nothing(app: Path, owners: object) -> None:
    fill(app, up__logo_dot_png="one", up__deep__a="one", up__run="one")
    (app / "up" / "run").chmod(0o755)
    (app / "up" / "loop").symlink_to(".")
    link(app, "up")
    kept = paths.APP_DATA / "up"
    assert {str(p.relative_to(kept)): p.read_text() for p in kept.rglob("*") if p.is_file()} == {
        "logo.png": "one", "deep/a": "one", "run": "one",
    }  # fmt: skip
    assert (mode(kept / "logo.png"), mode(kept / "run"), mode(kept / "deep")) == (0o640, 0o750, 0o750)
    (kept / "logo.png").write_text("changed by the app")
    (kept / "deep" / "a").unlink()
    (kept / "deep" / "a").symlink_to("nowhere")
    (app / "up").unlink()
    fill(app, up__logo_dot_png="two", up__deep__a="two", up__deep__b="two")
    link(app, "up")
    assert (kept / "logo.png").read_text() == "changed by the app"
    assert (kept / "deep" / "a").is_symlink()
    assert (kept / "deep" / "b").read_text() == "two"
    assert not [path for path in kept.rglob("*") if path.name.endswith(".decant")]


def test_a_file_is_a_link_to_a_file_beside_which_the_app_may_write(app: Path, owners: dict[str, Any]) -> None:
    fill(app, counter="7")
    link(app, "counter", "shop/site.db", "v1.2")
    assert (app / "counter").readlink() == paths.APP_DATA / "counter" / "counter"
    assert (app / "counter").read_text() == "7"
    assert (app / "shop/site.db").readlink() == paths.APP_DATA / "shop+site.db" / "site.db"
    (app / "shop/site.db").write_text("made by the app")
    assert (paths.APP_DATA / "shop+site.db" / "site.db").read_text() == "made by the app"
    assert owners[str(paths.APP_DATA / "shop+site.db")] == (66, 77), "SQLite puts its journal there"
    assert (app / "v1.2").readlink() == paths.APP_DATA / "v1.2"


def test_a_link_that_the_release_brings_is_replaced_and_not_what_it_leads_to(app: Path, owners: object) -> None:
    fill(app, data__a="a")
    (app / "up").symlink_to("data")
    link(app, "up")
    assert (app / "up").readlink() == paths.APP_DATA / "up"
    assert (app / "data" / "a").read_text() == (paths.APP_DATA / "up" / "a").read_text() == "a"


def test_a_release_made_before_there_were_such_paths_stays_as_it_is(app: Path, owners: object) -> None:
    app_data.link_app_data(app, {"static": "static"})
    assert list(app.iterdir()) == []
    assert not paths.APP_DATA.exists()


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../../b", "", ".", "a//b", "a b", "x\n"])
def test_a_path_that_leads_elsewhere_is_refused(app: Path, owners: object, name: str) -> None:
    with pytest.raises(HostError, match="is no path in the app"):
        link(app, name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_first_content_is_copied_as_the_apps_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=65534, pw_gid=65534))
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o711)
    app_data._as_app(lambda: (tmp_path / "made").touch())
    assert (tmp_path / "made").stat().st_uid == 65534
    assert mode(tmp_path / "made") == 0o640


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (OSError(errno.EACCES, "no"), HostError, "where the app writes: Permission denied"),
        (OSError(errno.ENOSPC, "no"), OSError, "No space left on device"),
        (ValueError("no"), HostError, "where the app writes: status 255"),
    ],
)
def test_an_error_in_the_copy_is_an_error_of_the_stage(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], text: str
) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid()))
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda _: None)

    def action() -> None:
        raise error

    with pytest.raises(raised, match=text):
        app_data._as_app(action)


def test_a_path_behind_a_link_is_refused_and_nothing_there_is_touched(app: Path, owners: object) -> None:
    elsewhere = app.parent / "elsewhere"
    fill(elsewhere, up__a="a")
    (app / "shop").symlink_to(elsewhere)
    for name in ("shop/up", "shop/up/deep"):
        with pytest.raises(HostError, match=f"{name} cannot be the app's to write: shop is a link"):
            link(app, name)
    assert [path.name for path in elsewhere.rglob("*")] == ["up", "a"]
    assert not (elsewhere / "up").is_symlink()


def test_a_copy_that_the_app_stops_is_killed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid()))
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda _: None)
    monkeypatch.setattr(app_data, "LONGEST", 0.2)
    children = list[int]()
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])  # type: ignore[func-returns-value]
    with pytest.raises(HostError, match=r"where the app writes, within 0\.2 s"):
        app_data._as_app(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_compiled_code_is_no_content_of_a_persistent_path(app: Path, owners: object) -> None:
    fill(app, up__a_dot_py="x = 1")
    (app / "up" / "__pycache__").mkdir()
    (app / "up" / "__pycache__" / "a.pyc").write_text("")
    link(app, "up")
    assert sorted(path.name for path in (paths.APP_DATA / "up").rglob("*")) == ["a.py"]


def test_a_link_of_the_release_that_leads_through_a_persistent_path_is_the_apps(
    app: Path, owners: dict[str, tuple[int, int]]
) -> None:
    """nginx follows a link to files of its own owner's alone, and the app decides what is behind such a path."""
    fill(app, static__logo_dot_png="logo", static__up__y="y", shop__a="a")
    given = {
        "static/x": "up/y", "static/d": "./up", "static/chain": "x", "static/back": "up/../key", "static/none": "up/no",
        "static/file": "../site.db", "shop/far": "../static/deep/y", "static/deep": "../shop/../static/up",
        "static/loop": "loop", "static/out": "../../app/static/logo.png",
    }  # fmt: skip
    roots = {"static/plain": "logo.png", "static/near": "../shop/a", "static/upper": "uppermost", "static/top": ".."}
    for name, target in {**given, **roots}.items():
        (app / name).symlink_to(target)
    link(app, "static/up", "site.db")
    links = {str(path.relative_to(app)) for path in app.rglob("*") if path.is_symlink()}
    assert links == {*given, *roots, "static/up", "site.db"}
    assert {name for name in links if owners.get(str(app / name)) == (66, 77)} == {*given, "static/up", "site.db"}
    assert not any(str(app / name) in owners for name in roots)
