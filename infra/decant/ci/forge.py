"""A forge, such as GitHub or GitLab: what comments and issues need of it, and the job that asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of a workflow that runs this program, and what it looks at.

    `order` grows from one run to the next, so that an old run can tell that a newer one was faster. `commit` is the
    head of the pull request, `base` the commit of the target branch that it was looked at with, and `branch` that
    branch. A job that is about no pull request has no base, and its own branch. Each of the three is empty where the
    forge does not say it. `trusted` is False where the job follows a run of a fork, which may have written anything
    into the files that it handed over.
    """

    order: tuple[int, int]
    url: str
    commit: str = ""
    base: str = ""
    branch: str = ""
    trusted: bool = True


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One comment, or one open issue. `mine` says that the holder of this job's token wrote it."""

    id: int
    text: str
    mine: bool
    url: str


class Thread(Protocol):
    """The comments of a pull request, or the open issues of a repository."""

    def entries(self) -> Sequence[Entry]:
        """All of them, oldest first. Raises ForgeError."""

    def read(self, id: int) -> str:
        """Its text as it is now. Raises ForgeError, with status 404 where it is gone."""

    def create(self, text: str) -> Entry:
        """Make one. Raises UnclearWriteError where it may have been made, ForgeError otherwise."""

    def edit(self, id: int, text: str) -> None:
        """Replace its text. Raises ForgeError, with status 404 where it is gone."""

    def remove(self, id: int) -> None:
        """Delete a comment, close an issue. Raises ForgeError, with status 404 where it is gone."""


class Forge(Protocol):
    """A forge, as the holder of this job's token sees it."""

    @property
    def job(self) -> Job:
        """The job that runs this program."""

    def request_number(self) -> int:
        """The pull request (merge request) that the job is about. Raises CiError, ForgeError."""

    def comments(self, number: int) -> Thread:
        """The comments of a pull request."""

    def issues(self, title: str) -> Thread:
        """The open issues; a new one gets this title."""

    def open_requests(self, branch: str) -> Sequence[int]:
        """The numbers of the open pull requests into a branch. Raises ForgeError."""

    def branch_head(self, branch: str) -> str:
        """The commit that a branch is at. Raises ForgeError."""
