"""The shell lines and inputs of the steps that prepare a machine; Pulumi runs them over SSH."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from decant.host.manifest import files_name, files_tar
from decant.host.render import HostSite, Limits, Proxy, certificate_files, nginx_conf, settings_json, stop_timeout_conf
from decant_host.protocol import OTHER_SHELL, SHELL_GUARD

HOME = ".decant"
"""A folder in the home of the login user, where nobody else can put anything. It exists before `provision`."""

INCOMING = "/var/lib/decant/incoming"
PROGRAM = "/opt/decant/bin/decant-host"


def provision_step(
    *,
    stack: str,
    machine: str,
    user: str,
    harden: bool,
    site: HostSite,
    proxy: Proxy | None,
    health_path: str | None,
    limits: Limits,
) -> tuple[str, str]:
    """The `provision` step: its shell line, and a script with this machine's own files for its standard input.

    The line holds a digest of everything, so that a preview shows in a few characters that something changed. The
    files that all machines share are copied by a step of their own (`files_tar`): Pulumi's state holds an input twice
    for each machine.
    """
    common = files_tar()
    path, whole = f"{HOME}/{files_name(common)}", hashlib.sha256(common).hexdigest()
    own = {
        "nginx.conf": nginx_conf(machine=machine, site=site, proxy=proxy, health_path=health_path, limits=limits),
        "settings.json": settings_json(stack=stack, machine=machine, site=site, proxy=proxy, limits=limits),
        "stop-timeout.conf": stop_timeout_conf(limits),
        **certificate_files(site),
    }
    digest = hashlib.sha256(repr((whole, sorted(own.items()), stack, user, harden)).encode()).hexdigest()[:12]
    arguments = f"{stack} {user} {str(harden).lower()} {digest}"
    write_own = "".join(
        f"base64 -d >\"$folder/{name}\" <<'END'\n{base64.encodebytes(content.encode()).decode()}END\n"
        for name, content in own.items()
    )
    # Under systemd-run, because a connection that breaks must not end apt-get half-way. A second `up` waits: for the
    # lock until this shell ends, and for the unit (under both of its names) where only the connection had ended.
    # The tar is copied first and then checked, because the login user could still write to the original.
    script = f"""test "$1" = provision || echo "{OTHER_SHELL}"
test "$1" = provision || exit 97
set -eu
umask 077
exec 8>/run/decant-provision.lock
flock 8
while systemctl is-active --quiet decant-provision.service || systemctl is-active --quiet decant-base.service; do
    sleep 1
done
folder=$(mktemp -d /run/decant-provision.XXXXXX)
if ! cp {path} "$folder/files.tar" || ! echo "{whole}  $folder/files.tar" | sha256sum --check --status; then
    rm -rf "$folder"
    echo "$(hostname): {path} is missing or incomplete. Copy it again: pulumi up --replace '**files'" >&2
    exit 1
fi
find {HOME} -name 'files-*.tar' ! -path '{path}' -delete
tar -x -f "$folder/files.tar" -C "$folder"
{write_own}exec systemd-run --wait --pipe --collect --quiet --unit=decant-provision \\
    bash -c 'bash "$0/scripts/provision.sh" "$@"; status=$?; rm -rf "$0"; exit $status' "$folder" {arguments}
"""
    return f"sh -s provision {digest}", script


# Security updates and log rotation, which also keeps the disk from filling up. At the lowest priority: the release goes
# live at the same time.
UPDATES_STEP = (
    "systemd-run --wait --pipe --collect --quiet --nice=19"
    " /opt/decant/bin/decant-packages unattended-upgrades logrotate"
)


def incoming(tar: str) -> str:
    """The path of a copied tar on a machine."""
    return f"{INCOMING}/{tar}"


def check_space_step(tar: str, size: int) -> str:
    """The `check-space` step's shell line. It names the tar, so that it runs once for each."""
    return f"{PROGRAM} check-space {size} # {tar}"


def stage_step(release: str) -> str:
    """The `stage` step's shell line. It runs under systemd-run for the same reason as `provision`.

    Where memory runs out, the kernel ends it before the app that serves.
    """
    limits = "--property=MemoryMax=50% --property=OOMScoreAdjust=500"
    return f"systemd-run --wait --pipe --collect --quiet {limits} {PROGRAM} stage {release}"


def stage_input(*, tar: str, sha256: str, settings: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """A release's description, for `decant-host stage`. It holds the secrets: pass it on as a secret only."""
    description = {"tar": tar, "sha256": sha256, "settings": dict(settings), "environment": dict(environment)}
    return SHELL_GUARD + json.dumps(description, sort_keys=True)


def reuse_staged_input() -> str:
    """The description of a release that is on the machine already."""
    return SHELL_GUARD + json.dumps({"tar": None})


def remove_step(name: str) -> str:
    """The command that removes Decant from the host of this name. A host that has another name by now is left alone.

    It succeeds on a machine where `provision` never finished: there is nothing to take away.
    """
    script = (
        f"rm -f {HOME}/files-*.tar; rmdir {HOME} 2>/dev/null;"
        ' if [ -x /opt/decant/bin/decant-remove ]; then exec /opt/decant/bin/decant-remove "$1"; fi'
    )
    return f"sh -c '{script}' sh {shlex.quote(name)}"
