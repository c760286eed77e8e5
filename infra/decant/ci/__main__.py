"""The command line of `make ci-comment`, `ci-stale`, `ci-issue` and `ci-issue-done`."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from decant.app.files import escaped
from decant.ci import comment
from decant.ci.environment import current_forge
from decant.errors import CiError, DecantError
from decant.settings.project import project_name

NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)  # of a stack, as Pulumi takes it
KEY = re.compile(r"[\w][\w .:/-]{0,99}", re.ASCII)
LONGEST_TITLE = 200
LARGEST_SUMMARY = 1024 * 1024  # bytes: GitHub's limit for a step's summary


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options, environ, sleep))
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decant.ci", description="What workflows need besides Pulumi.")
    verbs = parser.add_subparsers(required=True)
    said = verbs.add_parser("comment", help="comment on the pull request of this run, or edit the comment")
    said.add_argument("--stack", default="dev")
    said.add_argument("--key", default="", help="what the comment is about, where it is no stack's preview")
    said.add_argument("--markdown", default="", help="the file with the text")
    said.add_argument("--pr", default="", help="the pull request (default: the one of this run)")
    said.set_defaults(run=_comment)
    stale = verbs.add_parser("stale", help="mark a stack's comments, after the target branch has changed")
    stale.add_argument("--stack", default="dev")
    stale.set_defaults(run=_stale)
    issue = verbs.add_parser("issue", help="open an issue, or edit the open one with this title")
    issue.add_argument("--title", default="")
    issue.add_argument("--body", default="", help="the file with the text")
    issue.set_defaults(run=_issue)
    done = verbs.add_parser("issue-done", help="close the issue with this title, where it is open")
    done.add_argument("--title", default="")
    done.set_defaults(run=_issue_done)
    return parser


Sleep = Callable[[float], None]


def _comment(options: argparse.Namespace, environ: Mapping[str, str], sleep: Sleep) -> int:
    key = _key(options.stack, options.key)
    body, status = _body("MARKDOWN", options.markdown, about=key)
    _write_summary(environ, body)
    forge = current_forge(environ, sleep=sleep)
    number = _number(options.pr) or forge.request_number()
    stale = not options.key and comment.has_moved(forge)
    wanted = comment.text_of(key, body, forge.job, stale=stale)
    found = comment.upsert(forge.comments(number), wanted, sleep=sleep)
    if found.text == wanted:
        print(f"Pull request {number} has the comment: {escaped(found.url)}")
    else:
        print(f"Pull request {number} has the comment of a newer run, which stays: {escaped(found.url)}")
    return status


def _stale(options: argparse.Namespace, environ: Mapping[str, str], sleep: Sleep) -> int:
    key = _key(options.stack, "")
    forge = current_forge(environ, sleep=sleep)
    branch = forge.job.branch
    if not branch:
        raise CiError("This run is not about a branch. Run this step when the target branch has changed: event push.")
    marked = comment.mark_stale(forge, key, branch)
    which = ", ".join(map(str, marked)) or "none"
    print(f"Pull requests whose preview of {key} is now marked as stale: {which}")
    return 0


def _issue(options: argparse.Namespace, environ: Mapping[str, str], sleep: Sleep) -> int:
    title = _title(options.title)
    body, status = _body("BODY", options.body, about=title)
    forge = current_forge(environ, sleep=sleep)
    wanted = comment.text_of(_issue_key(title), body, forge.job)
    found = comment.upsert(forge.issues(title), wanted, sleep=sleep)
    print(f"The issue is open: {escaped(found.url)}")
    return status


def _issue_done(options: argparse.Namespace, environ: Mapping[str, str], sleep: Sleep) -> int:
    title = _title(options.title)
    forge = current_forge(environ, sleep=sleep)
    found = comment.finish(forge.issues(title), _issue_key(title), forge.job)
    for issue in found:
        print(f"The issue is closed: {escaped(issue.url)}")
    if not found:
        print("No such issue is open.")
    return 0


def _key(stack: str, key: str) -> str:
    """What identifies a comment: the project and the stack, or what the user gave. Raises CiError."""
    if key and not KEY.fullmatch(key):
        raise CiError(
            f"KEY is {escaped(key)[:200]}: it must be at most 100 letters, digits, spaces and characters of _ . : / -\n"
            "For example: make ci-comment KEY=review MARKDOWN=review.md"
        )
    if not NAME.fullmatch(stack):
        raise CiError(f"STACK is {escaped(stack)[:200]}: it must be a stack's name, such as production.")
    return f"{project_name()}:{key}" if key else f"{project_name()}/{stack}"


def _issue_key(title: str) -> str:
    return f"{project_name()}!{hashlib.sha256(title.encode()).hexdigest()[:16]}"


def _title(text: str) -> str:
    title = escaped(" ".join(text.split()))
    if not 0 < len(title) <= LONGEST_TITLE:
        raise CiError(
            f"TITLE has {len(title)} characters: an issue needs one of at most {LONGEST_TITLE}.\n"
            "For example: make ci-issue TITLE='production has drifted' BODY=drift.md"
        )
    return title


def _number(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise CiError(f"PR is {escaped(text)[:200]}: it must be the number of a pull request, such as 12.")
    return int(text or 0)


def _body(variable: str, name: str, *, about: str) -> tuple[str, int]:
    """The text of a file and the exit status 0, or a text that says why there is none, and 1.

    A run that failed early has no text. Its comment says so, because otherwise the one of the run before would stay.
    Raises CiError where no file is named.
    """
    if not name:
        raise CiError(f"{variable} is not set: name the file with the text, such as {variable}=preview.md")
    try:
        text = Path(name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        text, reason = "", f"{escaped(name)} cannot be read: {error.strerror}"
    else:
        reason = f"{escaped(name)} is empty"
    if not text:
        problem = "The run ended before it wrote anything, so its log alone says what happened."
    elif len(text) > comment.LONGEST_BODY:
        reason = (
            f"{escaped(name)} is {len(text):,} characters long, more than the {comment.LONGEST_BODY:,} of a comment"
        )
        problem = f"The text is too long for a comment: {len(text):,} characters instead of {comment.LONGEST_BODY:,}."
    else:
        return text, 0
    print(f"{variable}: {reason}. The comment says so.", file=sys.stderr)
    return f"### `{about.replace('`', chr(39))}`: no result\n\n{problem}", 1


def _write_summary(environ: Mapping[str, str], body: str) -> None:
    """Show the text on the run's own page as well, where the forge has one: it needs no permission."""
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    path = Path(name)
    content = f"{body}\n\n".encode()
    size = path.stat().st_size if path.exists() else 0
    if size + len(content) <= LARGEST_SUMMARY:
        with path.open("ab") as file:
            file.write(content)


if __name__ == "__main__":
    sys.exit(main())
