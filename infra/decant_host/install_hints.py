"""Hints for what uv says when an app's packages cannot be installed, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from decant_host.debian_names import BUILD_NEEDS

Settings = Mapping[str, Any]
Row = tuple[str, str | Callable[[re.Match[str], Settings], str | None]]

_DISK_FULL = "the disk is full. See what fills it: df -h; du -xh / | sort -h | tail"
OLDEST = 8
"""The oldest minor version of Python 3 that a machine can have."""
_REQUIREMENT = r"(\S+?)(?:\{[^}]*\})?"


def _python_bound(match: re.Match[str], settings: Settings) -> str | None:
    """For `X depends on Python<3.12`: the newest Python that fits, or the oldest."""
    text = match.string
    named = re.search(rf"{_REQUIREMENT} depends on Python(?:>=?[\d.]+,)?(?:>=?([\d.]+)|<(=?)([\d.]+))", text)
    if not named:
        return None
    package, at_least, equal, below = named.groups()
    if below:
        major, minor, *_ = [*map(int, below.split(".")), 0]
        wanted = f"{major}.{minor if equal or below.count('.') > 1 else minor - 1}"
    else:
        wanted = ".".join(at_least.split(".")[:2])
    return f"{package} does not run on Python {settings['python']}. Choose one that it runs on: {_choose(wanted)}"


def _choose(version: str) -> str:
    return f"pulumi config set decant:python {version}"


def _wheel_tags(match: re.Match[str], settings: Settings) -> str | None:
    """For a package that has wheels for other Pythons or systems alone."""
    name = match[1]
    only_windows = re.search(rf"`{re.escape(name)}`[^\n]*platforms?[^\n]*`win", match.string) and not re.search(
        rf"`{re.escape(name)}`[^\n]*`(?:many|musl)?linux", match.string
    )
    if only_windows:
        return (
            f"{name} is for Windows alone. Leave it out elsewhere, by this line in place of it:"
            f" {name} ; sys_platform == 'win32'"
        )
    pythons = [int(minor) for minor in re.findall(r"`cp3(\d+)m?`", match.string.partition("we only found")[2])]
    if pythons:
        return (
            f"{name} has no wheel for Python {settings['python']}. Choose a version of it that has one, or an older"
            f" Python: {_choose(f'3.{max(pythons)}')}"
        )
    return f"{name} has no wheel for the machine's system and Python. Choose a version of it that has one"


def _build_need(match: re.Match[str], settings: Settings) -> str | None:
    name = next(group for group in match.groups() if group)
    package = BUILD_NEEDS.get(name) or BUILD_NEEDS.get(name.rpartition("/")[2])
    if package is None:
        return None
    lines = " and ".join(package.split())
    return f"a package is built here, and its build needs {name}. Add this line to Aptfile in the app folder: {lines}"


def _conflict(match: re.Match[str], settings: Settings) -> str:
    needed = re.sub(r"\{[^}]*\}", "", match[2])
    return (
        f"two requirements contradict each other: {match[1]} needs {needed}, and {match[3]} is required too."
        f" Change one of the two in {settings['requirements']}"
    )


def _too_new(match: re.Match[str], settings: Settings) -> str:
    name = _built(match.string) or "a package"
    newest = 10 if "'Feature' from 'setuptools'" in match.string else 11
    return f"{name} is too old to be built with Python {settings['python']}. {_other_version(settings, newest)}"


def _not_built(match: re.Match[str], settings: Settings) -> str:
    name = _built(match.string) or "a package"
    return (
        f"{name} has no wheel for Python {settings['python']} and cannot be built here."
        f" {_other_version(settings, _minor(settings) - 1)}"
    )


def _built(text: str) -> str:
    """The package whose build failed: `greenlet 1.1.0`."""
    built = re.search(r"Failed to build `?([\w.-]+)(?:==([\w.]+))?", text)
    return f"{built[1]} {built[2] or ''}".strip() if built else ""


def _other_version(settings: Settings, newest: int) -> str:
    """What to choose in place of a package; `newest` is the last minor version of Python 3 that it may run on."""
    if newest >= _minor(settings) or newest < OLDEST:
        return "Choose a newer version of it"
    return f"Choose a newer version of it, or an older Python: {_choose(f'3.{newest}')}"


def _minor(settings: Settings) -> int:
    return int(str(settings["python"]).split(".")[1])


ROWS: tuple[Row, ...] = (
    (
        r"[Hh]ash mismatch|hash(es)? (is|are) missing|require-hashes|Hash-checking is required|no trusted hash",
        "requirements.txt does not match its hashes. Lock it again: .venv/bin/uv pip compile --generate-hashes",
    ),
    (r"No space left", _DISK_FULL),
    (
        r"No interpreter found for (?:Python )?(\d[\w.]*)",
        "there is no Python {0} on the machine. Choose another one: pulumi config set decant:python 3.13",
    ),
    # ---------------------------------------------------------------- lines that never belong into a freeze
    (
        r"Distribution not found at: (file:///\S*(?:croot|conda|miniconda|anaconda|feedstock|/work/)\S*)",
        "a requirement names a file of conda's on another computer: {0}. Put its name and version in place of it, such"
        " as certifi==2024.2.2, or let conda write them: pip list --format=freeze > requirements.txt",
    ),
    (
        r"Distribution not found at: (file://\S+)",
        "a requirement names a file of another computer: {0}. Put the package's name and version in place of it",
    ),
    (
        r"\b(pkg[-_]resources) was not found in the package registry",
        "the line pkg-resources==0.0.0 was written by Ubuntu's pip, and there is no such package. Remove that line from"
        " {requirements}",
    ),
    (
        r"The 'sklearn' PyPI package is deprecated",
        "there is no package sklearn. Write scikit-learn in place of it in {requirements}",
    ),
    (
        r"did not contain valid UTF-8|invalid utf-8|stream did not contain valid UTF",
        "a file of requirements is not text in UTF-8. Save it again: iconv -f UTF-16 -t UTF-8 requirements.txt",
    ),
    # ---------------------------------------------------------------- git and private indexes
    (
        r"Git executable not found",
        "a requirement needs git, which is not on this machine. Add a line `git` to the Aptfile of the app folder",
    ),
    (
        r"HTTP status client error \(40[13]|\b40[13] (?:Unauthorized|Forbidden)|Missing credentials"
        r"|[Aa]uthentication failed|could not read (?:Username|Password)|terminal prompts disabled"
        r"|Permission denied \(publickey\)|Host key verification failed|Repository not found",
        "the package index or repository wants a login. Write ${{TOKEN}} into its URL, and give it: pulumi config set"
        " --secret --path 'decant:secrets.TOKEN'",
    ),
    (
        r"dns error|error sending request|Connection refused|timed out|Failed to fetch|operation timed out"
        r"|Could not resolve host",
        "the package index cannot be reached from the machine",
    ),
    # ---------------------------------------------------------------- builds
    (
        r"(?:fatal error: |[Cc]annot find )['\"]?([\w./-]+\.h)\b|(pg_config) (?:executable )?(?:is required|not found)"
        r"|(mysql_config|gdal-config|geos-config|curl-config|krb5-config|mariadb_config)['\"]?(?: is|:|: command)? not"
        r" found|Can not find valid pkg-config name[^\n]*(mysqlclient)?"
        r"|(?:Package|Dependency|dependency) ['\"]?([\w.+-]+)['\"]?[^\n]*(?:was )?not found"
        r"|No such file or directory: ['\"](?:\S*/)?(cmake|swig|rustc|cargo|gfortran|pkg-config|make|nasm|gdal-config|"
        r"curl-config|pg_config|mysql_config)['\"]"
        r"|(cmake|swig|cargo|rustc|gfortran|nasm)(?:['\"`]?: (?:command )?not found|, is not installed)",
        _build_need,
    ),
    (
        r"Can not find valid pkg-config name",
        "mysqlclient is built here, and its build needs MariaDB's headers. Add these lines to Aptfile in the app"
        " folder: default-libmysqlclient-dev and pkg-config; or take PyMySQL in place of mysqlclient",
    ),
    (
        r"can't find Rust compiler|Rust toolchain|rustup\.rs|requires Rust",
        "a package is built here, and its build needs Rust. Choose a version of it that has a wheel, or add these lines"
        " to Aptfile in the app folder: rustc and cargo",
    ),
    (
        r"configured Python interpreter version \([\d.]+\) is newer than PyO3's maximum supported version \(([\d.]+)\)",
        "a package is too old for Python {python}. Choose a newer version of it, or an older Python:"
        " pulumi config set decant:python {0}",
    ),
    (
        r"'Feature' from 'setuptools'|"
        r"No module named ['\"](?:distutils|imp|pkg_resources)|'pkgutil' has no attribute|longintrepr\.h|use_2to3 is"
        r" invalid|_PyLong_AsByteArray|tp_print|_PyUnicode_|PyUnicode_AS_UNICODE|'_PyGen|ob_digit|"
        r"has no member named .(?:ob_digit|use_tracing|exc_type)|getargspec|SafeConfigParser|ast\.Str",
        _too_new,
    ),
    (
        r"[Uu]nknown compiler|Failed to build|command '\S*(cc|gcc|g\+\+|cargo|rustc)",
        _not_built,
    ),
    # ---------------------------------------------------------------- versions
    (r"current Python version|depends on Python[<>]|requires-python", _python_bound),
    (r"(\S+?)(?:==\S+)? (?:has no|only has) wheels with", _wheel_tags),
    (
        r"Because (\S+) was not found in the package registry",
        "the package index has no package {0}. Is its name right? For a private index, put --extra-index-url URL into"
        " {requirements}. It cannot be met on Python {python}",
    ),
    (
        r"there (?:is|are) no versions? of (\S+)",
        "there is no version {0}. Choose one that exists: it cannot be met on Python {python}",
    ),
    (
        r"Because (\S+) depends on ((?:[^\s{]|\{[^}]*\})+)(?:.|\n)*?\byou require ([\w.\[\]-]+(?:==|<|>|~=|!=)\S+?),?"
        r" we can conclude that your requirements are unsatisfiable",
        _conflict,
    ),
    (
        r"No solution found|not found in the package registry|no version",
        "the requirements cannot be met on Python {python}",
    ),
)
"""The first row that matches counts: uv names the reason first, and then what follows from it."""

WITH_LOGIN: tuple[Row, ...] = (
    (
        # uv asks the next index where one answers 401.
        r"Because (\S+) was not found in the package registry",
        "{0} is in none of the package indexes. Does the secret in the index's URL open it? To set it again:"
        " pulumi config set --secret --path 'decant:secrets.{variable}'",
    ),
)
"""Besides ROWS where a URL of the requirements has a variable."""

NO_PYTHON: tuple[Row, ...] = (
    (r"No space left", _DISK_FULL),
    (r"[Nn]o download found|not a valid|No download", "there is no Python {version} where decant:pythonMirror points"),
    (
        r"[Hh]ash mismatch",
        "the Python {version} that was downloaded is not the one that uv knows. Check decant:pythonMirror",
    ),
    (
        r"dns error|error sending request|[Cc]onnection refused|timed out|[Ff]ailed to (?:fetch|download)|HTTP status",
        "Python {version} cannot be downloaded from this machine. Set decant:pythonMirror to a mirror that it reaches,"
        " or use Debian's own: pulumi config set decant:python {own}",
    ),
)
"""What uv says when it cannot install a Python."""
