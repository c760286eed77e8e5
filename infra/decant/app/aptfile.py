"""The Aptfile of an app: the Debian packages that it needs, as Heroku and Dokku read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from decant.app.text_files import read_text
from decant.errors import AppError

NAME = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]"
"""A package's name: Debian Policy, section 5.6.1. No name ends with a dash: apt-get would remove what is before it."""

_VERSION = r"[0-9]([A-Za-z0-9.+:~-]*[A-Za-z0-9])?"
"""A package's version: Debian Policy, section 5.6.12. None ends with a sign: with a dash, apt-get would remove it."""

# What Ubuntu (Heroku's stacks) and older Debians call a package that Debian 13 has by another name. Packages that it
# `Provides` by the old name, such as libmagic1, need no row: apt knows them.
_RENAMED = {
    "libgl": "libgl1",
    "libgl1-mesa-glx": "libgl1",
    "libgl1-mesa-dev": "libgl-dev",
    "libffi6": "libffi8",
    "libffi7": "libffi8",
    "libssl1.0-dev": "libssl-dev",
    "libssl1.0.0": "libssl3t64",
    "libssl1.1": "libssl3t64",
    "libjpeg8": "libjpeg62-turbo",
    "libjpeg-turbo8": "libjpeg62-turbo",
    "libjpeg-turbo8-dev": "libjpeg62-turbo-dev",
    "libjpeg8-dev": "libjpeg62-turbo-dev",
    "libtiff5": "libtiff6",
    "libtiff5-dev": "libtiff-dev",
    "libwebp6": "libwebp7",
    "libicu66": "libicu76",
    "libicu70": "libicu76",
    "libicu72": "libicu76",
    "libicu74": "libicu76",
    "libldap-2.4-2": "libldap2",
    "libldap-2.5-0": "libldap2",
    "libldap2-dev": "libldap-dev",
    "libmysqlclient-dev": "default-libmysqlclient-dev",
    "libmysqlclient21": "libmariadb3",
    "mysql-client": "default-mysql-client",
    "libgdk-pixbuf2.0-0": "libgdk-pixbuf-2.0-0",
    "libasound2": "libasound2t64",
    "libcups2": "libcups2t64",
    "libglib2.0-0": "libglib2.0-0t64",
    "libgtk-3-0": "libgtk-3-0t64",
    "libatk1.0-0": "libatk1.0-0t64",
    "libatk-bridge2.0-0": "libatk-bridge2.0-0t64",
    "libatspi2.0-0": "libatspi2.0-0t64",
    "libgeos-c1v5": "libgeos-c1t64",
    "libcurl4": "libcurl4t64",
    "libmagic1": "libmagic1t64",
    "libpng16-16": "libpng16-16t64",
    "libncurses5": "libncurses6",
    "libreadline7": "libreadline8t64",
    "libreadline8": "libreadline8t64",
    "python": "python3",
    "python-dev": "python3-dev",
    "python-pip": "python3-pip",
    "python2": "python3",
    "python2.7": "python3",
    "python3.13": "python3",
    "python3.13-dev": "python3-dev",
    "chromium-browser": "chromium",
    "chromium-chromedriver": "chromium-driver",
    "p7zip": "7zip",
    "p7zip-full": "7zip",
    "netcat": "netcat-openbsd",
    "ttf-mscorefonts-installer": "fonts-liberation",
    "ttf-dejavu": "fonts-dejavu",
    "ttf-liberation": "fonts-liberation",
    "openjdk-8-jre-headless": "default-jre-headless",
    "openjdk-11-jre-headless": "default-jre-headless",
    "openjdk-17-jre-headless": "default-jre-headless",
}
_BUILD_TOOLS = re.compile(r"python3\.\d+(-dev|-venv|-distutils)?")


def read_aptfile(folder: Path) -> tuple[str, ...]:
    """The Debian packages that the folder's Aptfile names, by Debian 13's names; none where there is no such file.

    A package may be `name` or `name=version`.

    Raises:
        AppError: with every line that names no package.
    """
    return tuple(dict.fromkeys(package for _, _, package in _lines(folder)))


def aptfile_notes(folder: Path) -> tuple[str, ...]:
    """A sentence for each name that Debian 13 does not have, and that stands for another package."""
    return tuple(
        f"Aptfile line {number}: Debian 13 calls {given} {package}, which is installed"
        for number, given, package in _lines(folder)
        if given != package
    )


def _lines(folder: Path) -> list[tuple[int, str, str]]:
    """Line numbers, packages as the file names them, and packages by Debian 13's names."""
    path = folder / "Aptfile"
    if not path.is_file():
        return []
    try:
        text = read_text(path)
    except ValueError as error:
        raise AppError("app", (f"has an Aptfile that {error}", "save Aptfile as UTF-8")) from None
    found, problems = [], []
    for number, line in _split(text):
        for word in line.split():
            if reason := _refusal(word if len(line.split()) < 2 else line):
                problems.append((f"Aptfile line {number}: {reason[0]}", reason[1]))
                break
            found.append((number, word, _RENAMED.get(word, word)))
    if problems:
        raise AppError("app", *problems)
    return found


def _split(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, without comments, and their numbers."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        bare = re.sub(r"(^|\s)#.*$", "", line).strip()
        if bare:
            yield number, bare


def _refusal(line: str) -> tuple[str, str] | None:
    """Why a line names no package that machines can install, and what to do; None for a package."""
    if line.startswith(":repo:"):
        return (
            "machines install packages of Debian alone, and this line adds another repository",
            "remove the line, and take the package that Debian 13 has: https://packages.debian.org/trixie/",
        )
    if re.match(r"[a-z+]+://", line) or line.endswith(".deb"):
        return (
            f"machines install packages of Debian alone, and {line} is a file",
            "name the package of Debian 13 in place of it: https://packages.debian.org/trixie/",
        )
    for word in line.split():
        name, equals, version = word.partition("=")
        if _BUILD_TOOLS.fullmatch(name) and name not in _RENAMED:
            wanted = re.sub(r"^python(3\.\d+).*", r"\1", name)
            return (
                f"Debian 13 has no {name}",
                f"remove the line. The app's Python is chosen by: pulumi config set decant:python {wanted}",
            )
        if not re.fullmatch(NAME, name) or (equals and not re.fullmatch(_VERSION, version)):
            return (
                f"{word!r} is no name of a Debian package",
                "name one package on each line, such as ffmpeg or ffmpeg=7:7.1.1-1",
            )
    return None
