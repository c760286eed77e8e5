"""The Aptfile."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.aptfile import aptfile_notes, read_aptfile
from decant.errors import AppError
from tests.support.app_folders import write


def aptfile(tmp_path: Path, content: str | bytes) -> Path:
    return write(tmp_path / "app", {"Aptfile": content})


def test_an_app_without_an_aptfile_needs_no_package(tmp_path: Path) -> None:
    assert read_aptfile(tmp_path) == ()
    assert aptfile_notes(tmp_path) == ()


def test_each_line_names_a_package(tmp_path: Path) -> None:
    text = "# for images\nffmpeg\n\n  poppler-utils  # pdftotext\r\ng++\nlibfoo=1:2.3~rc1-4+b1\nffmpeg\nzip unzip\n"
    expected = ("ffmpeg", "poppler-utils", "g++", "libfoo=1:2.3~rc1-4+b1", "zip", "unzip")
    assert read_aptfile(aptfile(tmp_path, text)) == expected
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_aptfile(aptfile(tmp_path, text.encode(encoding))) == expected


def test_a_name_that_debian_13_lacks_stands_for_another_package(tmp_path: Path) -> None:
    app = aptfile(tmp_path, "ffmpeg\nlibgl1-mesa-glx\nlibasound2\n")
    assert read_aptfile(app) == ("ffmpeg", "libgl1", "libasound2t64")
    assert aptfile_notes(app) == (
        "Aptfile line 2: Debian 13 calls libgl1-mesa-glx libgl1, which is installed",
        "Aptfile line 3: Debian 13 calls libasound2 libasound2t64, which is installed",
    )


PACKAGES = "https://packages.debian.org/trixie/"


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        (":repo:deb http://example.com focal main", "this line adds another repository", PACKAGES),
        ("https://example.com/x.deb", "https://example.com/x.deb is a file", PACKAGES),
        ("./vendor/x.deb", "./vendor/x.deb is a file", PACKAGES),
        ("python3.11-dev", "Debian 13 has no python3.11-dev", "pulumi config set decant:python 3.11"),
        ("python3.9", "Debian 13 has no python3.9", "pulumi config set decant:python 3.9"),
        ("x; rm -rf /", "'x;' is no name", "one package on each line"),
        ("$(reboot)", "'$(reboot)' is no name", "one package on each line"),
        ("a`b`", "'a`b`' is no name", "one package on each line"),
        ("-o", "'-o' is no name", "one package on each line"),
        ("--allow-unauthenticated", "'--allow-unauthenticated' is no name", "one package on each line"),
        ("ffmpeg -y", "'-y' is no name", "one package on each line"),
        ("FFmpeg", "'FFmpeg' is no name", "one package on each line"),
        ("ffmpeg=", "'ffmpeg=' is no name", "one package on each line"),
        ("ffmpeg=$x", "'ffmpeg=$x' is no name", "one package on each line"),
        ("ffmpeg:i386", "'ffmpeg:i386' is no name", "one package on each line"),
        ("ffmpeg/sid", "'ffmpeg/sid' is no name", "one package on each line"),
        ("größe", "'größe' is no name", "one package on each line"),
        ("nginx-", "'nginx-' is no name", "one package on each line"),
        ("openssh-server=1-", "'openssh-server=1-' is no name", "one package on each line"),
        ("ffmpeg=7+", "'ffmpeg=7+' is no name", "one package on each line"),
        ("ffmpeg=7~", "'ffmpeg=7~' is no name", "one package on each line"),
        ("x", "'x' is no name", "one package on each line"),
    ],
)
def test_a_line_that_names_no_package_is_refused(tmp_path: Path, line: str, message: str, fix: str) -> None:
    app = aptfile(tmp_path, f"curl\n{line}\n")
    with pytest.raises(AppError) as caught:
        read_aptfile(app)
    ((said, remedy),) = caught.value.problems
    assert said.startswith("Aptfile line 2: ")
    assert message in said
    assert fix in remedy


def test_every_refused_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        read_aptfile(aptfile(tmp_path, "a;\nok\n:repo:x\n"))
    assert [message[:14] for message, _ in caught.value.problems] == ["Aptfile line 1", "Aptfile line 3"]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="has an Aptfile that is not UTF-8: line 1 has the byte 0xff"):
        read_aptfile(aptfile(tmp_path, b"ff\xff\n"))
