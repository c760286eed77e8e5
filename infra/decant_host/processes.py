"""The processes of releases: their systemd units are started, checked until they are healthy, and stopped."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

from decant_host.atomic import link, link_target, read_json, write
from decant_host.error_hints import DEFAULTS, NOT_SERVING, find_hint, requirements_file
from decant_host.errors import HostError
from decant_host.masking import mask, masked_log
from decant_host.paths import CURRENT, RELEASES, RUN, SETTINGS, health_path_file, socket_of
from decant_host.probe import ProbeResult, probe
from decant_host.protocol import RELEASE_ID

HEALTH_PATH = "/healthz"
"""The path that is tried where the stack sets none."""

HEALTHY_IN_A_ROW = 3
"""Healthy answers in a row after which a release counts as healthy."""

FIRST_SECONDS = 2.5
"""Seconds that a new release has to survive before it gets traffic."""


def run(*command: str, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return its output as text. Raises HostError with the end of its output when it fails."""
    # An app may write any bytes to the journal.
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout, check=False
    )
    if check and done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done


# ------------------------------------------------------------------------------------------------ systemd's units


def unit(release: str) -> str:
    """The name of the systemd unit that runs a release."""
    return f"app@{release}.service"


def unit_state(name: str) -> dict[str, str]:
    """Properties of a unit by name: ActiveState, SubState, Result, NRestarts, ..."""
    wanted = "ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainCode,ActiveEnterTimestampMonotonic"
    wanted += ",ActiveExitTimestampMonotonic"
    lines = run("systemctl", "show", name, f"--property={wanted}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_active(release: str) -> bool:
    """Whether the release's gunicorn is up."""
    return unit_state(unit(release)).get("ActiveState") == "active"


def running_releases() -> list[str]:
    """Releases whose unit systemd has loaded, in whatever state."""
    listing = run("systemctl", "list-units", "app@*.service", "--all", "--plain", "--no-legend").stdout
    return [m[1] for m in re.finditer(rf"^\s*(?:\S\s+)?app@({RELEASE_ID})\.service", listing, re.MULTILINE)]


def running_release_commands() -> list[str]:
    """Releases whose release command runs right now."""
    listing = run(
        "systemctl", "list-units", "release@*.service", "--state=activating,deactivating", "--plain", "--no-legend"
    ).stdout
    return re.findall(rf"release@({RELEASE_ID})\.service", listing)


def journal(name: str, *, since: float) -> str:
    """The last lines that a unit wrote since a time of this machine's monotonic clock, which nobody sets back.

    They may contain secrets: pass them through `masking` before anything else.
    """
    what = ("--unit", name, "--boot", "--output=json", "--output-fields=MESSAGE", "--all", "--lines=40")
    texts = []
    # At ends of lines alone: `splitlines` would also cut at characters such as U+2028, which an app may log.
    for line in run("journalctl", *what, "--no-pager", check=False).stdout.split("\n"):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # the last line of a journalctl that was ended
            entry = json.loads(line)
            if int(entry["__MONOTONIC_TIMESTAMP"]) >= since * 1e6:
                texts.append(message_text(entry.get("MESSAGE")))
    return "\n".join(texts).strip()


def message_text(message: object) -> str:
    """The text of a MESSAGE in the journal's JSON (journalctl(1), `json`), of which an app chooses the shape.

    One that is not UTF-8 is a list of bytes, and one that an entry has several times is a list of all of them.
    """
    if isinstance(message, str):
        return message
    if not isinstance(message, list):
        return ""
    if all(isinstance(part, int) and 0 <= part < 256 for part in message):
        return bytes(message).decode(errors="replace")
    return "\n".join(filter(None, map(message_text, message)))


# ------------------------------------------------------------------------------------------------ start and stop


def start(release: str, *, outlast: bool = False) -> str:
    """Start the release beside the live one and wait until it is healthy; the health path on which it answered.

    With `outlast`, a release that was never live has to survive its first seconds, too. Raises HostError with the
    reason when it does not become healthy; it is then stopped again, and nothing else changes.
    """
    settings = read_json(RELEASES / release / "release.json")
    runtime = RUN / release
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    link_static_files(release, settings)
    began = time.monotonic()
    was_active = is_active(release)
    # A confirmed release may have been restarted long ago, so only restarts from now on count. A new one must have
    # none at all.
    proven = (RELEASES / release / "confirmed").exists()
    restarts = unit_state(unit(release))["NRestarts"] if was_active and proven else "0"
    if not was_active:
        run("systemctl", "reset-failed", unit(release), check=False)
        run("systemctl", "start", "--no-block", unit(release))
    with _ended_on_failure(release):
        try:
            path = wait_until_healthy(release, settings, restarts, before_migration=awaits_migration(release, settings))
            if outlast and not proven:
                wait_out_first_seconds(release)
        except HostError as error:
            raise _not_serving(release, settings, error, since=began if not was_active else began - 5) from None
    write(health_path_file(release), path)
    return path


@contextlib.contextmanager
def _ended_on_failure(release: str) -> Iterator[None]:
    """End the release where the block fails, in whatever way, unless it is live."""
    try:
        yield
    except BaseException:
        if release != link_target(CURRENT):
            # The release has no visitors, so it need not finish any request.
            run("systemctl", "kill", "--signal=KILL", unit(release), check=False)
            stop(release)
        raise


def link_static_files(release: str, settings: Mapping[str, Any]) -> None:
    """Point /run/decant/ID/static at the release's static files, if any. An existing link needs no disk space."""
    if settings["static"]:
        static, target = RUN / release / "static", RELEASES / release / "app" / settings["static"]
        if not static.is_symlink() or static.readlink() != target:
            link(static, str(target))


def needs_200(settings: Mapping[str, Any]) -> bool:
    """Whether 200 alone is a healthy answer: of an app whose stack sets no health path, each one below 500 is."""
    return bool(settings["health_path"])


def awaits_migration(release: str, settings: Mapping[str, Any]) -> bool:
    """Whether the release command of a rollout is still to come: until then, the app may have no tables to read."""
    return bool(settings.get("release_command")) and not (RELEASES / release / "confirmed").exists()


def wait_until_healthy(
    release: str, settings: Mapping[str, Any], restarts: str, *, before_migration: bool = False
) -> str:
    """Wait until the release answers its health check HEALTHY_IN_A_ROW times; the path on which it does.

    Without a health path of the stack's own, that is HEALTH_PATH where it answers 200, else the front page. `restarts`
    is the number of restarts that its unit has now. `before_migration`, an answer of 500 or more counts, too: `migrate`
    checks again. Raises HostError when the release ends, when its answer will not change (404, 401, 403 at the stack's
    path), or after its health time-out.
    """
    timeout = float(settings["health_timeout"])
    deadline = time.monotonic() + timeout
    strict = needs_200(settings)
    path = settings["health_path"] or HEALTH_PATH
    good, last = 0, ProbeResult(status=0, release="", body="it did not start")
    while good < HEALTHY_IN_A_ROW:
        state = unit_state(unit(release))
        if state["ActiveState"] == "failed" or state["SubState"] == "auto-restart" or state["NRestarts"] != restarts:
            raise HostError(f"it stopped by itself ({_how_it_ended(state)})")
        if time.monotonic() > deadline:
            raise HostError(f"not healthy within {timeout:.0f} s at {path}: {last}")
        if not socket_of(release).exists():
            time.sleep(0.05)
            continue
        last = probe(path, through=socket_of(release), timeout=min(5.0, timeout))
        # gunicorn itself answers for an app that raises, without the release's id; the socket is the release's own.
        failing = before_migration and last.status >= 500
        if failing or last.serves(release, needs_200=strict or path == HEALTH_PATH):
            good += 1
            continue
        good = 0
        if not strict and path == HEALTH_PATH and last.serves(release, needs_200=False):
            path = "/"  # it has no health path, but perhaps a login for all paths that it does not know
        elif strict and last.status in (404, 401, 403):
            raise HostError(f"its health path {path} answered {last}")
        else:
            time.sleep(0.1)
    return path


def check_after_migration(release: str, settings: Mapping[str, Any]) -> None:
    """Wait until the release, which runs, is healthy without any allowance. Raises HostError with the reason."""
    began = time.monotonic()
    try:
        path = wait_until_healthy(release, settings, unit_state(unit(release))["NRestarts"])
    except HostError as error:
        raise _not_serving(release, settings, error, since=began - 5, when=" after its release command") from None
    write(health_path_file(release), path)


def _not_serving(
    release: str, settings: Mapping[str, Any], error: HostError, *, since: float, when: str = ""
) -> HostError:
    """The error of a release that does not serve: the hint first, then the reason and the log since a time."""
    masked = f"{mask(release, str(error))}\n{masked_log(release, journal(unit(release), since=since))}"
    return HostError(f"release {release} does not serve{when}: {explain_failure(masked, settings, release)}\n{masked}")


def wait_out_first_seconds(release: str) -> None:
    """Wait until the release has run for FIRST_SECONDS: some releases crash only after their start.

    Raises HostError when it ended, or one of its workers did.
    """
    while True:
        state = unit_state(unit(release))
        if state["ActiveState"] != "active" or state["NRestarts"] != "0":
            raise HostError(f"it stopped by itself soon after its start ({_how_it_ended(state)})")
        # gunicorn replaces a worker that ends, and systemd does not notice: see gunicorn_settings.child_exit.
        if socket_of(release).with_name("worker-exited").exists():
            raise HostError("a worker of it stopped by itself soon after its start")
        age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(state["ActiveEnterTimestampMonotonic"]) / 1e6
        if age >= FIRST_SECONDS:
            return
        time.sleep(min(FIRST_SECONDS - age, 0.2))


def _how_it_ended(state: Mapping[str, str]) -> str:
    """How systemd says that a unit's last process ended. It forgets that when it starts the next one."""
    if state["Result"] == "success" and state["NRestarts"] != "0":
        return "systemd has started it again since"
    return f"{state['Result']}, exit status {state['ExecMainStatus']}"


def explain_failure(
    text: str, settings: Mapping[str, Any], release: str, *, otherwise: str = "the reason is below"
) -> str:
    """The hint for a release that does not serve: the likely cause, and what to do."""
    asked = re.search(r"at (/\S*): |health path (/\S*) answered", text)
    return find_hint(
        NOT_SERVING,
        text,
        otherwise=otherwise,
        entry=settings["entry"],
        path=next(filter(None, asked.groups())) if asked else settings["health_path"] or HEALTH_PATH,
        timeout=settings["health_timeout"],
        name=read_json(SETTINGS).get("name"),
        python=settings.get("python") or DEFAULTS["python"],
        persistent=settings.get("next_persistent", 0),
        app=RELEASES / release / "app",
        requirements=requirements_file(settings),
        table_line=settings.get("table_line"),
    )


def stop(release: str, *, wait: bool = True) -> None:
    """Stop a release, which answers the requests that it has accepted. Its static files stay reachable."""
    run("systemctl", "stop", *([] if wait else ["--no-block"]), unit(release), check=False)


def wait_for_requests_in_flight(release: str, timeout: float) -> None:
    """Wait until the release has answered all requests, at most `timeout` seconds. Each request is one connection."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not run("ss", "-xH", "state", "established", "src", str(socket_of(release)), check=False).stdout.strip():
            return
        time.sleep(0.2)


def wait_for_backlog(release: str, timeout: float = 5.0) -> None:
    """Wait until no connection waits in the queue of the release's socket, at most `timeout` seconds.

    gunicorn's sync workers drop that queue when they stop.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and socket_of(release).exists():
        # Netid, State, Recv-Q, Send-Q, ...: of a listening socket, Recv-Q is the length of the queue. See ss(8).
        columns = run("ss", "-xlH", "src", str(socket_of(release)), check=False).stdout.split()
        if len(columns) < 3 or columns[2] == "0":
            return
        time.sleep(0.05)
