"""systemd: the units of releases, what they say of themselves, and timers."""

from __future__ import annotations

import re
import subprocess

from decant_host.files import HostError


def run(*command: str, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """A program's output as text; HostError with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done


def unit(release: str) -> str:
    """The systemd unit that runs a release."""
    return f"app@{release}.service"


def unit_state(name: str) -> dict[str, str]:
    """What systemd says of a unit: ActiveState, SubState, Result, NRestarts, ..."""
    wanted = "ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainCode,ActiveEnterTimestampMonotonic"
    lines = run("systemctl", "show", name, f"--property={wanted}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_active(release: str) -> bool:
    """Is the release's gunicorn up?"""
    return unit_state(unit(release)).get("ActiveState") == "active"


def running_releases() -> list[str]:
    """Releases whose unit is loaded in any living or failed state."""
    listing = run("systemctl", "list-units", "app@*.service", "--all", "--plain", "--no-legend").stdout
    return [m[1] for m in re.finditer(r"^\s*(?:\S\s+)?app@([0-9a-f]{12})\.service", listing, re.MULTILINE)]


def running_commands() -> list[str]:
    """Releases whose release command runs right now."""
    listing = run(
        "systemctl", "list-units", "release@*.service", "--state=activating,deactivating", "--plain", "--no-legend"
    ).stdout
    return re.findall(r"release@([0-9a-f]{12})\.service", listing)


def journal(name: str, *, since: float | None) -> str:
    """The last lines that a unit wrote, as it wrote them: mask secrets in them before anything else.

    `since` None is its last run, whoever began that.
    """
    done = run(
        "journalctl",
        "--unit",
        name,
        *(["--invocation=0"] if since is None else [f"--since=@{since:.3f}"]),
        "--output=cat",
        "--no-pager",
        "--lines=40",
        check=False,
    )
    return done.stdout.strip()
