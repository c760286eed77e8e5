"""Hints for packages that cannot be installed. The texts are uv's own."""

from __future__ import annotations

import pytest

from decant_host.error_hints import NO_PYTHON, NOT_INSTALLED, WITH_LOGIN, find_hint


def installing(text: str, **settings: object) -> str:
    return find_hint(NOT_INSTALLED, text, otherwise="could not be installed", **settings)


APTFILE = "Add this line to Aptfile in the app folder:"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("error: Hash mismatch for flask", "requirements.txt does not match its hashes"),
        ("error sending request for url (https://pypi.org/simple/x/)", "the package index cannot be reached"),
        ("Hash-checking is required", "requirements.txt does not match its hashes"),
        ("a hash is missing: hashes are missing", "requirements.txt does not match its hashes"),
        ("dns error: failed to lookup", "the package index cannot be reached"),
        ("Connection refused (os error 111)", "the package index cannot be reached"),
        ("operation timed out", "the package index cannot be reached"),
        ("command '/usr/bin/x86_64-linux-gnu-gcc' failed", "cannot be built here"),
        ("flask was not found in the package registry", "cannot be met on Python 3.13"),
        ("Failed to build psycopg2", "has no wheel for Python 3.13 and cannot be built here"),
        ("No solution found when resolving dependencies", "cannot be met on Python 3.13"),
        ("No space left on device (os error 28)", "the disk is full"),
        ("something else", "could not be installed"),
        ("No interpreter found for Python 3.15", "there is no Python 3.15 on the machine"),
        ("Distribution not found at: file:///croot/certifi_1/work/certifi", "a requirement names a file of conda's"),
        ("Distribution not found at: file:///home/me/lib", "names a file of another computer: file:///home/me/lib"),
        ("Because pkg-resources was not found in the package registry", "Remove that line from requirements.txt"),
        ("The 'sklearn' PyPI package is deprecated, use 'scikit-learn'", "Write scikit-learn in place of it"),
        ("error: stream did not contain valid UTF-8", "iconv -f UTF-16 -t UTF-8"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "cannot be reached from the machine"),
        ("Because no-such was not found in the package registry and you require no-such, we can conclude that",
         "the package index has no package no-such. Is its name right?"),
        ("Because there is no version of flask==99 and you require flask==99", "there is no version flask==99."),
    ],
)  # fmt: skip
def test_hints_for_requirements_that_cannot_be_installed(text: str, hint: str) -> None:
    assert hint in installing(text)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("fatal error: ldap.h: No such file or directory", "libldap-dev"),
        ("fatal error: libxml/xmlversion.h: No such file or directory", "libxml2-dev"),
        ("fatal error: sql.h: No such file", "unixodbc-dev"),
        ("Error: pg_config executable not found.", "libpq-dev"),
        ("/bin/sh: 1: gdal-config: not found", "libgdal-dev"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'cmake'", "cmake"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'pkg-config'", "pkg-config"),
        ("error: command 'swig' failed: No such file or directory: 'swig'", "swig"),
        ('../meson.build:31:12: ERROR: Dependency "cairo" not found, tried pkgconfig', "libcairo2-dev"),
    ],
)
def test_what_a_build_looks_for_is_named_with_its_debian_package(text: str, package: str) -> None:
    hint = installing(f"error: Failed to build `x==1.0`\n  {text}")
    assert hint.endswith(f"{APTFILE} {package}")


def test_two_requirements_that_contradict_each_other_are_both_named() -> None:
    text = """error: No solution found when resolving dependencies
  cause: Because pandas==3.0.0 depends on numpy{python_full_version < '3.14'}>=1.26.0 and you require pandas==3.0.0, we
         can conclude that you require numpy>=1.26.0.
         And because you require numpy==1.20, we can conclude that your requirements are unsatisfiable."""
    assert installing(text) == (
        "two requirements contradict each other: pandas==3.0.0 needs numpy>=1.26.0, and numpy==1.20 is required too."
        " Change one of the two in requirements.txt"
    )


@pytest.mark.parametrize(
    ("bound", "version"), [(">=3.8,<3.12", "3.11"), (">=3.14", "3.14"), ("<=3.12", "3.12"), ("<3.12.4", "3.12")]
)
def test_a_package_for_another_python_names_one_that_fits(bound: str, version: str) -> None:
    text = (
        f"Because the current Python version (3.13.5) does not satisfy Python{bound} and numba==0.57.0 depends on"
        f" Python{bound}, we can conclude that numba==0.57.0 cannot be used."
    )
    assert installing(text) == (
        "numba==0.57.0 does not run on Python 3.13. Choose one that it runs on:"
        f" pulumi config set decant:python {version}"
    )


def test_wheels_for_other_pythons_name_the_newest_of_them() -> None:
    text = """  cause: Because onnxruntime==1.10.0 has no wheels with a matching Python ABI tag (e.g., `cp313`)

hint: You require CPython 3.13 (`cp313`), but we only found wheels for `onnxruntime` (v1.10.0) with the following \
Python ABI tags: `cp36m`, `cp37m`, `cp38`, `cp39`"""
    assert installing(text) == (
        "onnxruntime has no wheel for Python 3.13. Choose a version of it that has one, or an older Python:"
        " pulumi config set decant:python 3.9"
    )


