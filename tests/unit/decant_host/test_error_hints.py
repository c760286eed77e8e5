"""Hints in error texts."""

from __future__ import annotations

import pytest

from decant_host import error_hints, processes
from tests.unit.decant_host.machine import Machine


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ModuleNotFoundError: No module named 'flask_login'", "the module flask_login is not there. Add it to req"),
        ("Failed to find attribute 'app' in 'wsgi'.", "wsgi:app names app, which its module does not have"),
        ("SyntaxError: invalid syntax", "the code is not valid Python 3.13: invalid syntax"),
        ("KeyError: 'STRIPE_KEY'", "pulumi config set --path 'decant:env.STRIPE_KEY' VALUE"),
        ("OSError: [Errno 28] No space left on device", "the disk is full. See what fills it: df -h"),
        ("Worker (pid:7) was sent signal 9!", "out of memory"),
        ("its health path /up answered status 404", "nothing answers at /up. Set decant:healthPath"),
        ("its health path /up answered status 401", "/up asks for a login"),
        ("its health path /up answered status 403", "/up asks for a login"),
        ("IndentationError: unexpected indent", "the code is not valid Python 3.13: unexpected indent"),
        ("it stopped by itself (oom-kill, exit status 9)", "out of memory"),
        ("it stopped by itself (signal 9)", "out of memory"),
        ("MemoryError", "out of memory"),
        ("psycopg.OperationalError: connection refused", "something that it connects to refuses"),
        ("ConnectionRefusedError: [Errno 111]", "something that it connects to refuses"),
        ("it stopped by itself soon after its start (exit-code)", "it starts, answers, and crashes seconds later"),
        ("not healthy within 15 s at /up: status 503", "answers with an error; the log below says which"),
        ("not healthy within 15 s at /up: status 301", "the health path /up redirects"),
        ("not healthy within 15 s at /up: status 400", "refuses the site's own name, www.example.com"),
        (
            "not healthy within 15 s at /up: no answer within 5 s",
            "does not answer in time (decant:healthTimeout is 15 s)",
        ),
        ("it stopped by itself (exit-code, exit status 1)", "it crashes when it starts"),
        (
            "not healthy within 15 s at /up: it did not start",
            "longer to start than decant:healthTimeout, which is 15 s",
        ),
        ("something else", "the reason is below"),
        ("KeyError: '{braces}'", "the reason is below"),
    ],
)
def test_hints_for_a_release_that_does_not_serve(machine: Machine, text: str, hint: str) -> None:
    settings = {"entry": "wsgi:app", "health_path": "/up", "health_timeout": 15}
    assert hint in processes.explain_failure(text, settings)


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
    ],
)
def test_hints_for_requirements_that_cannot_be_installed(text: str, hint: str) -> None:
    assert hint in error_hints.find_hint(error_hints.NOT_INSTALLED, text, otherwise="could not be installed")


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
    ],
)  # fmt: skip
def test_hints_for_logins_and_git(text: str, hint: str) -> None:
    assert error_hints.find_hint(error_hints.NOT_INSTALLED, text, otherwise="") == hint


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
    assert hint in error_hints.find_hint(error_hints.NO_PYTHON, text, otherwise="otherwise", version="3.8")
