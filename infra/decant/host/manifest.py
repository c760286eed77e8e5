"""The table of the files that machines get: where each one lies, its mode, and what happens when it changes.

`provision.sh` installs by this table and `remove.sh` removes by it. Both read it as text (`manifest_text`), which
travels with the files and stays on the machine as /opt/decant/manifest.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import decant_host

HERE = Path(__file__).resolve().parent

OnChange = Literal[
    "nothing", "reload-systemd", "reload-nginx", "reload-sshd", "restart-firewall", "install-uv", "install-certbot"
]
When = Literal["always", "harden", "orders"]


@dataclass(frozen=True, kw_only=True)
class HostFile:
    """One file on a machine.

    `source` is its name in the tar: a path below this folder, or below infra/ for decant_host's modules. `path` is
    where it is installed. `when` is "harden" for what only `decant:harden` installs, and "orders" for what only a
    machine has that gets its certificate by itself. `serves`: it takes part in serving a release, so a change of it
    makes a new release, which is checked like any other. `generated`: its content is made for each machine (render.py)
    or from this table, and is no file of the repository.
    """

    source: str
    path: str
    mode: str = "0644"
    on_change: OnChange = "nothing"
    when: When = "always"
    serves: bool = False
    generated: bool = False


_UNITS = "/etc/systemd/system"
_PYTHON = "/opt/decant/python"


def _program() -> tuple[HostFile, ...]:
    """decant_host's modules; `__main__` last, so that it never runs before the modules that it imports are there."""
    names = sorted(path.name for path in Path(decant_host.__file__).parent.glob("*.py"))
    names.sort(key="__main__.py".__eq__)
    return tuple(HostFile(source=f"decant_host/{name}", path=f"{_PYTHON}/decant_host/{name}") for name in names)


