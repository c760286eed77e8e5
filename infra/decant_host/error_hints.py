"""Hints for error texts: why a release most often does not serve or does not install, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

Hints = Sequence[tuple[str, str]]
"""Pairs of a pattern in the output and the hint for it. {0} and {1} are the pattern's groups, names are settings."""

_NAME = r"['\"]?([\w.-]+)['\"]?"

NOT_SERVING: Hints = (
    (rf"No module named {_NAME}", "the module {0} is not there. Add it to requirements.txt (or to the app folder)"),
    (rf"Failed to find attribute {_NAME}", "{entry} names {0}, which its module does not have"),
    (r"(?:SyntaxError|IndentationError): (.*)", "the code is not valid Python 3.13: {0}"),
    (
        rf"KeyError: {_NAME}",
        "KeyError {0}. If that is a variable, set it: pulumi config set --path 'decant:env.{0}' VALUE",
    ),
    (r"No space left on device", "the disk is full. See what fills it: df -h"),
    (
        r"oom-kill|signal, 9|signal 9|out of memory|MemoryError",
        "out of memory. Choose a larger decant:size or fewer decant:workers",
    ),
    (r"answered status 404", "nothing answers at {path}. Set decant:healthPath to a path that answers 200"),
    (
        r"answered status 40[13]",
        "{path} asks for a login. Set decant:healthPath to a path that answers 200 to anybody",
    ),
    (r"status 5\d\d", "the health path {path} answers with an error; the log below says which"),
    (r"status 30\d", "the health path {path} redirects. Set decant:healthPath to a path that answers 200 itself"),
    (r"status 400", "the app refuses the site's own name, {name}. Does it set TRUSTED_HOSTS?"),
    (r"no answer within", "the health path {path} does not answer in time (decant:healthTimeout is {timeout} s)"),
    (r"stopped by itself soon after", "it starts, answers, and crashes seconds later; the log below says where"),
    (
        r"ConnectionRefusedError|[Cc]onnection refused",
        "something that it connects to refuses: is its database running, and may this machine reach it?",
    ),
    (r"it stopped by itself", "it crashes when it starts; the log below says where"),
    (r"not healthy within", "it takes longer to start than decant:healthTimeout, which is {timeout} s"),
)

NOT_INSTALLED: Hints = (
    (
        r"Git executable not found",
        "a requirement needs git, which is not on this machine. Add a line `git` to the Aptfile of the app folder",
    ),
    (
        r"HTTP status client error \(40[13]|\b40[13] (?:Unauthorized|Forbidden)|Missing credentials"
        r"|[Aa]uthentication failed|could not read (?:Username|Password)|terminal prompts disabled",
        "the package index or repository wants a login. Write ${{TOKEN}} into its URL, and give it: pulumi config set"
        " --secret --path 'decant:secrets.TOKEN'",
    ),
    (
        r"[Hh]ash mismatch|hash(es)? (is|are) missing|require-hashes|Hash-checking is required|no trusted hash",
        "requirements.txt does not match its hashes. Lock it again: uv pip compile --generate-hashes",
    ),
    (r"No space left", "the disk is full. See what fills it: df -h; du -xh / | sort -h | tail"),
    (
        r"dns error|error sending request|Connection refused|timed out|Failed to fetch|operation timed out",
        "the package index cannot be reached from the machine",
    ),
    (
        r"[Uu]nknown compiler|Failed to build|command '\S*(cc|gcc|g\+\+|cargo|rustc)",
        "a package has no wheel for Python 3.13 and cannot be built here. Choose a version that has one",
    ),
    (
        r"No solution found|not found in the package registry|no version",
        "the requirements cannot be met on Python 3.13",
    ),
)

NO_PYTHON: Hints = (
    (r"No space left", "the disk is full. See what fills it: df -h; du -xh / | sort -h | tail"),
    (r"[Nn]o download found|not a valid|No download", "there is no Python {version} where decant:pythonMirror points"),
    (
        r"[Hh]ash mismatch",
        "the Python {version} that was downloaded is not the one that uv knows. Check decant:pythonMirror",
    ),
    (
        r"dns error|error sending request|[Cc]onnection refused|timed out|[Ff]ailed to (?:fetch|download)|HTTP status",
        "Python {version} cannot be downloaded from this machine. Set decant:pythonMirror to a mirror that it reaches,"
        " or use Debian's own: pulumi config set decant:python 3.13",
    ),
)


def find_hint(hints: Hints, text: str, *, otherwise: str, **settings: object) -> str:
    """The hint of the first pattern that the text matches; `otherwise` where there is none."""
    for pattern, hint in hints:
        match = re.search(pattern, text)
        if match:
            return hint.format(*(group or "" for group in match.groups()), **settings)
    return otherwise
