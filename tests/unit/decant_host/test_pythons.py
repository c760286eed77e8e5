"""Pythons that are not Debian's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from decant_host import paths, pythons
from decant_host.errors import HostError
from tests.unit.decant_host.machine import Machine


class Uv:
    """`uv python install`, as far as files are concerned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Path, dict[str, str], str]] = []
        self.owners: dict[str, tuple[int, int]] = {}
        self.fails = self.leaves_nothing = False
        self.mark: Path | None = None
        monkeypatch.setattr(os, "chown", self._chown)
        monkeypatch.setattr(os, "sync", lambda: None)
        (paths.OPT / "uv-requirements.txt").write_text("uv==1\n")

    def _chown(self, path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        assert not follow_symlinks
        self.owners[str(path)] = (uid, gid)

    def __call__(self, folder: Path, variables: Mapping[str, str], version: str) -> None:
        assert self.owners[str(folder)] == (55, 56), "the builder writes there"
        self.calls.append((folder, dict(variables), version))
        if self.fails:
            raise HostError("no such mirror")
        if not self.leaves_nothing:
            made = folder / f"cpython-{version}.4-linux" / "bin" / f"python{version}"
            made.parent.mkdir(parents=True)
            made.touch()
            made.chmod(0o4777)
            (made.parent / "python").symlink_to(made.name)
            if self.mark:
                (folder / ".complete").symlink_to(self.mark)

    def prepare(self, **settings: str) -> Path:
        return pythons.prepare_python(settings, (55, 56), self)


@pytest.fixture
def uv(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Uv:
    return Uv(monkeypatch)


def test_a_release_that_asks_for_none_gets_debians(uv: Uv) -> None:
    assert uv.prepare() == pythons.SYSTEM
    assert pythons.prepare_python({"python": None}, (55, 56), uv) == pythons.SYSTEM
    assert uv.calls == []


def test_on_debian_12_a_release_that_asks_for_none_gets_the_python_of_debian_13(uv: Uv, debian_12: None) -> None:
    found = uv.prepare()
    assert found.name == "python3.13"
    assert uv.calls == [(pythons.python_folder("3.13"), uv.calls[0][1], "3.13")]
    assert uv.prepare(python="3.11") == pythons.SYSTEM, "Debian 12's own"
    assert len(uv.calls) == 1


def test_another_one_is_installed_once_and_belongs_to_root(uv: Uv) -> None:
    found = uv.prepare(python="3.11")
    (folder,) = pythons.PYTHONS.iterdir()
    assert folder.name.startswith("3.11-")
    assert found == folder / "cpython-3.11.4-linux" / "bin" / "python3.11"
    assert uv.calls == [(folder, {"UV_PYTHON_INSTALL_DIR": str(folder)}, "3.11")]
    assert {uv.owners[str(p)] for p in (folder, *folder.rglob("*")) if p.name != ".complete"} == {(0, 0)}
    assert found.stat().st_mode & 0o7777 == 0o755
    assert uv.prepare(python="3.11") == found
    assert len(uv.calls) == 1


def test_another_uv_may_know_a_newer_patch_release(uv: Uv) -> None:
    uv.prepare(python="3.11")
    (paths.OPT / "uv-requirements.txt").write_text("uv==2\n")
    uv.prepare(python="3.11")
    assert len(uv.calls) == len(list(pythons.PYTHONS.iterdir())) == 2


@pytest.mark.parametrize(
    ("mirror", "variables"),
    [
        ("https://x.org/pbs", {"UV_PYTHON_INSTALL_MIRROR": "https://x.org/pbs"}),
        ("https://x.org/list.json", {"UV_PYTHON_DOWNLOADS_JSON_URL": "https://x.org/list.json"}),
    ],
)
def test_a_mirror_is_of_releases_or_a_list(uv: Uv, mirror: str, variables: dict[str, str]) -> None:
    uv.prepare(python="3.11", python_mirror=mirror)
    ((_, given, _),) = uv.calls
    assert {name: value for name, value in given.items() if name != "UV_PYTHON_INSTALL_DIR"} == variables


def test_one_that_cannot_be_installed_leaves_nothing(uv: Uv) -> None:
    uv.fails = True
    with pytest.raises(HostError, match="no such mirror"):
        uv.prepare(python="3.11")
    assert list(pythons.PYTHONS.iterdir()) == []
    uv.fails, uv.leaves_nothing = False, True
    with pytest.raises(HostError, match=r"Python 3\.11 was installed, but its interpreter is not in "):
        uv.prepare(python="3.11")


def test_a_link_that_the_archive_brings_as_the_mark_is_not_followed(uv: Uv, tmp_path: Path) -> None:
    uv.mark = tmp_path / "nologin"
    found = uv.prepare(python="3.11")
    assert not uv.mark.exists()
    assert not (found.parents[2] / ".complete").is_symlink()


def test_an_unfinished_one_is_made_anew(uv: Uv) -> None:
    found = uv.prepare(python="3.11")
    (found.parents[2] / ".complete").unlink()
    assert uv.prepare(python="3.11") == found
    assert len(uv.calls) == 2


def test_pythons_that_no_environment_uses_are_removed(uv: Uv) -> None:
    used, unused = uv.prepare(python="3.11"), uv.prepare(python="3.12")
    venv = paths.VENVS / "0123" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(used)
    system = paths.VENVS / "4567" / "bin"
    system.mkdir(parents=True)
    (system / "python").symlink_to("/usr/bin/python3")
    pythons.prune_pythons()
    assert used.exists()
    assert not unused.parents[2].exists()
    (venv / "python").unlink()
    pythons.prune_pythons()
    assert list(pythons.PYTHONS.iterdir()) == []
