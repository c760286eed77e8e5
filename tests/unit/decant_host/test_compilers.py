"""Compilers and headers for packages without a wheel."""

from __future__ import annotations

import os
import time

import pytest

from decant_host import compilers
from decant_host.compilers import InstallError, build_needs, with_compilers
from decant_host.errors import HostError

UV = """  x Failed to build `{}`
  |-> The build backend returned an error
  `-> Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)

      [stderr]
      {}

      hint: This usually indicates a problem with the package or the build environment.
"""
BASE = ("build-essential", "pkg-config", "python3-dev")


def needs(name: str, said: str) -> tuple[str, ...]:
    found, packages = build_needs(UV.format(name, said), system_python=True)
    assert found == name.partition("==")[0].lower().replace("_", "-")
    assert packages[:3] == BASE
    return packages[3:]


@pytest.mark.parametrize(
    "said",
    [
        "error: command 'cc' failed: No such file or directory",
        "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
        "error: command '/usr/bin/x86_64-linux-gnu-gcc' failed with exit code 1",
        "error: command 'g++' failed: No such file or directory",
        "error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'",
        "FileNotFoundError: [Errno 2] No such file or directory: '/usr/bin/x86_64-linux-gnu-g++'",
        "unable to execute 'gcc': No such file or directory",
        "/bin/sh: 1: gcc: not found",
        "make: command not found",
        "    No working compiler found, or bogus compiler options passed to",
        "FileNotFoundError: [Errno 2] No such file or directory: 'make'",
        "ERROR: Unknown compiler(s): [['cc'], ['gcc']]",
        "configure: error: no acceptable C compiler found in $PATH",
        "CMake Error: No CMAKE_CXX_COMPILER could be found.",
        "error: linker `cc` not found",
        "src/x.c:1:10: fatal error: Python.h: No such file or directory",
        "fatal error: stdio.h: No such file or directory",
        "/usr/bin/ld: cannot find -lfoo: No such file or directory",
        "pkg-config: not found",
    ],
)
def test_a_missing_compiler_is_found(said: str) -> None:
    assert needs("shop==1.0", said) == ()


@pytest.mark.parametrize(
    ("name", "said", "packages"),
    [
        ("psycopg2==2.9.9", "Error: pg_config executable not found.", ("libpq-dev",)),
        ("psycopg2-binary==2.9.1", "error: command 'gcc' failed: No such file", ("libpq-dev",)),
        ("mysqlclient==2.2", "Exception: Can not find valid pkg-config name.", ("default-libmysqlclient-dev",)),
        ("mysqlclient==1.4", "OSError: mysql_config not found", ("default-libmysqlclient-dev",)),
        ("lxml==4.6.2", "Error: Please make sure the libxml2 and libxslt development packages are installed.",
         ("libxml2-dev", "libxslt1-dev")),
        ("html5==1", "fatal error: libxml/xmlversion.h: No such file or directory", ("libxml2-dev", "libxslt1-dev")),
        ("Pillow==8.0.0", "The headers or library files could not be found for jpeg,",
         ("libjpeg-dev", "zlib1g-dev", "libfreetype-dev", "libtiff-dev", "libwebp-dev", "libopenjp2-7-dev")),
        ("cffi==1.14.0", "error: command 'gcc' failed: No such file or directory", ("libffi-dev",)),
        ("other==1.0", "c/_cffi_backend.c:15:10: fatal error: ffi.h: No such file or directory", ("libffi-dev",)),
        ("cryptography==3.4", "error: can't find Rust compiler", ("libssl-dev", "libffi-dev", "rustc", "cargo")),
        ("new_thing==1", "Cargo, the Rust package manager, is not installed or is not on PATH.", ("rustc", "cargo")),
        ("python_ldap==3.4.0", "fatal error: lber.h: No such file or directory", ("libldap-dev", "libsasl2-dev")),
        ("scipy==1.5", "ERROR: Unknown compiler(s): [['gfortran']]", ("libopenblas-dev", "gfortran")),
        ("thing==1", "fatal error: openssl/opensslv.h: No such file or directory", ("libssl-dev",)),
        ("thing==1", "CMake must be installed to build this package", ("cmake",)),
        ("thing==1", "sh: autoreconf: command not found", ("autoconf", "automake", "libtool")),
    ],
)  # fmt: skip
def test_headers_come_by_the_packages_name_and_by_what_is_missing(
    name: str, said: str, packages: tuple[str, ...]
) -> None:
    assert needs(name, said) == packages


@pytest.mark.parametrize(
    "output",
    [
        UV.format("jsmin==2.2.2", "error in jsmin setup command: use_2to3 is invalid."),
        UV.format("thing==1", "ModuleNotFoundError: No module named 'pkg_resources'"),
        "error: Hash mismatch for flask",
        "  x No solution found when resolving dependencies",
        "error: Git operation failed",
    ],
)
def test_other_failures_need_no_compiler(output: str) -> None:
    assert build_needs(output, system_python=True)[1] == ()


def test_a_python_of_uvs_has_its_own_headers() -> None:
    output = UV.format("shop @ file:///x/app", "error: command 'cc' failed: No such file or directory")
    assert build_needs(output, system_python=False) == ("shop", ("build-essential", "pkg-config"))


