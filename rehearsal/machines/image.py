"""The disk images that throwaway machines start from, and the programs that this computer needs for them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rehearsal.errors import RehearsalError
from rehearsal.machines.seed import apt_proxy, extra_certificates
from rehearsal.this_host import STATE, Say, kernel, last_lines, locked

Flavour = Literal["cloud", "bare", "bookworm", "balancer", "authority"]

CACHE = Path("/var/cache/decant-rehearsal")
MAX_AGE_DAYS = 30

# The packages of a small existing server. A cloud's Debian image has them, too.
_SERVER = ["systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo", "ca-certificates", "iproute2", "netbase"]
# More packages of Debian's own cloud images: cloud-init, and those that a machine would need time to install.
_CLOUD = ["cloud-init", "nftables", "unattended-upgrades"]
_NO_LOGIN = ["systemd-sysv", "dbus", "ca-certificates", "iproute2", "netbase"]
_PACKAGES: dict[Flavour, list[str]] = {
    "cloud": [*_SERVER, *_CLOUD],
    "bare": _SERVER,
    "bookworm": _SERVER,
    "balancer": [*_NO_LOGIN, "haproxy", "socat"],
    "authority": [*_NO_LOGIN, "pebble", "dnsmasq", "nginx-light"],
}

_SUITES: dict[Flavour, tuple[str, int]] = {"bookworm": ("bookworm", 12)}
"""The suite and version of Debian of the images that are not of Debian 13."""

_CUSTOMISE = r"""
set -eu
cd "$1"
rm -f etc/apt/apt.conf.d/99mmdebstrap # a proxy, which may have a password: each machine gets it when it is made
# Host keys made at build time would be the same on every machine, and known to all who have the image.
rm -f etc/ssh/ssh_host_*
# A set id, written before each boot, makes the boot an ordinary one: sshd then makes no host keys of its own, so a
# machine whose first-boot data brings none cannot be logged in to at all.
: > etc/machine-id
chroot . systemctl --quiet enable systemd-networkd.service
# There is no console to log in at.
chroot . systemctl --quiet mask console-getty.service
if [ -d etc/cloud ]; then
    # The network is set up like the rest of the computer, not by cloud-init; there is one place to look for data.
    printf 'datasource_list: [NoCloud]\nnetwork: {config: disabled}\n' > etc/cloud/cloud.cfg.d/99-rehearsal.cfg
fi
if [ -d /usr/local/share/ca-certificates ]; then
    cp -RL /usr/local/share/ca-certificates usr/local/share/
