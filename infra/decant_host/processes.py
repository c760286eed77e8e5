"""Start a release and believe in it only when it answers; say why when it does not."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

from decant_host.causes import NOT_SERVING, name_cause
from decant_host.files import CURRENT, RELEASES, RUN, SETTINGS, HostError, link, linked, read_json, write
from decant_host.probe import Reply, ask, socket_of
from decant_host.units import is_active, journal, run, unit, unit_state

PROBES = 3  # healthy answers in a row before a release is believed
FIRST_SECONDS = 2.5  # that a new release has to survive before it gets traffic


def start(release: str, *, outlast: bool = False) -> str:
    """Start the release beside whatever runs and wait until it is healthy; the health path it answered on.

    `outlast`: one that never was live has to survive its first seconds, too. A release that does not get there is
    stopped again, and HostError says why. Nothing else is touched.
    """
    settings = read_json(RELEASES / release / "release.json")
    runtime = RUN / release
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    if settings["static"]:
        static = RELEASES / release / "app" / settings["static"]
        if not (runtime / "static").is_symlink() or (runtime / "static").readlink() != static:  # /run may be full
            link(runtime / "static", str(static))
    began = time.time()
    was_active = is_active(release)
    # One that has run for weeks may have been restarted before: only what happens from now on counts. One that never
    # was live has no such excuse.
    proven = (RELEASES / release / "confirmed").exists()
    restarts = unit_state(unit(release))["NRestarts"] if was_active and proven else "0"
    if not was_active:
        run("systemctl", "reset-failed", unit(release), check=False)
        run("systemctl", "start", "--no-block", unit(release))
    try:
        path = wait_healthy(release, settings, restarts)
        if outlast and not proven:
            wait_out(release, FIRST_SECONDS)
    except HostError as error:
        log = journal(unit(release), since=began if not was_active else began - 5)
        masked = f"{mask(release, str(error))}\n{told(release, log)}"
        if release != linked(CURRENT):
            # Nobody but our own probe talks to it: it need not finish the answer that it could not give.
            run("systemctl", "kill", "--signal=KILL", unit(release), check=False)
            stop(release)
        cause = explain_start(masked, settings)
        raise HostError(f"release {release} does not serve: {cause}\n{masked}") from None
    write(runtime / "health", path)
    return path


def wait_healthy(release: str, settings: Mapping[str, Any], restarts: str) -> str:
    """Until the release answered its health path PROBES times in a row. Raises HostError at the first hopeless sign."""
    patience = float(settings["health_timeout"])
    deadline = time.monotonic() + patience
    path, fallback = settings["health_path"] or "/healthz", not settings["health_path"]
    good, last = 0, Reply(status=0, release="", body="it did not start")
    while good < PROBES:
        state = unit_state(unit(release))
        if state["ActiveState"] == "failed" or state["SubState"] == "auto-restart" or state["NRestarts"] != restarts:
            raise HostError(f"it stopped by itself ({state['Result']}, exit status {state['ExecMainStatus']})")
        if time.monotonic() > deadline:
            raise HostError(f"not healthy within {patience:.0f} s at {path}: {last}")
        if not socket_of(release).exists():
            time.sleep(0.05)
            continue
        last = ask(path, through=socket_of(release), timeout=min(5.0, patience))
        if last.status == 200 and last.release == release:
            good += 1
            continue
        good = 0
        if last.status == 404 and fallback and path != "/":
            path = "/"  # an app without a health path of its own is judged by its first page
        elif last.status in (404, 401, 403):
            raise HostError(f"its health path {path} answered {last}")
        else:
            time.sleep(0.1)
    return path


def wait_out(release: str, seconds: float) -> None:
    """Until the release has run for so long, with every worker: many a crash comes after the start. Else HostError."""
    while True:
        state = unit_state(unit(release))
        if state["ActiveState"] != "active" or state["NRestarts"] != "0":
            raise HostError(
                f"it stopped by itself soon after its start ({state['Result']}, exit status {state['ExecMainStatus']})"
            )
        # gunicorn replaces a worker that ends, and systemd sees nothing of it (see gunicorn_settings.child_exit).
        if socket_of(release).with_name("worker-exited").exists():
            raise HostError("a worker of it stopped by itself soon after its start")
        left = seconds - (time.clock_gettime(time.CLOCK_MONOTONIC) - int(state["ActiveEnterTimestampMonotonic"]) / 1e6)
        if left <= 0:
            return
        time.sleep(min(left, 0.2))


def explain_start(text: str, settings: Mapping[str, Any]) -> str:
    """A named cause for a release that does not serve, with what to do."""
    return name_cause(
        NOT_SERVING,
        text,
        otherwise="the reason is below",
        entry=settings["entry"],
        path=settings["health_path"] or "/healthz",
        timeout=settings["health_timeout"],
        name=read_json(SETTINGS).get("name"),
    )


def mask(release: str, text: str) -> str:
    """The text without any value of the release's environment that was given as a secret, in whatever form it shows."""
    environment = read_json(RELEASES / release / "environment.json")
    names = read_json(RELEASES / release / "release.json").get("secret_names", [])
    shown = {form: name for name in names for form in _forms(environment.get(name, ""))}
    # The longest first: one secret may begin with another.
    for form in sorted(shown, key=len, reverse=True):
        text = text.replace(form, f"[{shown[form]}]")
    return text


def _forms(value: str) -> set[str]:
    """How a value may appear in a log: as it is, escaped by this or that, line by line, the password of a URL alone."""
    import html
    from urllib.parse import quote, urlsplit

    forms = {value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {quote(value, safe=""), quote(value), html.escape(value)}
    forms |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 8}
    with contextlib.suppress(ValueError):
        forms.add(urlsplit(value).password or "")
    return {form for form in forms if len(form) >= 4}


def told(release: str, text: str) -> str:
    """A log for an error: masked, then cut (Pulumi's command provider hangs on a line over 64 KiB), indented."""
    return "\n".join("    " + line[:1000] for line in mask(release, text).splitlines())


def stop(release: str, *, wait: bool = True) -> None:
    """Stop a release: it answers what it has taken in. Its socket goes, its static files stay reachable."""
    run("systemctl", "stop", *([] if wait else ["--no-block"]), unit(release), check=False)


def idle(release: str, patience: float) -> None:
    """Wait until the release has answered all that it was asked; every request is one connection."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not run("ss", "-xH", "state", "established", "src", str(socket_of(release)), check=False).stdout.strip():
            return
        time.sleep(0.2)


def drain(release: str, patience: float = 5.0) -> None:
    """Wait until nobody queues at the old release's socket: sync workers drop their queue when told to stop."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and socket_of(release).exists():
        listing = run("ss", "-xlH", "src", str(socket_of(release)), check=False).stdout.split()
        if len(listing) < 3 or listing[2] == "0":
            return
        time.sleep(0.05)
