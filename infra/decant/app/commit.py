"""The commit of an app folder, where git knows one."""

from __future__ import annotations

from pathlib import Path

from decant.app.files import repository, run_git, source_folder
from decant.errors import AppError

CHANGED = "+changes"
"""Follows the commit where the folder has changes that are not in it."""


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out, with CHANGED if files of the app folder differ from it; None without git."""
    source = source_folder(folder)
    if repository(source) is None:
        return None
    try:
        (commit,) = run_git(source, "rev-parse", "--verify", "HEAD")
        changed = run_git(source, "status", "--porcelain", "-z", "--", ".")
    except (AppError, ValueError):  # a repository without a commit, or that git cannot read
        return None
    return commit.strip() + (CHANGED if changed else "")
