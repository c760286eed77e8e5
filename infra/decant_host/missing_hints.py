"""Hints for what an app looks for and does not find: modules, shared libraries, programs, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decant_host.debian_names import PROGRAMS, library_package
from decant_host.python_changes import REMOVED_MODULES, distribution

Settings = Mapping[str, Any]
Row = tuple[str, str | Callable[[re.Match[str], Settings], str | None]]

_SEARCH = "https://packages.debian.org/search?suite=trixie&mode=filename&searchon=contents&keywords="
# Modules that many apps keep out of git, because they hold passwords.
_KEPT_OUT = {
    "config", "settings", "local_settings", "local_config", "settings_local", "config_local", "secret", "secret_key",
    "credentials", "creds", "keys", "api_keys", "apikeys", "private", "instance",
}  # fmt: skip
_WORKERS = {"geventwebsocket": "gevent-websocket", "uvicorn": "uvicorn-worker"}


def requirement(worker: str) -> str:
    """The package that brings a worker class of gunicorn."""
    return _WORKERS.get(worker, worker)


def add_to_aptfile(what: str, package: str) -> str:
    """The hint for something that a Debian package brings."""
    return f"{what} is not there. Add this line to Aptfile in the app folder: {package}"


def _library(match: re.Match[str], settings: Settings) -> str:
    name = next(group for group in match.groups() if group)
    package = library_package(name)
    if package:
        return add_to_aptfile(f"the shared library {name}", package)
    return (
        f"the shared library {name} is not there. Find its Debian package, and add that to Aptfile in the app folder:"
        f" {_SEARCH}{name}"
    )


def _program(match: re.Match[str], settings: Settings) -> str | None:
    name = next(group for group in match.groups() if group).rpartition("/")[2]
    package = PROGRAMS.get(name)
    if package:
        return add_to_aptfile(f"the program {name}", package)
    if name == "wkhtmltopdf":
        return "the program wkhtmltopdf is not there, and Debian 13 has no package of it. Use WeasyPrint or chromium"
    return None


def _file(match: re.Match[str], settings: Settings) -> str:
    name = re.sub(r"^/var/lib/decant/releases/[0-9a-f]{12}/app/", "", match[1])
    if name.startswith("/"):
        return f"the file {name} is not there. Put it into the app folder, or set the variable that names it"
    if "." not in name and "/" not in name:
        return (
            f"the program or file {name} is not there. A program: add its Debian package to Aptfile in the app folder."
            " A file: is it in .gitignore? What git ignores stays behind"
        )
    return (
        f"the file {name} is not in the app folder on the machine. Is it in .gitignore? What git ignores stays behind"
    )


def _module(too_new: Callable[[str, str, Settings], str]) -> Callable[[re.Match[str], Settings], str]:
    def hint(match: re.Match[str], settings: Settings) -> str:
        module = match[1]
        top, _, inner = module.partition(".")
        if module in REMOVED_MODULES:
            return too_new(f"the module {module}", REMOVED_MODULES[module], settings)
        if "is not a package" in match[0]:
            return f"{top}.py in the app folder hides the package {top}, so {module} is not found. Rename the file"
        app: Path | None = settings["app"]
        if top in _KEPT_OUT or (inner and app is not None and (app / top).is_dir()):
            path = module.replace(".", "/")
            return (
                f"the module {module} is not in the app folder on the machine. Is {path}.py in .gitignore? What git"
                f" ignores stays behind: track it (git add -f {path}.py) or read its values from the environment"
            )
        return (
            f"the module {module} is not there. Add {distribution(module)} to {settings['requirements']}"
            " (or the module to the app folder)"
        )

    return hint


def hints(too_new: Callable[[str, str, Settings], str]) -> tuple[Row, ...]:
    """The rows; `too_new` makes the sentence for a module that newer Pythons do not have."""
    return (
        (r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file", _library),
        (r"cannot load library '(?:lib)?([\w.+-]+)'|no library called \"([\w.+-]+)\" was found", _library),
        (r"failed to find (lib\w+)|[Uu]nable to find (\w+) shared library|Could not find lib (\w+)\.so", _library),
        (r"(libpq) library not found|\b(MagickWand) shared library not found|(sndfile) library not found", _library),
        (
            r"no pq wrapper available",
            "psycopg finds no libpq. Add this line to {requirements}: psycopg[binary]; or libpq5 to Aptfile",
        ),
        (
            r"PortAudio library not found",
            add_to_aptfile("the shared library libportaudio", "libportaudio2"),
        ),
        (r"Could not find the GDAL library|(?:find|load) GEOS library", add_to_aptfile("GDAL or GEOS", "gdal-bin")),
        (r"PDFInfoNotInstalledError|Is poppler installed", add_to_aptfile("poppler (pdftoppm)", "poppler-utils")),
        (r"TesseractNotFoundError|tesseract is not installed", add_to_aptfile("tesseract", "tesseract-ocr")),
        (r"Bad git executable|Git executable not found", add_to_aptfile("the program git", "git")),
        (r"[Nn]o pandoc was found|pandoc wasn't found", add_to_aptfile("pandoc", "pandoc")),
        (r"(?:No|no) (wkhtmltopdf) executable found", _program),
        (r"(?:[Cc]ouldn't|[Cc]ould not|cannot|[Uu]nable to) (?:find|locate) ['\"]?(\w[\w.+-]*)\b", _program),
        (r"failed to execute (?:PosixPath\()?\[?['\"]([\w.+-]+)", _program),
        (r"(?:sh: \d+: |bash: (?:line \d+: )?|env: .)([\w.+-]+).?: (?:command )?(?:not found|No such file)", _program),
        (r"No such file or directory: ['\"]([\w./+-]+)['\"]", _program),
        (r"No such file or directory: ['\"]([^'\"]+)['\"]", _file),
        (r"(?:TemplateNotFound|jinja2\.exceptions\.TemplateNotFound): (\S+)",
         "the template {0} is not in the app folder on the machine. Is it in .gitignore, or is its name written with"
         " other capitals?"),
        (r"No module named ['\"]?([\w.-]+)['\"]?(?:; ['\"][\w.]+['\"] is not a package)?", _module(too_new)),
    )  # fmt: skip
