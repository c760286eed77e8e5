"""The verbs on the running site, as Fabric's tasks: `fab --list` names them, `fab --help logs` explains one.

Each has a `make` target of the same name. docs/running.md shows them all.
"""

from __future__ import annotations

from fabric import Connection, task
from invoke.exceptions import Exit

from decant.verbs.__main__ import main

STACK = "the stack, dev if it is not given"
MACHINE = "one machine alone, such as web-2"
RELEASE = "a release's id"
JSON = "print JSON"


def _verb(name: str, stack: str, **options: str | int | bool) -> None:
    """Run a verb, and end with its exit status where that is not 0."""
    words = [
        f"--{option}" if value is True else f"--{option}={value}"
        for option, value in options.items()
        if value is not False
    ]
    if status := main([name, stack, *words]):
        raise Exit(code=status)


@task(help={"stack": STACK, "machine": MACHINE, "json": JSON})
def status(c: Connection, stack: str = "dev", machine: str = "", json: bool = False) -> None:
    """What runs on each machine since when, its memory, disk and certificate, and what needs attention."""
    _verb("status", stack, machine=machine, json=json)


@task(help={"stack": STACK, "machine": MACHINE, "json": JSON})
def ps(c: Connection, stack: str = "dev", machine: str = "", json: bool = False) -> None:
    """The processes of releases on all machines."""
    _verb("ps", stack, machine=machine, json=json)


@task(help={"stack": STACK, "machine": MACHINE, "json": JSON})
def releases(c: Connection, stack: str = "dev", machine: str = "", json: bool = False) -> None:
    """The releases on the machines: which is live, and which one can go back to."""
    _verb("releases", stack, machine=machine, json=json)


@task(
    help={
        "stack": STACK, "machine": MACHINE, "release": f"{RELEASE}, also of one that never went live", "json": JSON,
        "follow": "go on with the lines that come", "lines": "how many lines of each machine",
        "source": "app, or nginx's access or error log",
    }
)  # fmt: skip
def logs(
    c: Connection,
    stack: str = "dev",
    machine: str = "",
    release: str = "",
    source: str = "app",
    lines: int = 100,
    follow: bool = False,
    json: bool = False,
) -> None:
    """What the app wrote, or nginx's logs, from all machines at once."""
    _verb("logs", stack, machine=machine, release=release, source=source, lines=lines, follow=follow, json=json)


@task(positional=["command"], help={"command": "a shell line", "stack": STACK, "machine": MACHINE, "release": RELEASE})
def run(c: Connection, command: str, stack: str = "dev", machine: str = "", release: str = "") -> None:
    """Run a command in the live release, as a release command runs; the exit status is the command's."""
    _verb("run", stack, machine=machine, release=release, command=command)


@task(help={"stack": STACK, "machine": MACHINE, "release": RELEASE})
def console(c: Connection, stack: str = "dev", machine: str = "", release: str = "") -> None:
    """A flask shell in the live release."""
    _verb("console", stack, machine=machine, release=release)


@task(help={"stack": STACK, "machine": MACHINE, "json": JSON})
def env(c: Connection, stack: str = "dev", machine: str = "", json: bool = False) -> None:
    """The names of the live release's variables and what sets each; never a value."""
    _verb("env", stack, machine=machine, json=json)


@task(name="open", help={"stack": STACK})
def open_url(c: Connection, stack: str = "dev") -> None:
    """Print the site's URL, and open it in a browser where there is one."""
    _verb("open", stack)


@task(positional=["machine"], help={"machine": "its name, such as web-2", "stack": STACK})
def ssh(c: Connection, machine: str, stack: str = "dev") -> None:
    """Log in to a machine, with its pinned host key."""
    _verb("ssh", stack, machine=machine)
