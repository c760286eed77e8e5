"""The steps of a release on this machine. Those that belong to a rollout need its lease."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from decant_host.environments import install
from decant_host.files import (
    BACK,
    CLOSING,
    CURRENT,
    OPEN,
    OPT,
    PERSISTED,
    PREVIOUS,
    RELEASES,
    RUN,
    SETTINGS,
    HostError,
    link,
    linked,
    put_in_place,
    read_json,
    staging_lock,
    switching_lock,
    write,
)
from decant_host.lease import lease_holder, need_lease
from decant_host.probe import ask
from decant_host.releases import complete_releases, confirmed_releases, is_complete, keep, make_keepable, prune, unpack
from decant_host.serving import drain, idle, start, stop, told
from decant_host.units import is_active, journal, run, running_commands, running_releases, unit

LONGEST_ROLLOUT = 2 * 3600  # seconds; a release command may take an hour
UNCLAIMED = 15 * 60  # seconds that a staged release waits for its switch
SWITCH_PROBES = 5
LONGEST_REQUEST = 40.0  # seconds; nginx waits 35 for an answer
REVERT = "decant-revert"
# What a timer starts is tried until it is done: nobody else is there to do it.
AGAIN = ("--property=Restart=on-failure", "--property=RestartSec=2s", "--property=StartLimitIntervalSec=0")


def stage(release: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Make a release ready beside the live one: unpacked, installed, started, healthy on its own socket.

    `spec` is what the coordinator sends (see `host.stage_input`); without a tar in it, the release must still be here.
    """
    started = time.monotonic()
    with staging_lock():
        if spec.get("tar"):
            unpack(release, spec)
        elif not is_complete(release):
            raise HostError(
                f"release {release} is not on this machine; here are: {', '.join(complete_releases()) or 'none'}.\n"
                "  Leave it with: pulumi config rm decant:release"
            )
        installed = install(release)
        prepared = time.monotonic()
        stop_later(release)
        health = start(release)
    return {
        "release": release,
        "machine": socket.gethostname(),
        "health": health,
        "installed": installed,
        "seconds": {"prepare": round(prepared - started, 2), "start": round(time.monotonic() - prepared, 2)},
        # The rollout takes this as an input: a stage that ran again makes it run again.
        "nonce": os.urandom(8).hex(),
    }


def stop_later(release: str) -> None:
    """Stop a release by itself if nobody switches to it: told before it starts, because whoever starts it may die."""
    if release in (linked(CURRENT), linked(PERSISTED)):
        return
    name = f"decant-unclaimed-{release}"
    run("systemctl", "stop", f"{name}.timer", f"{name}.service", check=False)
    run(
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={name}",
        f"--on-active={UNCLAIMED}",
        *AGAIN,
        str(OPT / "bin/decant-host"),
        "reap",
        release,
    )


def reap(release: str) -> dict[str, Any]:
    """The end of a staged release that nobody switched to."""
    deadline = time.monotonic() + LONGEST_ROLLOUT
    while lease_holder() and time.monotonic() < deadline:  # whoever is at work may be about to switch to it
        time.sleep(5)
    with switching_lock():
        unclaimed = release not in (linked(CURRENT), linked(PERSISTED))
        if unclaimed:
            stop(release, wait=False)  # an app that takes its time must not hold up a revert
    return {"release": release, "stopped": unclaimed}


def ensure(release: str, attempt: str) -> dict[str, Any]:
    """The release is here, running and healthy; started again where it was stopped in the meantime.

    What an attempt that died left on trial is settled first, and its timer stopped, so that neither meets this one.
    """
    with staging_lock():
        with switching_lock():
            need_lease(attempt)
            before = linked(CURRENT)
            go_back(keep=release)
        if not is_complete(release):
            here = ", ".join(complete_releases()) or "none"
            raise HostError(
                f"release {release} is not on this machine; here are: {here}.\n"
                "  Put it there again: pulumi up --replace '**-upload' --replace '**-stage'.\n"
                "  Where decant:release names it, leave it instead: pulumi config rm decant:release"
            )
        install(release)
        stop_later(release)  # anew
        health = start(release, outlast=True)
    return {
        "release": release,
        "health": health,
        "current": before,
        "persisted": linked(PERSISTED),
        "confirmed": (RELEASES / release / "confirmed").exists(),
        "release_command": bool(read_json(RELEASES / release / "release.json").get("release_command")),
        "open": OPEN.exists(),
    }


