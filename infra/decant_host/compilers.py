"""Compilers and headers for packages without a wheel: they are installed when a build misses them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from decant_host import debian
from decant_host.debian_names import BUILD_NEEDS
from decant_host.debian_packages import install_missing
from decant_host.errors import HostError

BASE = ("build-essential", "pkg-config")
ROUNDS = 5
"""An installation is repeated at most this often: uv names one failing package at a time."""

LINES, LONGEST_LINE = 4000, 1000
"""How much of uv's output is searched: a build prints what it likes, and as much."""

_RUST = ("rustc", "cargo")
_XML = ("libxml2-dev", "libxslt1-dev")
_IMAGES = ("libjpeg-dev", "zlib1g-dev", "libfreetype-dev", "libtiff-dev", "libwebp-dev", "libopenjp2-7-dev")

_OF_PACKAGE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "argon2-cffi-bindings": ("libffi-dev",),
        "bcrypt": _RUST,
        "cffi": ("libffi-dev",),
        "cryptography": ("libssl-dev", "libffi-dev", *_RUST),
        "dbus-python": ("libdbus-1-dev", "libglib2.0-dev"),
        "gdal": ("libgdal-dev",),
        "gmpy2": ("libgmp-dev", "libmpfr-dev", "libmpc-dev"),
        "gssapi": ("libkrb5-dev",),
        "h5py": ("libhdf5-dev",),
        "lxml": _XML,
        "m2crypto": ("libssl-dev", "swig"),
        "mariadb": ("libmariadb-dev",),
        "matplotlib": ("libfreetype-dev",),
        "mysqlclient": ("default-libmysqlclient-dev",),
        "numpy": ("libopenblas-dev",),
        "orjson": _RUST,
        "pillow": _IMAGES,
        "psycopg-c": ("libpq-dev",),
        "psycopg2": ("libpq-dev",),
        "psycopg2-binary": ("libpq-dev",),
        "pyaudio": ("portaudio19-dev",),
        "pycairo": ("libcairo2-dev",),
        "pycurl": ("libcurl4-openssl-dev", "libssl-dev"),
        "pydantic-core": _RUST,
        "pygraphviz": ("libgraphviz-dev",),
        "pylibmc": ("libmemcached-dev", "zlib1g-dev"),
        "pymssql": ("freetds-dev",),
        "pynacl": ("libsodium-dev", "libffi-dev"),
        "pyodbc": ("unixodbc-dev",),
        "pyproj": ("libproj-dev", "proj-bin"),
        "python-ldap": ("libldap-dev", "libsasl2-dev"),
        "python-snappy": ("libsnappy-dev",),
        "pyyaml": ("libyaml-dev",),
        "reportlab": ("libfreetype-dev",),
        "scipy": ("libopenblas-dev", "gfortran"),
        "shapely": ("libgeos-dev",),
        "systemd-python": ("libsystemd-dev",),
        "tiktoken": _RUST,
        "tokenizers": _RUST,
        "xmlsec": ("libxmlsec1-dev", *_XML),
    }
)
"""The -dev packages by the failing package's name, besides BASE."""

# What a build says that misses something, and the packages that have it.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"command '\S*(?:cc|gcc|g\+\+|c\+\+|clang)' failed", ()),
    (r"unable to execute '\S*(?:cc|gcc|g\+\+|c\+\+)'", ()),
    (r"\b(?:cc|gcc|g\+\+|c\+\+|make): (?:command )?not found", ()),
    (r"No such file or directory: '[\w./-]*(?:cc|\+\+|clang|make|pkg-config)'", ()),
    (r"[Nn]o working compiler found|[Uu]nknown compiler|[Nn]o acceptable C compiler|No CMAKE_C(?:XX)?_COMPILER", ()),
    (r"[Cc]ompiler \S+ not found", ()),
    (r"linker `?cc`? not found|Python\.h|pkg-config (?:was not found|is required)", ()),
    (r"pkg-config: (?:command )?not found", ()),
    (r"fatal error: \S+: No such file or directory", ()),
    (r"cannot find -l\w+", ()),
    (r"pg_config", ("libpq-dev",)),
    (r"mysql_config|mysqlclient.{0,200}pkg-config|valid pkg-config name", ("default-libmysqlclient-dev",)),
    (r"mariadb_config", ("libmariadb-dev",)),
    (r"xml2-config|xslt-config|libxml2 and libxslt|fatal error: libx(?:ml|slt)/", _XML),
    (r"fatal error: openssl/|cannot find -l(?:ssl|crypto)|OpenSSL (?:installation|development)", ("libssl-dev",)),
    (r"headers or library files could not be found for", _IMAGES),
    (r"[Rr]ust(?:c| compiler| toolchain)|[Cc]argo\b[^\n]{0,200}(?:not (?:found|installed)|No such file)", _RUST),
    (r"[Gg]fortran|Fortran compiler", ("gfortran",)),
    (r"[Cc][Mm]ake (?:must be|is not) (?:installed|found)|'cmake'|cmake: (?:command )?not found", ("cmake",)),
    (r"swig: (?:command )?not found|'swig'|SWIG", ("swig",)),
    (r"krb5-config", ("libkrb5-dev",)),
    (r"fatal error: (?:lber|ldap)\.h:", ("libsasl2-dev",)),
    (r"curl-config", ("libcurl4-openssl-dev",)),
    (r"geos-config", ("libgeos-dev",)),
    (r"gdal-config", ("libgdal-dev",)),
    (r"(?:autoreconf|aclocal|libtoolize|automake): (?:command )?not found", ("autoconf", "automake", "libtool")),
)


