"""Which forge runs this job, by the variables that its runner sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from decant.ci.forge import Forge
from decant.ci.github import GitHub
from decant.ci.gitlab import GitLab
from decant.errors import CiError
from decant.settings.project import PROJECT

NOWHERE = """This command runs in a workflow of GitHub or GitLab: neither GITHUB_ACTIONS nor GITLAB_CI is set here.
On your own computer, write the text to a file and look at it: make preview STACK=name MARKDOWN=preview.md"""


def current_forge(environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> Forge:
    """The forge whose runner has started this program. Raises CiError."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return GitHub(environ, project=PROJECT, sleep=sleep)
    if environ.get("GITLAB_CI") == "true":
        return GitLab(environ, sleep=sleep)
    raise CiError(NOWHERE)
