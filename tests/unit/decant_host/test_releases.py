"""Releases on the disk."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import atomic, paths, releases, status
from decant_host.errors import HostError
from tests.unit.decant_host.machine import NEW, OLD, Machine

Owners = dict[str, tuple[int, int]]


@pytest.fixture
def owners(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Owners:
    """User and group by path, as the program sets them."""
    found: Owners = {}
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"decant": 77}[name]))
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: found.__setitem__(str(path), (uid, gid)))
    monkeypatch.setattr(os, "sync", lambda: None)
    return found


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname = mode, kind, target
    return info


def copied(data: bytes) -> dict[str, Any]:
    """The input of `stage` for a tar that was copied to the machine."""
    (paths.INCOMING / "app.tar").write_bytes(data)
    return {
        "tar": "../../etc/app.tar",
        "sha256": hashlib.sha256(data).hexdigest(),
        "environment": {"KEY": "canary"},
        "settings": {"entry": "wsgi:app"},
    }


def test_unpack_gives_the_files_their_owners_modes_and_times(owners: Owners) -> None:
    data = tar_of(
        (member("wsgi.py"), b"wsgi"),
        (member("bin/run", mode=0o4755), b"bin/"),
        (member("static/a.css", mode=0o666), b"stat"),
        (member("link", kind=tarfile.SYMTYPE, target="wsgi.py"), b""),
    )
    spec = copied(data)
    releases.unpack(NEW, spec)
    folder = paths.RELEASES / NEW
    modes = {
        p.name: p.stat().st_mode & 0o7777 for p in (folder / "app").rglob("*") if p.is_file() and not p.is_symlink()
    }
    assert modes == {"wsgi.py": 0o640, "run": 0o750, "a.css": 0o640}
    assert (folder / "environment.json").stat().st_mode & 0o777 == 0o600
    assert "canary" not in (folder / "release.json").read_text()
    assert json.loads((folder / "release.json").read_text())["tar"] == "app.tar"
    assert set(owners.values()) == {(0, 77)}, "root's, readable by the app's group"
    assert not any("environment" in path for path in owners)
    assert [p.name for p in paths.RELEASES.iterdir()] == [NEW]
    assert {p.name for p in folder.iterdir()} == {"app", "environment.json", "release.json"}
    times = {p.name: p.stat().st_mtime for p in (folder / "app").rglob("*.*")}
    assert times["wsgi.py"] != times["a.css"], "an ETag is made of time and size"
    before = (folder / "release.json").stat().st_mtime_ns
    (paths.INCOMING / "app.tar").unlink()
    releases.unpack(NEW, spec)
    assert (folder / "release.json").stat().st_mtime_ns == before, "what is there is not touched"
    with pytest.raises(HostError, match=r"app.tar is not here\. Copy it again: pulumi up --replace"):
        releases.unpack(OLD, spec)
    (paths.INCOMING / "app.tar").write_bytes(data[:-1])
    with pytest.raises(HostError, match="did not arrive whole"):
        releases.unpack(OLD, spec)
    assert not releases.is_complete(OLD)


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("folder", kind=tarfile.SYMTYPE, target="../../.."),
        member("passwd", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        member("shadow", kind=tarfile.LNKTYPE, target="../../../../etc/shadow"),
        member("disk", kind=tarfile.BLKTYPE),
    ],
    ids=["outside", "link outside", "absolute link", "hard link outside", "device"],
)
def test_unpack_refuses_a_tar_that_leaves_its_folder(owners: Owners, evil: tarfile.TarInfo) -> None:
    spec = copied(tar_of((member("wsgi.py"), b"wsgi"), (evil, b"")))
    with pytest.raises(HostError, match="the app's tar is refused: "):
        releases.unpack(NEW, spec)
    assert not releases.is_complete(NEW)
    assert not (paths.RELEASES / "evil").exists()


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (member("/etc/x"), "leads out of the folder"),
        (member("../evil"), "leads out of the folder"),
        (member("here/../../evil"), "leads out of the folder"),
        (member("link/evil"), "leads out of the folder"),
        (member("a/up", kind=tarfile.SYMTYPE, target="../../x"), "is a link to ../../x, outside of the folder"),
        (member("passwd", kind=tarfile.SYMTYPE, target="/etc/passwd"), "is a link to /etc/passwd, outside"),
        (member("shadow", kind=tarfile.LNKTYPE, target="wsgi.py"), "is no file, folder or link"),
        (member("disk", kind=tarfile.BLKTYPE), "is no file, folder or link"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_debian_12_refuses_the_same_tars(
    owners: Owners, monkeypatch: pytest.MonkeyPatch, evil: tarfile.TarInfo, reason: str
) -> None:
    """Its Python has no filter for tars."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    link = member("link", kind=tarfile.SYMTYPE, target="static")
    with pytest.raises(HostError, match=f"the app's tar is refused: '{re.escape(evil.name)}' {reason}"):
        releases.unpack(NEW, copied(tar_of((member("wsgi.py"), b""), (link, b""), (evil, b""))))
    assert not releases.is_complete(NEW)
    assert not (paths.RELEASES / f".{NEW}" / "app").exists()


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        ([member("s/up", kind=tarfile.SYMTYPE, target=".."),
          member("esc", kind=tarfile.SYMTYPE, target="s/up/../evil"), member("esc")],
         "'esc' is a link to s/up/../evil, through another link"),
        ([member("esc", kind=tarfile.SYMTYPE, target="./s//up/x"),
          member("s/up", kind=tarfile.SYMTYPE, target="..")],
         "'esc' is a link to ./s//up/x, through another link"),
        ([member("s/up", kind=tarfile.SYMTYPE, target="."), member("s/to", kind=tarfile.SYMTYPE, target="up/..")],
         "'s/to' is a link to up/.., through another link"),
        ([member("esc", kind=tarfile.SYMTYPE, target="wsgi.py"), member("./esc")], "'./esc' is there twice"),
        ([member("a//b"), member("a/./b", kind=tarfile.SYMTYPE, target="../wsgi.py")], "'a/./b' is there twice"),
    ],
    ids=["review", "later", "up", "file over link", "link over file"],
)  # fmt: skip
def test_debian_12_writes_nothing_through_a_link(
    owners: Owners, monkeypatch: pytest.MonkeyPatch, evil: list[tarfile.TarInfo], reason: str
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(releases, "run", lambda *argv, check: None)
    with pytest.raises(HostError, match=f"the app's tar is refused: {re.escape(reason)}"):
        releases.unpack(NEW, copied(tar_of((member("wsgi.py"), b""), *((info, b"") for info in evil))))
    assert [p.name for p in paths.RELEASES.iterdir()] == [f".{NEW}"]
    assert [p.name for p in (paths.RELEASES / f".{NEW}").iterdir()] == ["app.tar"]


def test_debian_12_unpacks_files_and_links(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(releases, "run", lambda *argv, check: None)
    up = member("a/up", kind=tarfile.SYMTYPE, target="../wsgi.py")
    again = member("again", kind=tarfile.SYMTYPE, target="a/up")
    files = (member("wsgi.py", mode=0o4755), b"x"), (member("a/b"), b""), (up, b""), (again, b"")
    releases.unpack(NEW, copied(tar_of(*files)))
    app = paths.RELEASES / NEW / "app"
    assert (app / "a" / "up").read_bytes() == (app / "again").read_bytes() == b"x"
    assert (app / "wsgi.py").stat().st_mode & 0o7777 == 0o750


def test_compiled_files_belong_to_root_and_the_app_can_only_read_them(
    owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "run", lambda *argv, check: subprocess.run(argv, check=True))
    releases.unpack(NEW, copied(tar_of((member("wsgi.py"), b"x = 1"))))
    folder = paths.RELEASES / NEW / "app" / "__pycache__"
    (compiled,) = folder.iterdir()
    assert [p.stat().st_mode & 0o7777 for p in (folder, compiled)] == [0o750, 0o640]
    assert compiled.read_bytes()[4:8] == bytes([1, 0, 0, 0]), "unchecked by hash (PEP 552)"
    at = str(paths.RELEASES / f".{NEW}" / "app" / "__pycache__")
    assert owners[at] == owners[f"{at}/{compiled.name}"] == (0, 77)


def test_a_large_release_is_unpacked_in_little_memory(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "run", lambda *argv, check: None)
    spec = copied(tar_of((member("wsgi.py"), b""), (member("film.mp4"), bytes(40 << 20))))
    tracemalloc.start()
    try:
        releases.unpack(NEW, spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    film = paths.RELEASES / NEW / "app" / "film.mp4"
    assert film.stat().st_size == 40 << 20
    assert film.stat().st_mtime == 1_000_000_000 + zlib.crc32(bytes(40 << 20)) % 600_000_000
    assert peak < 10 << 20
    assert not (paths.RELEASES / NEW / "app.tar").exists()


# The clock of the machine may have been set back since another release was staged or confirmed.
def test_the_order_of_releases_does_not_depend_on_the_clock(
    owners: Owners, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:012x}" for i in range(4)]
    machine.add(names[0], confirmed=True, age=-5000)
    os.utime(paths.RELEASES / names[0] / "confirmed", (1_005_000, 1_005_000))
    clock = SimpleNamespace(now=1_000_000.0)
    monkeypatch.setattr(releases, "time", SimpleNamespace(time=lambda: clock.now))
    for name in names[1:]:
        releases.unpack(name, copied(tar_of((member("wsgi.py"), b"wsgi"))))
        releases.prepare_confirm(name)
        releases.persist(name)
        clock.now -= 1000
    newest_first = names[::-1]
    assert releases.complete_releases() == releases.confirmed_releases() == newest_first
    releases.prepare_confirm(names[1])
    releases.persist(names[1])
    assert releases.confirmed_releases() == [names[1], *[n for n in newest_first if n != names[1]]]
    assert releases.complete_releases() == newest_first
    (paths.RELEASES / names[3] / "release.json").unlink()
    assert names[3] not in releases.confirmed_releases(), "it was pruned in part"


def test_prune_keeps_a_release_in_which_a_one_off_command_runs(machine: Machine) -> None:
    names = [f"{i:012x}" for i in range(8)]  # the first is the newest
    for age, name in enumerate(names):
        machine.add(name, age=age)
    paths.RUNS.mkdir()
    (paths.RUNS / f"decant-run-{names[7]}-0a1b2c3d.json").touch()
    releases.prune()
    assert releases.complete_releases() == [*names[:5], names[7]]


def test_prune_keeps_the_last_five_and_the_ones_in_use(machine: Machine) -> None:
    names = [f"{i:012x}" for i in range(9)]  # the first is the newest
    for age, name in enumerate(names):
        machine.add(name, age=age)
    machine.serve(names[8], persisted=False)
    atomic.link(paths.PERSISTED, f"releases/{names[7]}")
    atomic.link(paths.PREVIOUS, names[6])
    (paths.VENVS / "of-no-release").mkdir()
    (paths.INCOMING / "of-no-release.tar").touch()
    two_hours_ago = time.time() - 7201
    os.utime(paths.INCOMING / "of-no-release.tar", (two_hours_ago, two_hours_ago))
    (paths.INCOMING / "about-to-be-staged.tar").touch()
    (paths.INCOMING / "half.tar.part").touch()
    (paths.RUN / names[5]).mkdir()
    unused = paths.OPT / "pythons" / "3.11-01234567"
    unused.mkdir(parents=True)
    assert releases.complete_releases() == names
    releases.prune()
    left = [*names[:5], *names[6:]]
    assert releases.complete_releases() == left
    assert {p.name for p in paths.VENVS.iterdir()} == {f"venv-of-{n}" for n in left}
    assert {p.name for p in paths.INCOMING.iterdir()} == {
        *(f"{n}.tar" for n in left), "half.tar.part", "about-to-be-staged.tar",
    }  # fmt: skip
    assert not (paths.RUN / names[5]).exists()
    assert not unused.exists()
    releases.prune()
    assert releases.complete_releases() == left


def test_an_unfinished_release_is_not_listed(machine: Machine) -> None:
    (paths.RELEASES / f".{NEW}").mkdir()
    (paths.RELEASES / OLD).mkdir()
    assert releases.complete_releases() == []
    assert status.status()["releases"] == []


@pytest.mark.parametrize(
    ("free", "inodes", "size", "fits"),
    [(200, 9999, 10, True), (93, 9999, 10, False), (94, 9999, 10, True), (500, 1999, 10, False), (500, 0, 10, False)],
)
def test_check_space_refuses_a_tar_that_does_not_fit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, size: int, fits: bool
) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=1 << 20, f_files=10_000, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    with contextlib.nullcontext() if fits else pytest.raises(HostError, match="the disk is full"):
        assert releases.check_space(size << 20) == {"fits": True}


@pytest.mark.parametrize("full", ["incoming", "releases", "venvs"])
def test_space_is_needed_for_the_tar_the_release_and_its_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """Each of the folders may be a file system of its own."""

    def disk(path: Path) -> SimpleNamespace:
        free = 0 if path.name == full else 999
        return SimpleNamespace(f_bavail=free, f_frsize=1 << 20, f_files=10_000, f_favail=9999)

    monkeypatch.setattr(os, "statvfs", disk)
    with pytest.raises(HostError, match=f"are free at .*/{full}, 67 MB are needed"):
        releases.check_space(1 << 20)


def test_a_file_system_that_counts_no_files_has_space(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=999, f_frsize=1 << 20, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert releases.check_space(1) == {"fits": True}


def test_root_follows_no_link_to_compiled_files(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that a release brings nor one to what the app writes."""
    monkeypatch.setattr(releases, "run", lambda *argv, check: None)
    order = list[str]()
    compiled = releases._compile_code

    def compile_code(app: Path, group: int) -> None:
        order.append("compile")
        compiled(app, group)

    monkeypatch.setattr(releases, "_compile_code", compile_code)
    monkeypatch.setattr(releases, "link_app_data", lambda *a: order.append("link"))
    data = tar_of(
        (member("a/wsgi.py", mode=0o755), b"x = 1"),
        (member("b/__pycache__", kind=tarfile.SYMTYPE, target="../a"), b""),
        (member("c/__pycache__/x.pyc", kind=tarfile.SYMTYPE, target="../../a/wsgi.py"), b""),
        (member("d/__pycache__"), b"a file"),
    )
    releases.unpack(NEW, copied(data))
    assert order == ["compile", "link"]
    assert (paths.RELEASES / NEW / "app/a/wsgi.py").stat().st_mode & 0o7777 == 0o750
    at = str(paths.RELEASES / f".{NEW}" / "app")
    assert f"{at}/b/__pycache__/wsgi.py" not in owners