def migrate(release: str, attempt: str) -> dict[str, Any]:
    """Run the Procfile's release command, once for a release and never for one that was live before."""
    settings = read_json(RELEASES / release / "release.json")
    need_lease(attempt)
    ran = False
    was_live = (RELEASES / release / "confirmed").exists()
    if settings.get("release_command") and not was_live:
        for other in running_commands():
            if other != release:  # an attempt that dies leaves it running; one of this release is waited for
                raise HostError(
                    f"the release command of release {other} still runs here, and two at once could spoil the data.\n"
                    f"  Wait for its end, or end it on this machine: systemctl stop release@{other}."
                    " Then run pulumi up again."
                )
        name = f"release@{release}.service"
        if run("systemctl", "start", name, check=False).returncode:
            log = told(release, journal(name, since=None))
            raise HostError(f"the release command failed: {settings['release_command']}\n{log}")
        ran = True
    return {"release": release, "migrated": ran, "skipped": bool(settings.get("release_command")) and was_live}


def switch(release: str, attempt: str, deadline: int) -> dict[str, Any]:
    """Give the release this machine's traffic, on trial: without a confirm it goes back after `deadline` seconds."""
    with switching_lock():
        need_lease(attempt)
        before = linked(CURRENT)
        make_keepable(release)
        prepare_way_back()
        arm_revert(deadline)
        if before != release:
            if before:
                link(PREVIOUS, before)
            link(CURRENT, release)
        path = (RUN / release / "health").read_text(encoding="utf-8")
        for _ in range(SWITCH_PROBES):
            reply = ask(path, through=None)
            if reply.status != 200 or reply.release != release:
                go_back()
                raise HostError(
                    f"release {release} answered {reply} through nginx at {path}; went back to {linked(CURRENT)}"
                )
    return {"release": release, "previous": before}


def extend(release: str, attempt: str, deadline: int) -> dict[str, Any]:
    """Another `deadline` seconds for a release on trial: its coordinator lives and is busy with other machines."""
    with switching_lock():
        need_lease(attempt)
        if linked(CURRENT) != release:
            raise HostError(f"release {release} is not live here any more: {linked(CURRENT)} is. Run pulumi up again.")
        arm_revert(deadline)
    return {"release": release}


def prepare_way_back() -> None:
    """The link that `go_back` renames: an app can fill /run, where a new one would need room."""
    BACK.unlink(missing_ok=True)
    if release := linked(PERSISTED):
        BACK.symlink_to(release)


def arm_revert(deadline: int) -> None:
    """The dead man's switch: only `confirm` or a revert stops it, so a coordinator that dies changes nothing.

    The new timer runs before the old one stops: whoever is killed in between leaves one that goes off too early. What
    an old timer has started may be trying still, and knows nothing of this trial: it stops, too.
    """
    before = _revert_units("timer") + _revert_units("service")
    run(
        "systemd-run", "--quiet", "--collect", f"--unit={REVERT}-{os.urandom(4).hex()}", f"--on-active={deadline}",
        "--timer-property=AccuracySec=100ms", *AGAIN,
        str(OPT / "bin/decant-host"), "revert", "--because", "no confirm came",
    )  # fmt: skip
    if before:
        run("systemctl", "stop", *before, check=False)


def disarm_revert() -> None:
    """Stop the timer; a revert that has begun is waited for by the lock."""
    if timers := _revert_units("timer"):
        run("systemctl", "stop", *timers, check=False)


def _revert_units(kind: str) -> list[str]:
    listing = run("systemctl", "list-units", f"{REVERT}-*.{kind}", "--all", "--plain", "--no-legend").stdout
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def go_back(keep: str | None = None) -> str | None:
    """Traffic to the persisted release, started where it does not run; what was on trial stops, but for `keep`.

    Call with the switching lock held.
    """
    target, abandoned = linked(PERSISTED), linked(CURRENT)
    failed: Exception | None = None
    if target is None:
        CURRENT.unlink(missing_ok=True)
    elif target != abandoned:
        # It was serving a moment ago: traffic first, questions later.
        if not is_active(target):
            try:
                start(target)
            except Exception as error:  # whatever it is, traffic must not stay where it is
                failed = error
                if abandoned:  # its folder may be what leaves no room
                    run("systemctl", "kill", "--signal=KILL", unit(abandoned), check=False)
                # `start` has given it up, but it is the one to serve: from here on systemd tries.
                run("systemctl", "start", "--no-block", unit(target), check=False)
        if linked(BACK) == target:
            put_in_place(BACK, CURRENT)
        else:
            link(CURRENT, target)
        if abandoned:
            with contextlib.suppress(OSError):  # its static files are a courtesy, and /run may be full
                link(PREVIOUS, abandoned)
    disarm_revert()  # last: a timer is there to finish what is killed
    if abandoned and abandoned not in (target, keep):
        stop(abandoned, wait=False)
    if failed:
        raise failed
    return target