fi
chroot . update-ca-certificates >/dev/null 2>&1
# Caches fit what is installed: the first boot need not make them again (systemd-update-done.service(8)).
touch -r usr etc/.updated var/.updated
"""

_NEEDED = {  # program: the Debian package that brings it
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """A thing that this computer lacks for a rehearsal, and the command that installs it."""

    what: str
    command: str
    package: str | None = None


def missing_needs() -> list[Need]:
    """Return what this computer lacks to run throwaway machines."""
    if platform.system() != "Linux":
        return [
            Need(
                what=f"Linux (this is {platform.system()})",
                command="run it on a Linux computer, or in a Linux virtual machine",
            )
        ]
    needs = []
    if kernel() < (5, 14):
        old = platform.release()
        needs.append(Need(what=f"Linux 5.14 or newer (this is {old})", command="sudo apt-get dist-upgrade"))
    if os.geteuid() != 0:
        needs.append(Need(what="root (to mount, to make network bridges)", command="sudo make try"))
    # /usr/sbin and /sbin are often not on the PATH of an ordinary user.
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    packages = [package for program, package in _NEEDED.items() if shutil.which(program, path=path) is None]
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        packages.append("debian-archive-keyring")  # signs Debian's packages; not on Ubuntu
    needs.extend(
        Need(what=f"the package {package}", command=f"sudo apt-get install {package}", package=package)
        for package in packages
    )
    return needs


def install_needs(say: Say) -> None:
    """Install the missing packages with apt-get, as root on Debian or Ubuntu.

    Raises:
        RehearsalError: Something is missing that apt-get cannot install, or apt-get failed.
    """
    needs = missing_needs()
    packages = [need.package for need in needs if need.package]
    others = [need for need in needs if not need.package]
    if others:
        lines = [f"{need.what}: {need.command}" for need in needs]
        raise RehearsalError("a rehearsal needs\n  " + "\n  ".join(lines))
    if packages:
        install_packages(packages, say)


def install_packages(packages: Sequence[str], say: Say) -> None:
    """Install packages with apt-get, as root on Debian or Ubuntu.

    Raises:
        RehearsalError: There is no apt-get, or it failed.
    """
    command = "apt-get install --no-install-recommends " + " ".join(packages)
    if shutil.which("apt-get") is None:
        raise RehearsalError(
            f"a rehearsal needs {', '.join(packages)} (their names in Debian), and this computer has no apt-get: "
            "install the packages that have these programs here"
        )
    say(f"installing {', '.join(packages)}")
    quiet = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*quiet, "install", "--yes", "--no-install-recommends", *packages]
    for argv in (install, [*quiet, "update"], install):  # the second try is for missing or old lists of packages
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        if argv is install and done.returncode == 0:
            return
    raise RehearsalError(f"`{command}` failed:\n{last_lines(done.stderr or done.stdout)}")


def base_image(flavour: Flavour, say: Say) -> Path:
    """Return the folder with Debian for `flavour`. It is built now, unless there is one of the last 30 days.

    `cloud` has the packages of a cloud's image (cloud-init, sshd; no keys, no lists of packages). `bare` is a small
    server without Python, and so is `bookworm`, with Debian 12. `balancer` has HAProxy and no login. `authority` has an
    ACME server and a DNS server, and no login. Images hold no secrets. Machines are overlays on them and never write to
    them.

    Raises:
        RehearsalError: There is no such flavour, or the image cannot be built.
    """
    if flavour not in get_args(Flavour):
        raise RehearsalError(f"there is no image {flavour!r}: only {', '.join(get_args(Flavour))}")
    suite, version = _suite(flavour)
    sources = _debian_sources(suite)
    image = CACHE / f"{flavour}-{_digest(flavour, sources)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(f"image-{flavour}"):
        if image.exists() and (not _is_stale(image) or _in_use(image)):
            return image
        say(f"building the {flavour} Debian {version} image, once (about a minute)")
        started = time.monotonic()
        _build(flavour, sources, image)
        say(f"built it in {time.monotonic() - started:.0f} s: {image}")
        for other in CACHE.glob(
            f"{flavour}-*"
        ):  # built from older packages or mirrors, or left by a build that was killed
            if other != image and not _in_use(other):
                shutil.rmtree(other)
    return image


def _build(flavour: Flavour, sources: list[str], image: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{flavour}-building-", dir=CACHE, ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "root"
        # In a mount namespace of its own, so that its mounts end with it, also when it is killed.
        argv = ["unshare", "--mount", "mmdebstrap", "--quiet", "--variant=minbase"]
        argv += [f"--include={','.join(_PACKAGES[flavour])}", f"--customize-hook={_CUSTOMISE}"]
        if proxy := apt_proxy():  # mmdebstrap does not read apt's settings on this computer
            argv.append(f"--aptopt={proxy}")
        argv += [_suite(flavour)[0], str(root), *sources]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, start_new_session=True)
        if done.returncode != 0:
            raise RehearsalError(
                f"building the {flavour} image from {_mirror(sources)} failed:\n{last_lines(done.stderr)}\n"
                "Check that this computer reaches that mirror: apt-get update"
            )
        if image.exists():
            shutil.rmtree(image)
        root.rename(image)
        os.utime(image)  # its age counts from now


def _suite(flavour: Flavour) -> tuple[str, int]:
    return _SUITES.get(flavour, ("trixie", 13))


def _debian_sources(suite: str) -> list[str]:
    """Return the sources of a suite of Debian at the mirrors that apt uses on this computer.

    There are none where apt does not name both mirrors: mmdebstrap then takes its own.
    """
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.*"))]
    lines = [line for file in files if file.is_file() for line in file.read_text(errors="replace").splitlines()]
    fields = [word for line in lines if not line.lstrip().startswith("#") for word in line.split()]

    def mirror(last: str) -> str | None:
        # An address with a password is left out, because it would end up in the image.
        good = [word for word in fields if re.fullmatch(rf"https?://[^@]+/{last}/?", word)]
        return good[0].rstrip("/") if good else None

    main, security = mirror("debian"), mirror("debian-security")
    if main is None or security is None:
        return []
    return [
        f"deb {main} {suite} main",
        f"deb {main} {suite}-updates main",
        f"deb {security} {suite}-security main",
    ]


def _mirror(sources: list[str]) -> str:
    """Return where the packages come from, for people."""
    return sources[0].split()[1] if sources else "Debian's own mirror"


def _digest(flavour: Flavour, sources: list[str]) -> str:
    parts = [*_PACKAGES[flavour], *sources, _CUSTOMISE, *(file.read_text() for file in extra_certificates())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _is_stale(image: Path) -> bool:
    return time.time() - image.stat().st_mtime > MAX_AGE_DAYS * 86400


def _in_use(image: Path) -> bool:
    return any(str(image) in file.read_text() for file in STATE.glob("*/machines/*/machine.json"))
