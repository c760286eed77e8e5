"""The stacks of pull requests of one project, with the commands of the Makefile that make and remove them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import yaml

from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.pulumi_stack import Stack

TAG = r"decant-review:decant:pr-(\d+):([0-9a-f]{7}):(\d{8}T\d{4}Z)"


class Reviews:
    """A project with a template, whose commands are those of the Makefile."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.project = stack.project

    def run(self, verb: str, number: str = "", status: int = 0) -> str:
        """What `make review-VERB PR=number MARKDOWN=comment.md` runs; what it said."""
        words = [sys.executable, "-m", "decant.cli.review", verb]
        if verb != "reap":
            words += ["--pull-request", number, "--markdown", str(self.project / "comment.md")]
        done = subprocess.run(**self.stack.process(*words), timeout=600, check=False)
        self.stack.said.append(done.stdout)
        assert done.returncode == status, done.stdout
        return str(done.stdout)

    @property
    def comment(self) -> str:
        return (self.project / "comment.md").read_text()

    def template(self, **changes: Any) -> None:
        """Change settings of the template; names are as `machines`."""
        path = self.project / "Pulumi.review.yaml"
        content = yaml.safe_load(path.read_text())
        content["config"].update({f"decant:{name}": value for name, value in changes.items()})
        path.write_text(yaml.safe_dump(content))

    def expire(self, stack: str) -> None:
        """Let the stack's time be over, as if nobody had pushed since."""
        path = self.project / f"Pulumi.{stack}.yaml"
        content = yaml.safe_load(path.read_text())
        content["config"]["decant:review"]["expires"] = "2020-01-01T00:00Z"
        path.write_text(yaml.safe_dump(content))
        self.stack.pulumi("up", "--yes", "--skip-preview", "--stack", stack)
        path.unlink()  # as in a fresh clone

    def names(self) -> set[str]:
        """The stacks of pull requests in the state."""
        listed = json.loads(self.stack._read("stack", "ls", "--json"))
        return {one["name"] for one in listed if one["name"].startswith("pr-")}

    def lose_state(self, stack: str) -> None:
        self.stack.pulumi("stack", "rm", stack, "--force", "--yes")

    def operations(self, stack: str) -> dict[str, str]:
        return self.stack.pulumi("up", "--yes", "--skip-preview", "--stack", stack).operations


def review_tags(api: DigitalOceanApi) -> dict[str, str]:
    """The expiry of each review stack by its pull request's number, as the account's tags have it."""
    found = [re.fullmatch(TAG, name) for name in api.account.tags]
    return {one[1]: one[3] for one in found if one}


def tag_of(api: DigitalOceanApi, stack: str) -> str:
    (name,) = [name for name in api.account.tags if re.fullmatch(rf"decant-{stack}-[0-9a-f]{{7}}", name)]
    return str(name)
