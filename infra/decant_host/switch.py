"""Switching: a release gets the machine's traffic, unconfirmed at first, and is then confirmed or reverted."""

from __future__ import annotations

import contextlib
import json
import time

from decant_host.atomic import link, link_target, read_json, rename_durably, write
from decant_host.confinement import confinement_hint
from decant_host.errors import HostError
from decant_host.lease import need_lease
from decant_host.locks import staging_lock, switching_lock
from decant_host.memory import EXPENDABLE, set_oom_score
from decant_host.paths import (
    CURRENT,
    IN_ROTATION,
    PERSISTED,
    PREVIOUS,
    RELEASES,
    REVERT_LINK,
    REVERTED,
    RUN,
    health_path_file,
)
from decant_host.probe import probe
from decant_host.processes import (
    is_active,
    link_static_files,
    needs_200,
    run,
    running_releases,
    start,
    stop,
    unit,
    wait_for_backlog,
)
from decant_host.protocol import Booted, Confirmed, Reverted, Switched
from decant_host.releases import persist, prepare_confirm, prune
from decant_host.timers import set_revert_timer, stop_expire_timer, stop_revert_timers

SWITCH_PROBES = 5


def switch(release: str, attempt: str, deadline: int) -> Switched:
    """Give the release this machine's traffic. Without a confirm within `deadline` seconds, the machine goes back.

    Raises HostError when the release does not answer through nginx; the machine has then gone back already.
    """
    with switching_lock():
        need_lease(attempt)
        before = link_target(CURRENT)
        prepare_confirm(release)
        prepare_revert_link()
        set_revert_timer(deadline)
        need_lease(attempt)  # again, because a busy systemd may have taken seconds to set the timer
        if before != release:
            if before:
                link(PREVIOUS, before)
            link(CURRENT, release)
        path = health_path_file(release).read_text(encoding="utf-8")
        strict = needs_200(read_json(RELEASES / release / "release.json"))
        for _ in range(SWITCH_PROBES):
            seen = probe(path, through=None)
            if not seen.serves(release, needs_200=strict):
                go_back()
                hint = confinement_hint() if seen.status == 502 else ""
                raise HostError(
                    f"release {release} answered {seen} through nginx at {path}; went back to {link_target(CURRENT)}"
                    + hint
                )
    return {"release": release}


def extend(release: str, attempt: str, deadline: int) -> Switched:
    """Set an unconfirmed release's revert timer to `deadline` seconds from now: other machines have their turn.

    Raises HostError when the release is not live any more.
    """
    with switching_lock():
        need_lease(attempt)
        _need_live(release)
        set_revert_timer(deadline)
    return {"release": release}


def confirm(release: str, attempt: str) -> Confirmed:
    """Make an unconfirmed release the one that a boot brings back. The old one answers its requests and stops.

    Raises HostError when the release is not live any more.
    """
    with switching_lock():
        need_lease(attempt)
        _need_live(release)
        persist(release)
        set_oom_score(unit(release), 0)
        stop_revert_timers()
        IN_ROTATION.touch()
        stop_expire_timer(release)
        REVERTED.unlink(missing_ok=True)
        for other in running_releases():
            if other != release:
                set_oom_score(unit(other), EXPENDABLE)
                wait_for_backlog(other)
                stop(other, wait=False)
    with staging_lock("a confirm", patience=0) as alone:
        if alone:  # else a stage runs, and the confirm that follows it prunes
            with contextlib.suppress(OSError, ValueError):  # the confirm is done, whatever cannot be removed
                prune()
    return {"release": release}


def _need_live(release: str) -> None:
    if link_target(CURRENT) != release:
        raise HostError(f"release {release} is not live here any more: {link_target(CURRENT)} is. Run pulumi up again.")


# ------------------------------------------------------------------------------------------------ going back


def prepare_revert_link() -> None:
    """Make the link that `go_back` renames. An app can fill /run, where there would be no space for a new link."""
    REVERT_LINK.unlink(missing_ok=True)
    if release := link_target(PERSISTED):
        REVERT_LINK.symlink_to(release)


def go_back(leave_running: str | None = None) -> str | None:
    """Give the traffic to the persisted release, starting it if it does not run, and return its id.

    The unconfirmed release is stopped, unless it is `leave_running`. Call this with the switching lock held. Raises
    what the start of the persisted release raised, after everything else is done.
    """
    target, abandoned = link_target(PERSISTED), link_target(CURRENT)
    failed: Exception | None = None
    if target is None:
        CURRENT.unlink(missing_ok=True)
    elif target != abandoned:
        # A target that runs was serving a moment ago, so it gets the traffic without a check.
        if not is_active(target):
            try:
                start(target)
            except Exception as error:  # of any kind: the traffic must not stay at the unconfirmed release
                failed = error
                if abandoned:  # its files may have filled the disk
                    run("systemctl", "kill", "--signal=KILL", unit(abandoned), check=False)
                # start() stopped the release as unhealthy. It is still the confirmed one, so start it again and let
                # systemd retry.
                run("systemctl", "start", "--no-block", unit(target), check=False)
        if link_target(REVERT_LINK) == target:
            rename_durably(REVERT_LINK, CURRENT)
        else:
            link(CURRENT, target)
        if abandoned:
            with contextlib.suppress(OSError):  # pages from it may still ask for its static files; /run may be full
                link(PREVIOUS, abandoned)
    # Last, so that a timer is left to finish the work if this process is killed.
    stop_revert_timers()
    if abandoned and abandoned not in (target, leave_running):
        stop(abandoned, wait=False)
    if failed:
        raise failed
    return target


def revert(attempt: str | None, because: str) -> Reverted:
    """Go back to the persisted release. `attempt` is None for the timer, which needs no lease."""
    with switching_lock():
        if attempt:
            need_lease(attempt)
        abandoned = link_target(CURRENT)
        target = go_back()
        if abandoned != target:
            with contextlib.suppress(OSError):  # /run may be full
                write(
                    REVERTED,
                    json.dumps({"from": abandoned, "to": target, "because": because, "at": time.time()}),
                )
    return {"release": target, "reverted": abandoned}


def boot() -> Booted:
    """After a reboot: make the links in /run again and start the confirmed release."""
    with switching_lock():
        release = link_target(PERSISTED)
        if release:
            (RUN / release).mkdir(mode=0o755, parents=True, exist_ok=True)
            link_static_files(release, read_json(RELEASES / release / "release.json"))
            link(CURRENT, release)
            run("systemctl", "start", "--no-block", unit(release))
            IN_ROTATION.touch()
    return {"release": release}