# Installed from top to bottom. The manifest comes first, so that an installation that is cut short can be removed.
FILES = (
    HostFile(source="manifest", path="/opt/decant/manifest", generated=True),
    HostFile(source="scripts/remove.sh", path="/opt/decant/bin/decant-remove", mode="0755"),
    HostFile(source="scripts/packages.sh", path="/opt/decant/bin/decant-packages", mode="0755"),
    *_program(),
    HostFile(source="scripts/decant-host.sh", path="/opt/decant/bin/decant-host", mode="0755"),
    # After the program that reads it.
    HostFile(source="settings.json", path="/etc/decant/settings.json", generated=True),
    *(
        HostFile(source=name, path=f"/etc/decant/{name}", mode="0600", generated=True)
        for name in ("acme-root.pem", "certificate.pem", "certificate-key.pem")
    ),
    HostFile(source="gunicorn/release_environment.py", path=f"{_PYTHON}/release_environment.py", serves=True),
    HostFile(source="gunicorn/gunicorn_settings.py", path=f"{_PYTHON}/gunicorn_settings.py", serves=True),
    HostFile(source="gunicorn/decant_entry.py", path=f"{_PYTHON}/decant_entry.py", serves=True),
    HostFile(source="gunicorn/decant_serve.py", path=f"{_PYTHON}/decant_serve.py", serves=True),
    HostFile(source="gunicorn/release_command.py", path=f"{_PYTHON}/release_command.py"),
    HostFile(source="gunicorn/run_command.py", path=f"{_PYTHON}/run_command.py"),
    HostFile(source="gunicorn/gunicorn-requirements.txt", path="/opt/decant/gunicorn-requirements.txt", serves=True),
    *(
        HostFile(source=f"gunicorn/{name}", path=f"/opt/decant/{name}", serves=True)
        for name in (
            "gunicorn-old-requirements.txt",
            "packaging-requirements.txt",
            "pkg-resources-requirements.txt",
        )
    ),
    HostFile(source="acme/dns_lookup.py", path=f"{_PYTHON}/dns_lookup.py"),
    HostFile(source="apt/apt-upgrades.conf", path="/etc/apt/apt.conf.d/52decant-upgrades"),
    HostFile(source="systemd/app@.service", path=f"{_UNITS}/app@.service", on_change="reload-systemd", serves=True),
    HostFile(source="systemd/release@.service", path=f"{_UNITS}/release@.service", on_change="reload-systemd"),
    HostFile(
        source="systemd/sandbox.conf",
        path=f"{_UNITS}/app@.service.d/sandbox.conf",
        on_change="reload-systemd",
        serves=True,
    ),
    HostFile(
        source="systemd/sandbox.conf", path=f"{_UNITS}/release@.service.d/sandbox.conf", on_change="reload-systemd"
    ),
    HostFile(
        source="stop-timeout.conf",
        path=f"{_UNITS}/app@.service.d/stop-timeout.conf",
        on_change="reload-systemd",
        generated=True,
    ),
    HostFile(source="systemd/decant-boot.service", path=f"{_UNITS}/decant-boot.service", on_change="reload-systemd"),
    *(
        HostFile(source=f"systemd/{name}", path=f"{_UNITS}/{name}", on_change="reload-systemd")
        for name in ("decant-certificate.service", "decant-certificate.timer")
    ),
    HostFile(source="systemd/nginx.conf", path=f"{_UNITS}/nginx.service.d/decant.conf", on_change="reload-systemd"),
    # uv is installed when this file differs, and the file is put there when that has succeeded.
    HostFile(source="scripts/uv-requirements.txt", path="/opt/decant/uv-requirements.txt", on_change="install-uv"),
    # The same for the ACME client, where the machine gets its certificate by itself.
    HostFile(
        source="acme/certbot-requirements.txt",
        path="/opt/decant/certbot-requirements.txt",
        on_change="install-certbot",
        when="orders",
    ),
    HostFile(
        source="sshd/sshd.conf",
        path="/etc/ssh/sshd_config.d/00-decant.conf",
        on_change="reload-sshd",
        when="harden",
    ),
    HostFile(
        source="systemd/decant-firewall.service",
        path=f"{_UNITS}/decant-firewall.service",
        on_change="reload-systemd",
        when="harden",
    ),
    HostFile(
        source="nftables/firewall.nft",
        path="/etc/decant/firewall.nft",
        mode="0600",
        on_change="restart-firewall",
        when="harden",
    ),
    HostFile(source="nginx.conf", path="/etc/decant/nginx.conf", on_change="reload-nginx", generated=True),
)

INSTALLER = ("scripts/provision.sh", "scripts/fit-nginx.sh")
"""The files that are sent and not installed: they install the others."""


def manifest_text() -> str:
    """The table as text: a line a file with mode, what happens on a change, when it is installed, path and source."""
    return "".join(f"{f.mode} {f.on_change} {f.when} {f.path} {f.source}\n" for f in FILES)


def read(source: str) -> bytes:
    """The content of a file that is not made for each machine, by its name in the tar."""
    if source == "manifest":
        return manifest_text().encode()
    root = Path(decant_host.__file__).parents[1] if source.startswith("decant_host/") else HERE
    return (root / source).read_bytes()


def files() -> dict[str, bytes]:
    """What every machine gets alike: names in the tar, and contents."""
    names = {f.source for f in FILES if not f.generated} | {*INSTALLER, "manifest"}
    return {name: read(name) for name in sorted(names)}


def files_tar() -> bytes:
    """All of `files` as one tar, which goes to every machine. Equal files make an equal tar."""
    return _tar(files())


def files_name(tar: bytes) -> str:
    """The name of that tar, here and on machines."""
    return f"files-{hashlib.sha256(tar).hexdigest()[:12]}.tar"


def runtime_digest() -> str:
    """A hash of everything that serves a release besides its own code: see `HostFile.serves`."""
    digest = hashlib.sha256()
    for file in FILES:
        if file.serves:
            digest.update(read(file.source))
    return digest.hexdigest()[:12]


def _tar(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(contents):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(contents[name]), 0o644
            tar.addfile(info, io.BytesIO(contents[name]))
    return buffer.getvalue()