def revert(attempt: str | None, because: str) -> dict[str, Any]:
    """Back to the persisted release. `attempt` None is the timer, which needs no lease."""
    with switching_lock():
        if attempt:
            need_lease(attempt)
        abandoned = linked(CURRENT)
        target = go_back()
        if abandoned != target:
            with contextlib.suppress(OSError):  # /run may be full
                write(
                    RUN / "reverted.json",
                    json.dumps({"from": abandoned, "to": target, "because": because, "at": time.time()}),
                )
    return {"release": target, "reverted": abandoned}


def confirm(release: str, attempt: str) -> dict[str, Any]:
    """Keep what was switched to: from now on a boot brings it back. The old release finishes its work and stops."""
    with switching_lock():
        need_lease(attempt)
        if linked(CURRENT) != release:
            raise HostError(f"release {release} is not live here any more: {linked(CURRENT)} is. Run pulumi up again.")
        old = linked(PERSISTED)
        keep(release)
        disarm_revert()
        OPEN.touch()
        run("systemctl", "stop", f"decant-unclaimed-{release}.timer", check=False)
        (RUN / "reverted.json").unlink(missing_ok=True)
        for other in running_releases():
            if other != release:
                drain(other)
                stop(other, wait=False)
    with staging_lock(wait=False) as alone:  # whoever stages right now prunes at its own confirm
        pruned = prune() if alone else []
    return {"release": release, "previous": old, "pruned": pruned}


def boot() -> dict[str, Any]:
    """After a reboot: the links that lived in memory, and the confirmed release."""
    with switching_lock():
        release = linked(PERSISTED)
        if release:
            settings = read_json(RELEASES / release / "release.json")
            (RUN / release).mkdir(mode=0o755, parents=True, exist_ok=True)
            if settings["static"]:
                link(RUN / release / "static", str(RELEASES / release / "app" / settings["static"]))
            link(CURRENT, release)
            run("systemctl", "start", "--no-block", unit(release))
            OPEN.touch()
    return {"release": release}


# ------------------------------------------------------------------------------------------------ the balancer


def close(release: str) -> dict[str, Any]:
    """Before the live release is stopped by hand or by a shutdown: let the balancer notice first.

    The release serves meanwhile. Afterwards its health check fails because it is not there. systemd calls this after a
    crash, too, but then knows of no main process: nothing serves, and waiting would only put off the restart.
    """
    seconds = read_json(SETTINGS).get("noticed", 0) if "MAINPID" in os.environ else 0
    waits = bool(seconds) and linked(CURRENT) == release and OPEN.exists()
    if waits:
        OPEN.replace(CLOSING)
        time.sleep(seconds)
        # Back by a rename, which a full /run cannot stop. A machine that left meanwhile stays closed.
        with contextlib.suppress(FileNotFoundError):
            CLOSING.replace(OPEN)
    return {"release": release, "waited": seconds if waits else 0}


def leave() -> dict[str, Any]:
    """Out of the balancer for good: it notices, what it has sent is answered, and nothing new comes."""
    began = time.monotonic()
    CLOSING.unlink(missing_ok=True)  # of a `close` that is waiting: it must not open again what leaves
    OPEN.unlink(missing_ok=True)
    time.sleep(read_json(SETTINGS).get("noticed", 0))
    live = linked(CURRENT)
    if live:
        idle(live, patience=LONGEST_REQUEST)
    return {"left": True, "seconds": round(time.monotonic() - began, 1)}


def status() -> dict[str, Any]:
    """What is live, what would come back after a boot, what is here, and who is releasing."""
    return {
        "machine": socket.gethostname(),
        "current": linked(CURRENT),
        "persisted": linked(PERSISTED),
        "running": [r for r in running_releases() if is_active(r)],
        "releases": complete_releases(),
        "confirmed": confirmed_releases(),
        "lease": lease_holder(),
        "open": OPEN.exists(),
        "reverted": read_json(RUN / "reverted.json") or None,
    }
