"""`ssh`: log in to a machine with the pinned host key and the stack's own key."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from decant.errors import MachineError
from decant.ssh.client import Access


def ssh(machine: Access) -> int:
    """Log in and return ssh's exit status. The key is in a file of this user's alone while ssh runs.

    Raises MachineError where this computer has no ssh.
    """
    with tempfile.TemporaryDirectory(prefix="decant-ssh-") as folder:
        key, known = Path(folder) / "key", Path(folder) / "known_hosts"
        for path, text in ((key, machine.private_key.rstrip("\n") + "\n"), (known, known_host(machine))):
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        try:
            return subprocess.run(command(machine, key, known), check=False).returncode
        except FileNotFoundError:
            raise MachineError(
                "This computer has no ssh. On Debian or Ubuntu: apt-get install openssh-client"
            ) from None


def known_host(machine: Access) -> str:
    """The line of a known_hosts file that pins the machine's key."""
    name = machine.address if machine.port == 22 else f"[{machine.address}]:{machine.port}"
    return f"{name} {machine.host_key.strip()}\n"


def command(machine: Access, key: Path, known: Path) -> list[str]:
    """The command line of ssh, which trusts the pinned key alone."""
    options = {
        "UserKnownHostsFile": known, "GlobalKnownHostsFile": os.devnull, "StrictHostKeyChecking": "yes",
        "HostKeyAlgorithms": "ssh-ed25519", "IdentitiesOnly": "yes", "IdentityAgent": "none",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [
        "ssh",
        "-F",
        os.devnull,
        "-i",
        str(key),
        *words,
        "-p",
        str(machine.port),
        f"{machine.user}@{machine.address}",
    ]
