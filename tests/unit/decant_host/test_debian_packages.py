"""Debian packages that a release needs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import debian_packages, paths, stage
from decant_host.errors import HostError
from tests.unit.decant_host.machine import NEW, Machine


@dataclass
class Dpkg:
    """dpkg-query and decant-packages, in memory. `lacks` are names that apt has no package for."""

    installed: dict[str, str] = field(default_factory=dict)
    provides: dict[str, str] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    error: str = ""
    warning: str = ""

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if command[0] == "dpkg-query":
            rows = [f"ii \t{n}\t{v}\t{self.provides.get(n, '')}\n" for n, v in self.installed.items()]
            return subprocess.CompletedProcess(command, 0, "rc \tgone\t1.0\t\n" + "".join(rows), "")
        assert options["stdin"] == subprocess.DEVNULL
        if not self.error:
            self.installed |= {n.partition("=")[0]: n.partition("=")[2] or "1.0" for n in command[1:]}
        return subprocess.CompletedProcess(command, bool(self.error), "", self.error or self.warning)

    def wanted(self) -> list[list[str]]:
        """The arguments of each installation."""
        program = str(paths.OPT / "bin" / "decant-packages")
        return [call[1:] for call in self.calls if call[0] == program]


@pytest.fixture
def dpkg(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Dpkg:
    made = Dpkg(installed={"libc6": "2.41-12"})
    monkeypatch.setattr(debian_packages, "subprocess", SimpleNamespace(run=made.run, DEVNULL=subprocess.DEVNULL))
    return made


def add(machine: Machine, *packages: str, aptfile: str | bytes = "") -> Path:
    folder = machine.add(NEW, debian_packages=list(packages))
    if aptfile:
        (folder / "app" / "Aptfile").write_bytes(aptfile if isinstance(aptfile, bytes) else aptfile.encode())
    return folder


def test_missing_packages_are_installed_once_and_named(
    machine: Machine, dpkg: Dpkg, capsys: pytest.CaptureFixture[str]
) -> None:
    add(machine, "ffmpeg", "libc6", "gone")
    debian_packages.install_debian_packages(NEW)
    debian_packages.install_debian_packages(NEW)
    assert dpkg.wanted() == [["ffmpeg", "gone"]], "a package whose configuration alone is left is not installed"
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "installing Debian packages for the app: ffmpeg, gone\n")


def test_a_warning_of_apt_is_shown(machine: Machine, dpkg: Dpkg, capsys: pytest.CaptureFixture[str]) -> None:
    dpkg.warning = "web-1: warning: apt-get update failed: http://me:word1@mirror \x1b[31mx\n  Try it\n"
    add(machine, "ffmpeg")
    debian_packages.install_debian_packages(NEW)
    shown = "web-1: warning: apt-get update failed: http://[...]@mirror x\n  Try it\n"
    assert capsys.readouterr().err == f"installing Debian packages for the app: ffmpeg\n{shown}"


def test_a_release_without_packages_asks_nothing(machine: Machine, dpkg: Dpkg) -> None:
    machine.add(NEW)
    debian_packages.install_debian_packages(NEW)
    assert dpkg.calls == []


def test_a_package_that_another_one_provides_is_here(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.installed["libmagic1t64"] = "1:5.46-5"
    dpkg.provides["libmagic1t64"] = "libmagic1 (= 1:5.46-5), libmagic"
    add(machine, "libmagic1", "libmagic")
    debian_packages.install_debian_packages(NEW)
    assert dpkg.wanted() == []


def test_a_version_is_installed_unless_it_is_here(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.installed["ffmpeg"] = "7:7.1.1-1"
    add(machine, "ffmpeg=7:7.1.1-1", "zip=3.0-15")
    debian_packages.install_debian_packages(NEW)
    assert dpkg.wanted() == [["zip=3.0-15"]]
    dpkg.installed["ffmpeg"] = "7:7.1.2-1"
    debian_packages.install_debian_packages(NEW)
    assert dpkg.wanted()[1:] == [["ffmpeg=7:7.1.1-1"]]


@pytest.mark.parametrize(
    "name",
    [
        "-o",
        "nginx-",
        "a b",
        "x;y",
        "../x",
        "",
        "A",
        "x=",
        "x=$y",
        "x\n",
        "x^",
        "?x",
        "~nx",
        "sudo=1-",
        "sudo=1+",
        "sudo=1~",
    ],
)
def test_what_is_no_package_never_reaches_apt(machine: Machine, dpkg: Dpkg, name: str) -> None:
    add(machine, "zip", name)
    with pytest.raises(HostError, match="is no name of a Debian package"):
        debian_packages.install_debian_packages(NEW)
    assert dpkg.calls == []


FAILED = "web-1: installing {} failed: {}\n  Try on the machine: apt-get install {}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_unknown_package_is_named_with_its_line(machine: Machine, dpkg: Dpkg, encoding: str) -> None:
    add(machine, "zip", "libnope2", aptfile="# tools\r\nzip\r\nlibnope2\r\n".encode(encoding))
    dpkg.error = FAILED.format("zip libnope2", "E: Unable to locate package libnope2", "zip libnope2")
    with pytest.raises(HostError) as caught:
        debian_packages.install_debian_packages(NEW)
    assert str(caught.value) == (
        "Debian 13 has no package libnope2, which line 3 of Aptfile names. See what it is called there:"
        " https://packages.debian.org/search?suite=trixie&keywords=libnope2"
    )


@pytest.mark.parametrize(
    ("said", "packages", "expected"),
    [
        ("E: Package 'python2' has no installation candidate", ["python2"], "no package python2, which line 1 of Apt"),
        (
            "E: Version '9' for 'zip' was not found",
            ["zip=9"],
            "Debian 13 has no version 9 of zip, which line 1 of Aptfile names. Leave the version out: zip.",
        ),
        ("E: Unable to locate package gitt", ["gitt"], "Debian 13 has no package gitt, which the app needs."),
        ("Temporary failure resolving", ["zip"], "the Debian packages of Aptfile could not be installed.\nweb-1: inst"),
    ],
)
def test_other_errors_of_apt(machine: Machine, dpkg: Dpkg, said: str, packages: list[str], expected: str) -> None:
    add(machine, *packages, aptfile="python2 zip=9\n")
    dpkg.error = FAILED.format("x", said, "x")
    with pytest.raises(HostError) as caught:
        debian_packages.install_debian_packages(NEW)
    assert expected in str(caught.value)


def test_packages_are_installed_before_the_environment(
    machine: Machine, dpkg: Dpkg, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(machine, "git")

    def install(release: str) -> bool:
        assert "git" in dpkg.installed
        return True

    monkeypatch.setattr(stage, "install", install)
    assert stage.stage(NEW, {"tar": None})["installed"] is True
