"""Staging: a release is unpacked, installed and started beside the live one, and stopped if no rollout wants it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from decant_host.atomic import link_target, read_json
from decant_host.certificate import has_valid_certificate
from decant_host.debian_packages import install_debian_packages
from decant_host.draining import finish_draining, limit_draining
from decant_host.environments import install
from decant_host.errors import HostError
from decant_host.lease import lease_holder, need_lease
from decant_host.locks import staging_holder, staging_lock, switching_lock
from decant_host.masking import masked_log
from decant_host.memory import small_memory_warning
from decant_host.paths import CURRENT, IN_ROTATION, PERSISTED, RELEASES
from decant_host.processes import (
    check_after_migration,
    explain_failure,
    journal,
    needs_200,
    run,
    running_release_commands,
    start,
    stop,
)
from decant_host.protocol import LONGEST_ROLLOUT, STAGING_PATIENCE, Expired, Migrated, Prepared, Staged
from decant_host.releases import complete_releases, is_complete, unpack
from decant_host.switch import go_back
from decant_host.timers import set_expire_timer


def stage(release: str, spec: Mapping[str, Any]) -> Staged:
    """Unpack, install and start a release beside the live one, and wait until it is healthy on its own socket.

    `spec` is the JSON that the `stage` step sends (see decant.host). Without a tar in it, the release must still be on
    this machine. Raises HostError with the reason when the release is missing or does not become healthy.
    """
    started = time.monotonic()
    if warning := small_memory_warning():
        print(warning, file=sys.stderr, flush=True)
    with staging_lock(f"release {release}"):
        if spec.get("tar"):
            unpack(release, spec)
        elif not is_complete(release):
            raise HostError(
                f"release {release} is not on this machine; here are: {', '.join(complete_releases()) or 'none'}.\n"
                "  Leave it with: pulumi config rm decant:release"
            )
        install_debian_packages(release)
        installed = install(release)
        prepared = time.monotonic()
        set_expire_timer(release)
        _make_way(release)
        health = start(release)
    return {
        "release": release,
        "machine": socket.gethostname(),
        "health": health,
        "installed": installed,
        "seconds": {"prepare": round(prepared - started, 2), "start": round(time.monotonic() - prepared, 2)},
        # The rollout takes this output as an input, so a stage that ran again makes the rollout run again.
        "nonce": os.urandom(8).hex(),
    }


def _make_way(release: str) -> None:
    """Before a release starts: end what would cost memory beside it, or what remains of its own last run."""
    limit_draining(release)
    finish_draining(release)


def expire(release: str) -> Expired:
    """Stop a staged release that no rollout has switched to; not while a rollout runs, which may be about to."""
    deadline = time.monotonic() + LONGEST_ROLLOUT
    while lease_holder() and time.monotonic() < deadline:
        time.sleep(5)
    with switching_lock():
        unclaimed = release not in (link_target(CURRENT), link_target(PERSISTED))
        if unclaimed:
            stop(release, wait=False)  # an app that stops slowly must not hold up a revert
    return {"release": release, "stopped": unclaimed}


def prepare(release: str, attempt: str) -> Prepared:
    """Make sure that the release is here, runs and is healthy; start it again where it was stopped meanwhile.

    It begins with a revert of what a dead attempt left unconfirmed, and stops that attempt's timer, which must not fire
    during this attempt. Raises HostError.
    """
    with staging_lock(f"release {release}", patience=STAGING_PATIENCE) as alone:
        if not alone:
            raise HostError(
                f"{staging_holder()}, and did not end within {STAGING_PATIENCE:.0f} s.\n"
                "  Wait for its end, then run pulumi up again."
            )
        with switching_lock():
            need_lease(attempt)
            before = link_target(CURRENT)
            go_back(leave_running=release)
        if not is_complete(release):
            here = ", ".join(complete_releases()) or "none"
            raise HostError(
                f"release {release} is not on this machine; here are: {here}.\n"
                "  Put it there again: pulumi up --replace '**-upload' --replace '**-stage'.\n"
                "  Where decant:release names it, leave it instead: pulumi config rm decant:release"
            )
        install(release)
        set_expire_timer(release)  # from now
        _make_way(release)
        health = start(release, outlast=True)
    settings = read_json(RELEASES / release / "release.json")
    return {
        "release": release,
        "health": health,
        "needs_200": needs_200(settings),
        "current": before,
        "persisted": link_target(PERSISTED),
        "confirmed": (RELEASES / release / "confirmed").exists(),
        "release_command": bool(settings.get("release_command")),
        "in_rotation": IN_ROTATION.exists(),
        "https": has_valid_certificate(),
    }


def migrate(release: str, attempt: str) -> Migrated:
    """Run the Procfile's release command, once for a release, and never for one that was live before.

    Raises HostError when the command fails, when the app is not healthy after it, or when another release's command
    still runs.
    """
    settings = read_json(RELEASES / release / "release.json")
    need_lease(attempt)
    ran = False
    was_live = (RELEASES / release / "confirmed").exists()
    if settings.get("release_command") and not was_live:
        for other in running_release_commands():
            # A dead attempt leaves its command running. systemd waits for one of this same release.
            if other != release:
                raise HostError(
                    f"the release command of release {other} still runs here, and two at once could spoil the data.\n"
                    f"  Wait for its end, or end it on this machine: systemctl stop release@{other}."
                    " Then run pulumi up again."
                )
        name = f"release@{release}.service"
        began = time.monotonic()
        if run("systemctl", "start", name, check=False).returncode:
            log = masked_log(release, journal(name, since=began))
            hint = explain_failure(log, settings, release, otherwise="")
            reason = f"{settings['release_command']}: {hint}" if hint else settings["release_command"]
            raise HostError(f"the release command failed: {reason}\n{log}")
        ran = True
        check_after_migration(release, settings)
    return {"release": release, "migrated": ran, "skipped": bool(settings.get("release_command")) and was_live}