def test_wheels_for_windows_alone_name_the_marker() -> None:
    text = """  cause: Because pywin32==306 has no wheels with a matching platform tag (e.g., `manylinux_2_41_x86_64`)

hint: Wheels are available for `pywin32` (v306) on the following platforms: `win32`, `win_amd64`, `win_arm64`"""
    assert installing(text) == (
        "pywin32 is for Windows alone. Leave it out elsewhere, by this line in place of it:"
        " pywin32 ; sys_platform == 'win32'"
    )


@pytest.mark.parametrize(
    "text",
    [
        "ModuleNotFoundError: No module named 'distutils'",
        "AttributeError: module 'pkgutil' has no attribute 'ImpImporter'",
        "error in x setup command: use_2to3 is invalid.",
        "fatal error: longintrepr.h: No such file or directory",
    ],
)
def test_a_package_too_old_for_the_python_is_named(text: str) -> None:
    assert installing(f"error: Failed to build `greenlet==1.1.0`\n{text}", python="3.12") == (
        "greenlet 1.1.0 is too old to be built with Python 3.12. Choose a newer version of it, or an older Python:"
        " pulumi config set decant:python 3.11"
    )


@pytest.mark.parametrize(
    ("text", "python", "fix"),
    [
        ("use_2to3 is invalid", "3.12", ", or an older Python: pulumi config set decant:python 3.11"),
        ("use_2to3 is invalid", "3.11.4", ""),
        ("use_2to3 is invalid", "3.8", ""),
        ("cannot import name 'Feature' from 'setuptools' (/x)", "3.11",
         ", or an older Python: pulumi config set decant:python 3.10"),
        ("cannot import name 'Feature' from 'setuptools' (/x)", "3.10", ""),
        ("command 'gcc' failed", "3.13", ", or an older Python: pulumi config set decant:python 3.12"),
        ("command 'gcc' failed", "3.9", ", or an older Python: pulumi config set decant:python 3.8"),
        ("command 'gcc' failed", "3.8", ""),
    ],
)  # fmt: skip
def test_a_hint_names_no_python_that_the_package_does_not_run_on(text: str, python: str, fix: str) -> None:
    told = installing(f"error: Failed to build `x==1.0`\n{text}", python=python)
    assert told.endswith(f". Choose a newer version of it{fix}")
    assert told.startswith("x 1.0 ")


def test_the_newest_python_of_a_rust_package_is_named() -> None:
    text = (
        "error: the configured Python interpreter version (3.13) is newer than PyO3's maximum supported version (3.12)"
    )
    assert installing(text).endswith("pulumi config set decant:python 3.12")


LOGIN = (
    "the package index or repository wants a login. Write ${TOKEN} into its URL, and give it:"
    " pulumi config set --secret --path 'decant:secrets.TOKEN'"
)


# As uv 0.13.9 and git print them.
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("error: Git operation failed\n  cause: Git executable not found. Ensure that Git is installed and available.",
         "a requirement needs git, which is not on this machine. Add a line `git` to the Aptfile of the app folder"),
        ("cause: HTTP status client error (401 Unauthorized) for url (https://x.org/simple/a/)", LOGIN),
        ("cause: HTTP status client error (403 Forbidden) for url (https://x.org/simple/a/)", LOGIN),
        ("fatal: could not read Username for 'https://x.org': terminal prompts disabled", LOGIN),
        ("remote: Invalid username or token.\nfatal: Authentication failed for 'https://x.org/a.git/'", LOGIN),
        ("git@github.com: Permission denied (publickey).", LOGIN),
    ],
)  # fmt: skip
def test_hints_for_logins_and_git(text: str, hint: str) -> None:
    assert installing(text) == hint


def test_a_package_in_no_index_where_an_index_has_a_secret() -> None:
    text = "Because shop-lib was not found in the package registry and you require shop-lib, we can conclude that"
    assert find_hint((*WITH_LOGIN, *NOT_INSTALLED), text, otherwise="", variable="INDEX_TOKEN") == (
        "shop-lib is in none of the package indexes. Does the secret in the index's URL open it? To set it again:"
        " pulumi config set --secret --path 'decant:secrets.INDEX_TOKEN'"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("error: No download found for request: cpython-3.8-linux-x86_64-gnu",
         "there is no Python 3.8 where decant:pythonMirror points"),
        ("error: Failed to install cpython-3.8\n  cause: Hash mismatch for `cpython-3.8`",
         "the Python 3.8 that was downloaded is not the one that uv knows. Check decant:pythonMirror"),
        ("cause: HTTP status client error (404 File not found) for url (http://x.org/d.json)", "cannot be downloaded"),
        ("error: Request failed after 3 retries in 8.4s\n  cause: Failed to fetch: http://127.0.0.1:1/x.json",
         "Python 3.8 cannot be downloaded from this machine. Set decant:pythonMirror to a mirror that it reaches,"
         " or use Debian's own: pulumi config set decant:python 3.13"),
        ("No space left on device", "the disk is full"),
        ("something else", "otherwise"),
    ],
)  # fmt: skip
def test_hints_for_a_python_that_cannot_be_installed(text: str, hint: str) -> None:
    assert hint in find_hint(NO_PYTHON, text, otherwise="otherwise", version="3.8")
