"""One comment for each key in a pull request, found again by a hidden marker and edited in place.

A workflow posts again at each push, two jobs can do it at the same time, and an answer can get lost after the forge
has made the comment. So there is one rule, which each job applies until it finds nothing more to do: of all comments
with the key's marker, the oldest stays, gets the text of the newest run, and the others are deleted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from decant.ci.forge import Entry, Forge, Job, Thread
from decant.errors import CiError, ForgeError, UnclearWriteError

LONGEST_TEXT = 65_536  # characters: GitHub's limit for a comment or issue; GitLab's is higher
LONGEST_BODY = 64_000  # the rest is for the marker, the stale banner and the footer
LONGEST_KEY = 200
SAFE = "/:!"  # what a marker holds as it is, besides letters and digits
ROUNDS = 6
PAUSE = 2.0  # seconds before another look, where an answer got lost

MARKER = re.compile(r"<!-- decant key=(?P<key>\S+) run=(?P<run>\d+)\.(?P<attempt>\d+) base=(?P<base>[0-9a-f]*) -->")
FOREIGN = "> [!CAUTION]\n> A run of a fork wrote this text. It may say anything."
STALE = "> [!WARNING]\n> **Stale**: the target branch has changed since."
FRESHEN = "Push to the pull request, or run its checks again, for a current one."


@dataclass(frozen=True)
class Marker:
    """The first line of each comment, which readers do not see."""

    key: str
    order: tuple[int, int]
    base: str = ""

    def __str__(self) -> str:
        run, attempt = self.order
        return f"<!-- decant key={self.key} run={run}.{attempt} base={self.base} -->"


def marker_of(text: str) -> Marker | None:
    """The marker at the beginning of a text, where there is one."""
    found = MARKER.match(text)
    return found and Marker(found["key"], (int(found["run"]), int(found["attempt"])), found["base"])


def text_of(key: str, body: str, job: Job, *, stale: bool = False) -> str:
    """The whole text of a comment. Raises CiError where the body or the key is too long."""
    safe = quote(key, safe=SAFE)
    if len(safe) > LONGEST_KEY:
        raise CiError(
            f"KEY is {len(safe)} characters long when written for a marker: at most {LONGEST_KEY} are allowed."
        )
    if len(body) > LONGEST_BODY:
        raise CiError(f"The text is {len(body):,} characters long: a comment holds at most {LONGEST_BODY:,}.")
    banner = [f"{STALE} {FRESHEN}"] if stale else []
    # NUL is the one character that a database refuses.
    shown = body.strip().replace("\0", "\ufffd")
    if not job.trusted:
        shown = f"{FOREIGN}\n\n{_inert(shown)}"
    footer = ", ".join([*([f"Commit {job.commit}"] if job.commit else []), f"[log of the run]({job.url})"])
    return "\n\n".join([str(Marker(safe, job.order, job.base)), *banner, shown, f"<sub>{footer}</sub>"])


def _inert(text: str) -> str:
    """A text as it was written: no link, no picture, and nobody is notified."""
    fence = "```"
    return f"{fence}text\n{re.sub('`{3,}', lambda found: chr(39) * len(found[0]), text)}\n{fence}"


def upsert(thread: Thread, text: str, *, sleep: Callable[[float], None] = time.sleep) -> Entry:
    """Make sure that the thread has this text once, and return its comment.

    `text` comes from `text_of`. A comment of a newer run is left as it is, and returned.

    Raises:
        ForgeError: the forge refused, or other jobs write the same comment all the time.
    """
    wanted = _marker(text)
    made: Entry | None = None
    problem = ForgeError(f"Other jobs write the comment {wanted.key} again and again.\nRun this job again.")
    for _ in range(ROUNDS):
        found = _with_key(thread.entries(), wanted.key)
        if made and made.id not in {entry.id for entry in found}:
            found.append(made)  # a list can be seconds behind; what another job has deleted is found out below
        if not found:
            try:
                made = thread.create(text)
            except UnclearWriteError as error:
                problem = error
                sleep(PAUSE)
            continue  # another job may have done the same: look again
        try:
            return _settle(thread, found, text)
        except ForgeError as error:
            if error.status != 404:
                raise
            made = None  # another job has deleted what this one wanted to edit or delete: look again
    raise problem


def _settle(thread: Thread, found: Sequence[Entry], text: str) -> Entry:
    """Give the oldest comment the newest text, and delete the others."""
    oldest, *others = sorted(found, key=lambda entry: entry.id)
    newest = _newest([entry.text for entry in found], text)
    if oldest.text != newest:
        # The list may have taken seconds. Another job can still come between these two requests: no forge has an edit
        # that fails then.
        newest = _newest([thread.read(oldest.id)], newest)
        thread.edit(oldest.id, newest)
    for entry in others:
        thread.remove(entry.id)
    return Entry(id=oldest.id, text=newest, mine=True, url=oldest.url)


def _newest(texts: Sequence[str], text: str) -> str:
    """The text of the newest run; of the same run, `text`."""
    newest = max(texts, key=lambda one: _marker(one).order)
    return newest if _marker(newest).order > _marker(text).order else text


def has_moved(forge: Forge) -> bool:
    """Whether the target branch has changed since the job began. False where the forge does not say it."""
    job = forge.job
    if not job.base or not job.branch:
        return False
    try:
        return forge.branch_head(job.branch) != job.base
    except ForgeError:  # the comment matters more, and its own requests tell what is wrong
        return False


def mark_stale(forge: Forge, key: str, branch: str) -> list[int]:
    """Mark the key's comments in all open pull requests into a branch that has changed; return their numbers.

    Raises:
        ForgeError: some could not be marked; all others are.
    """
    key = quote(key, safe=SAFE)
    head = forge.branch_head(branch)
    marked, problems = [], []
    for number in forge.open_requests(branch):
        try:
            if _mark_stale(forge.comments(number), key, head):
                marked.append(number)
        except ForgeError as error:
            if error.status in (401, 403):
                raise  # the token is the same for all others
            problems.append(f"{number}: {error}")
    if problems:
        raise ForgeError("\n".join(["These pull requests could not be marked as stale:", *problems]))
    return marked


def _mark_stale(thread: Thread, key: str, head: str) -> bool:
    marked = False
    for entry in _with_key(thread.entries(), key):
        if _is_current(entry.text, head):
            continue
        text = thread.read(entry.id)  # the list may have taken seconds, and a preview may have ended meanwhile
        if not _is_current(text, head):
            thread.edit(entry.id, _with_banner(text, f"{STALE} {FRESHEN}"))
            marked = True
    return marked


def _is_current(text: str, head: str) -> bool:
    """Whether a comment is about this commit of the target branch, or says already that it is about an older one."""
    marker = _marker(text)
    return marker.base == head or text.removeprefix(str(marker)).lstrip().startswith(STALE)


def finish(issues: Thread, key: str, job: Job) -> list[Entry]:
    """Close the open issues with a key, and say in each that it is over. Raises ForgeError."""
    found = _with_key(issues.entries(), quote(key, safe=SAFE))
    for issue in found:
        # Its own text says it, because a comment could be made twice where an answer gets lost.
        issues.edit(issue.id, _with_banner(issue.text, f"> [!NOTE]\n> This is over: [log of the run]({job.url})."))
        issues.remove(issue.id)
    return found


def _with_banner(text: str, banner: str) -> str:
    marker = str(_marker(text))
    return "\n\n".join([marker, banner, text.removeprefix(marker).lstrip("\n")])


def _with_key(entries: Sequence[Entry], key: str) -> list[Entry]:
    """The entries with a key's marker, of those that this job's token wrote: anybody can copy a marker."""
    return [entry for entry in entries if entry.mine and (marker := marker_of(entry.text)) and marker.key == key]


def _marker(text: str) -> Marker:
    """The marker of a text that has one. Raises ForgeError where somebody has just edited it away."""
    marker = marker_of(text)
    if marker is None:
        raise ForgeError("Somebody edits the comment at this moment.\nRun this job again.")
    return marker
