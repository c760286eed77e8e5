"""What lands on machines: the files beside this one, and how they get there.

Nothing but this room knows a path on a machine. The files are real ones (nginx site, units, scripts), so that they can
be read and checked for themselves; only nginx's is a template.
"""

from __future__ import annotations

import base64
import hashlib
import io
import ipaddress
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import decant_host

HERE = Path(__file__).resolve().parent
HOME = ".decant"  # in the home of who logs in, where nobody else can put anything; there before `base`
INCOMING = "/var/lib/decant/incoming"
PROGRAM = "/opt/decant/bin/decant-host"
HEALTH_PATH = "/healthz"  # where a stack does not say

# What serves a release beside its own code: a change of these is a new release, gated like any other.
_PART_OF_A_RELEASE = (
    "systemd/app@.service",
    "systemd/sandbox.conf",
    "gunicorn/gunicorn_settings.py",
    "gunicorn/release_environment.py",
    "gunicorn/decant_entry.py",
    "gunicorn/gunicorn-requirements.txt",
)
_NOT_SENT = ("__init__.py", "nginx/nginx.conf.j2")


def files() -> dict[str, bytes]:
    """What goes to a machine as it is: names in the tar (this folder's, and decant_host/), and contents."""
    found = {name: path for name, path in _below(HERE, HERE).items() if name not in _NOT_SENT}
    found |= _below(Path(decant_host.__file__).parent, Path(decant_host.__file__).parents[1])
    return {name: found[name].read_bytes() for name in sorted(found)}


def _below(folder: Path, root: Path) -> dict[str, Path]:
    paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(root).as_posix(): p for p in paths}


def files_tar() -> bytes:
    """All of them as one tar, which goes to every machine."""
    return _tar(files())


def files_name(tar: bytes) -> str:
    """What that is called, here and there."""
    return f"files-{hashlib.sha256(tar).hexdigest()[:12]}.tar"


def runtime_digest() -> str:
    """A hash of what Decant itself adds to every release."""
    digest = hashlib.sha256()
    for name in _PART_OF_A_RELEASE:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """What stands before nginx: where it asks from, whether its word on http or https is taken, and how many seconds it
    takes to notice that a machine wants no more requests."""

    networks: tuple[str, ...]
    tells_scheme: bool
    noticed: int


def nginx_conf(*, machine: str, names: Iterable[str], proxy: Proxy | None, health_path: str | None) -> str:
    """nginx's whole configuration. `names` are the site's host names, its own first; others get no answer.

    `health_path` None is an app that was not asked for one (see `serving.wait_healthy`).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "nginx"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - this is nginx's language; the settings take no other characters
    )
    return environment.get_template("nginx.conf.j2").render(
        machine=machine,
        names=list(names),
        proxy=proxy,
        health_location=(health_path or HEALTH_PATH).partition("?")[0],
        front_page_is_health=health_path is None,
        # A proxy in front keeps its connections longer than nginx would, and must not find them closed (60 s is usual).
        keepalive=75 if proxy else 15,
    )


def server_name(address: str) -> str:
    """An address as it stands in a Host header."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address.lower()


def base_step(
    *,
    stack: str,
    machine: str,
    user: str,
    harden: bool,
    names: Iterable[str],
    proxy: Proxy | None,
    health_path: str | None,
) -> tuple[str, str]:
    """The `base` step as a shell line and its standard input: a script with what is this machine's alone.

    The line holds a digest of everything, so that a preview shows in a few characters that something changed. What is
    the same for all machines is copied by a step of its own (`files_tar`): the state would hold it twice for each.
    """
    names = list(names)
    common = files_tar()
    path, whole = f"{HOME}/{files_name(common)}", hashlib.sha256(common).hexdigest()
    made = {
        "nginx.conf": nginx_conf(machine=machine, names=names, proxy=proxy, health_path=health_path).encode(),
        "settings.json": json.dumps(
            {"stack": stack, "name": names[0], "noticed": proxy.noticed if proxy else 0}, sort_keys=True
        ).encode(),
    }
    digest = hashlib.sha256(repr((whole, sorted(made.items()), stack, user, harden)).encode()).hexdigest()[:12]
    words = f"{stack} {user} {str(harden).lower()} {digest}"
    put = "".join(
        f"base64 -d >\"$folder/{name}\" <<'END'\n{base64.encodebytes(content).decode()}END\n"
        for name, content in made.items()
    )
    # Under systemd-run, because a connection that breaks must not end an apt-get half-way; a second `up` waits for it.
    # Copied and then checked: whoever logged in to copy the files could still write to them.
    script = f"""set -eu
umask 077
while systemctl is-active --quiet decant-base.service; do sleep 1; done
folder=$(mktemp -d /run/decant-base.XXXXXX)
if ! cp {path} "$folder/files.tar" || ! echo "{whole}  $folder/files.tar" | sha256sum --check --status; then
    rm -rf "$folder"
    echo "$(hostname): {path} is not here or not whole. Copy it again: pulumi up --replace '**files'" >&2
    exit 1
fi
find {HOME} -name 'files-*.tar' ! -path '{path}' -delete
tar -x -f "$folder/files.tar" -C "$folder"
{put}exec systemd-run --wait --pipe --collect --quiet --unit=decant-base \\
    bash -c 'bash "$0/scripts/provision.sh" "$@"; status=$?; rm -rf "$0"; exit $status' "$folder" {words}
"""
    return f"sh -s base {digest}", script


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(files[name]), 0o644
            tar.addfile(info, io.BytesIO(files[name]))
    return buffer.getvalue()


# What keeps the machine in order, also its disk: logs are rotated. Below everything else that it has to do: the release
# is put live meanwhile.
UPDATES_STEP = (
    "systemd-run --wait --pipe --collect --quiet --nice=19"
    " /opt/decant/bin/decant-packages unattended-upgrades logrotate"
)


def incoming(tar: str) -> str:
    """Where a copied tar goes on a machine."""
    return f"{INCOMING}/{tar}"


def room_step(tar: str, size: int) -> str:
    """The `room` step's shell line. The tar's name is in it so that it runs once for each."""
    return f"{PROGRAM} room {size} # {tar}"


def stage_step(release: str) -> str:
    """The `stage` step's shell line. Under systemd-run for the same reason as `base`."""
    return f"systemd-run --wait --pipe --collect --quiet {PROGRAM} stage {release}"


def stage_input(*, tar: str, sha256: str, settings: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """A release's description, for `decant-host stage`. It holds the secrets: only ever pass it as a secret."""
    return json.dumps(
        {"tar": tar, "sha256": sha256, "settings": dict(settings), "environment": dict(environment)}, sort_keys=True
    )


def stay_input() -> str:
    """The description of a release that is on the machine already."""
    return json.dumps({"tar": None})


# Tolerant on purpose: a machine that `base` never finished on has nothing to take away.
REMOVE_STEP = (
    f"sh -c 'rm -f {HOME}/files-*.tar; rmdir {HOME} 2>/dev/null;"
    " if [ -x /opt/decant/bin/decant-remove ]; then exec /opt/decant/bin/decant-remove; fi'"
)
