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