class Builds:
    """An installation that fails until what it needs is installed. `asked` are the installed groups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failures: tuple[str, str, str]) -> None:
        self.failures = failures
        self.here: set[str] = set()
        self.asked: list[tuple[tuple[str, ...], str]] = []
        self.runs = 0
        self.setuptools: list[str] = []
        monkeypatch.setattr(compilers, "install_missing", self.install_missing)

    def install_missing(self, packages: tuple[str, ...], *, why: str) -> tuple[str, ...]:
        missing = tuple(p for p in packages if p not in self.here)
        self.asked.append((missing, why))
        self.here |= set(missing)
        return missing

    def __call__(self, setuptools: str) -> None:
        self.runs += 1
        self.setuptools.append(setuptools)
        for name, said, package in self.failures:
            if package not in self.here and package != setuptools:
                raise InstallError("the text", UV.format(name, said))


GCC = "error: command 'gcc' failed: No such file or directory"


def test_an_installation_is_repeated_with_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(
        monkeypatch, ("lxml==4", GCC, "gcc"), ("x==1", "fatal error: ffi.h: No such file or directory", "libffi-dev")
    )
    builds.here = {"gcc"}
    with_compilers(builds, python=None)
    assert builds.runs == 2
    assert builds.asked == [
        ((*BASE, "libffi-dev"), "to build x, which has no wheel for this machine's Python; this may take minutes")
    ]


def test_an_installation_that_works_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch)
    with_compilers(builds, python=None)
    assert (builds.runs, builds.asked) == (1, [])


def test_several_packages_get_their_headers_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [("lxml==4", GCC, "libxml2-dev"), ("psycopg2==2", GCC, "libpq-dev"), ("cffi==1", GCC, "libffi-dev")]
    builds = Builds(monkeypatch, *failures)
    with_compilers(builds, python=None)
    assert builds.runs == 4
    assert builds.asked[1][0] == ("libpq-dev",)


def test_a_build_that_fails_with_everything_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch, ("x==1", GCC, "no such package"))
    with pytest.raises(InstallError, match="the text"):
        with_compilers(builds, python=None)
    assert builds.runs == 2


def test_a_failure_without_compilers_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch, ("x==1", "use_2to3 is invalid", "nothing"))
    with pytest.raises(InstallError):
        with_compilers(builds, python=None)
    assert (builds.runs, builds.asked) == (1, [])

    def fail(setuptools: str) -> None:
        raise HostError("another")

    with pytest.raises(HostError, match="another"):
        with_compilers(fail, python=None)


FEATURE = "ImportError: cannot import name 'Feature' from 'setuptools' (/x/setuptools/__init__.py)"


@pytest.mark.parametrize(
    ("said", "setuptools", "python"),
    [
        ("error in jsmin setup command: use_2to3 is invalid.", "setuptools<58", "3.11"),
        (FEATURE, "setuptools<46", "3.10.4"),
        ("ModuleNotFoundError: No module named 'pkg_resources'", "setuptools<72", None),
        ("ModuleNotFoundError: No module named 'setuptools.command.test'", "setuptools<72", "3.14"),
    ],
)
def test_a_build_for_an_old_setuptools_gets_one(
    monkeypatch: pytest.MonkeyPatch, said: str, setuptools: str, python: str | None
) -> None:
    builds = Builds(monkeypatch, ("x==1", said, setuptools))
    with_compilers(builds, python=python)
    assert (builds.setuptools, builds.asked) == (["", setuptools], [])


def test_an_old_setuptools_stays_for_the_next_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch, ("x==1", FEATURE, "setuptools<46"), ("cffi==1", GCC, "libffi-dev"))
    with_compilers(builds, python="3.8")
    assert builds.setuptools == ["", "setuptools<46", "setuptools<46"]


@pytest.mark.parametrize(("said", "python"), [("use_2to3 is invalid", "3.12"), (FEATURE, "3.11"), ("other", "3.8")])
def test_no_setuptools_helps_on_a_python_that_it_does_not_run_on(
    monkeypatch: pytest.MonkeyPatch, said: str, python: str
) -> None:
    builds = Builds(monkeypatch, ("x==1", said, "nothing"))
    with pytest.raises(InstallError):
        with_compilers(builds, python=python)
    assert builds.setuptools == [""]


def test_an_old_setuptools_that_does_not_help_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch, ("x==1", FEATURE, "nothing"))
    with pytest.raises(InstallError):
        with_compilers(builds, python="3.8")
    assert builds.runs == 2


def test_the_number_of_repetitions_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(monkeypatch, ("x==1", GCC, "nothing"))
    monkeypatch.setattr(compilers, "install_missing", lambda packages, why: packages)
    with pytest.raises(InstallError):
        with_compilers(builds, python=None)
    assert builds.runs == compilers.ROUNDS == 5


@pytest.mark.parametrize(
    ("cores", "megabytes", "jobs"), [(2, 900, "1"), (2, 2000, "1"), (4, 6200, "4"), (8, 6200, "4")]
)
def test_a_small_machine_runs_one_compiler(
    monkeypatch: pytest.MonkeyPatch, cores: int, megabytes: int, jobs: str
) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": megabytes * 256}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    variables = compilers.build_variables()
    assert variables["MAKEFLAGS"] == f"-j{jobs}"
    assert variables["CARGO_BUILD_JOBS"] == variables["CMAKE_BUILD_PARALLEL_LEVEL"] == variables["MAX_JOBS"] == jobs
    assert variables["UV_CONCURRENT_BUILDS"] == "1"


def test_any_output_is_searched_in_little_time() -> None:
    began = time.process_time()
    for said in ("cargo " * 2_000_000, "cargo\n" * 1_000_000, "mysqlclient " * 500_000, "cargo " * 150 + "\n" * 100):
        assert build_needs(said * (1 if len(said) > 10_000 else 1000), system_python=True)[1] == ()
    assert time.process_time() - began < 5
    found, packages = build_needs(UV.format("shop", "x\n" * 10_000 + "pg_config"), system_python=True)
    assert (found, packages[-1]) == ("shop", "libpq-dev")
