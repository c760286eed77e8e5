"""This computer, as a rehearsal uses it: running its commands, locks among processes, where state is kept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STATE = Path("/var/lib/decant-rehearsal")
_LOCKS = Path("/run/decant-rehearsal")
_KEPT_SETTINGS = STATE / "kernel-settings.json"
_KERNEL_SETTINGS = {
    "net/ipv4/ip_forward": 1,  # pass packets of machines on
    "fs/inotify/max_user_instances": 1024,  # each machine's systemd and friends need 6 of the usual 128
}

Say = Callable[[str], None]


class RehearsalError(Exception):
    """Something a rehearsal needs is missing or failed; the text says what, and what to do about it."""


def command(*argv: str, input: str | None = None) -> str:
    """Run a command and return what it printed; raises RehearsalError with what it complained about."""
    try:
        done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RehearsalError(f"the program {argv[0]} is missing on this computer") from error
    if done.returncode != 0:
        raise RehearsalError(f"`{' '.join(argv)}` exited with {done.returncode}: {last_lines(done.stderr)}")
    return done.stdout


def succeeds(*argv: str) -> bool:
    """Run a command that may well fail, such as removing what may be gone already."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[int]:
    """Hold a lock among all processes and threads of this computer; yields the descriptor that holds it.

    A process that inherits the descriptor holds the lock too, until it closes it.
    """
    _LOCKS.mkdir(mode=0o700, exist_ok=True)  # whoever can read a lock file can lock it
    with (_LOCKS / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield file.fileno()


def wait(condition: Callable[[], bool], timeout: float, failure: str) -> None:
    """Poll until the condition holds; raises RehearsalError with the text of `failure` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RehearsalError(f"{failure} (waited {timeout:.0f} s)")
        time.sleep(0.02)


def remove_empty(folder: Path) -> None:
    """Remove a folder if it is there and empty."""
    try:
        folder.rmdir()
    except OSError:
        return


def last_lines(text: str, count: int = 15) -> str:
    """Return the end of a long output, where errors are, without empty lines."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def adjust_kernel() -> None:
    """Raise the kernel's settings to what machines need; what they were is kept for `restore_kernel`."""
    found = {name: int(Path("/proc/sys", name).read_text()) for name in _KERNEL_SETTINGS}
    if not _KEPT_SETTINGS.exists() or json.loads(_KEPT_SETTINGS.read_text())["boot"] != boot_id():
        _KEPT_SETTINGS.write_text(json.dumps({"boot": boot_id(), **found}))
    for name, wanted in _KERNEL_SETTINGS.items():
        if found[name] < wanted:
            try:
                Path("/proc/sys", name).write_text(str(wanted))
            except OSError as error:
                setting = name.replace("/", ".")
                raise RehearsalError(
                    f"this computer does not let root set {setting}; set it: sysctl {setting}={wanted}"
                ) from error


def restore_kernel() -> None:
    """Undo `adjust_kernel`, except for what somebody else has changed since."""
    if not _KEPT_SETTINGS.exists():
        return
    kept = json.loads(_KEPT_SETTINGS.read_text())
    for name, wanted in _KERNEL_SETTINGS.items():
        setting = Path("/proc/sys", name)
        if kept["boot"] == boot_id() and int(setting.read_text()) == wanted > kept[name]:
            setting.write_text(str(kept[name]))
    _KEPT_SETTINGS.unlink()


def boot_id() -> str:
    """Return what tells this start of the computer from the ones before."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def has_systemd() -> bool:
    """Whether systemd runs this computer (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def kernel() -> tuple[int, int]:
    """Return the version of the running Linux kernel, such as (6, 12)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)))