# What a build says that needs an older setuptools, which one, and the newest Python on which that runs.
_OLD_BUILDS = (
    (r"cannot import name 'Feature' from 'setuptools'", "setuptools<46", (3, 10)),
    (r"use_2to3 is invalid", "setuptools<58", (3, 11)),
    (r"No module named '(?:pkg_resources|setuptools\.command\.test)'", "setuptools<72", (3, 15)),
)


class InstallError(HostError):
    """An installation that failed; `output` is all that uv said, of which the text is a part."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


def with_compilers(install: Callable[[str], None], *, python: str | None) -> None:
    """Run an installation, and again with the compilers, the headers and the setuptools that it misses.

    `python` is the app's own; None for Debian's, whose headers are a package. `install` takes a requirement of
    setuptools that builds have to meet, empty for any. Raises what the installation raises, where nothing of that is
    missing.
    """
    setuptools = ""
    for left in reversed(range(ROUNDS)):
        try:
            install(setuptools)
        except InstallError as error:
            before, setuptools = setuptools, setuptools_for(error.output, python or debian.own_python()) or setuptools
            if left and setuptools != before:
                continue
            name, needed = build_needs(error.output, system_python=not python)
            why = f"to build {name}, which has no wheel for this machine's Python; this may take minutes"
            if not left or not needed or not install_missing(needed, why=why):
                raise
        else:
            return


def setuptools_for(output: str, python: str) -> str:
    """The requirement of setuptools that a failed build needs; empty where it failed for another reason."""
    minor = tuple(map(int, python.split(".")[:2]))
    return next((wanted for sign, wanted, last in _OLD_BUILDS if minor <= last and re.search(sign, output)), "")


def build_needs(output: str, *, system_python: bool) -> tuple[str, tuple[str, ...]]:
    """The Python package that failed to build, and the Debian packages that its build needs.

    There are none where the build failed for another reason than a missing compiler, header or program.
    """
    built = re.search(r"Failed to (?:download and )?build:? `?([\w.-]+)", output)
    name = re.sub(r"[-_.]+", "-", built[1]).lower() if built else "a package"
    output = "\n".join(line[:LONGEST_LINE] for line in output.splitlines()[-LINES:])
    signs = [packages for pattern, packages in _SIGNS if re.search(pattern, output)]
    if not signs:
        return name, ()
    headers = re.findall(r"fatal error: (\S+): No such file or directory", output)
    groups = [
        BASE,
        ("python3-dev",) if system_python else (),
        _OF_PACKAGE.get(name, ()),
        *signs,
        # Debian's own Python is the one whose headers are a package: see above.
        *(BUILD_NEEDS.get(header, "").split() for header in headers if header != "Python.h"),
    ]
    return name, tuple(dict.fromkeys(package for group in groups for package in group))


def build_variables() -> dict[str, str]:
    """Variables that keep a build small: one compiler for each 1.5 GB of memory, as the live app needs some, too."""
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    jobs = str(max(1, min(os.cpu_count() or 1, megabytes // 1500)))
    names = ("CARGO_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL", "MAX_JOBS")
    return {"MAKEFLAGS": f"-j{jobs}", "UV_CONCURRENT_BUILDS": "1", **dict.fromkeys(names, jobs)}
