"""This computer as a rehearsal uses it: its commands, locks between processes, kernel settings, the state folder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rehearsal.errors import RehearsalError

STATE = Path("/var/lib/decant-rehearsal")
_LOCKS = Path("/run/decant-rehearsal")
_KEPT_SETTINGS = STATE / "kernel-settings.json"
_KERNEL_SETTINGS = {
    "net/ipv4/ip_forward": 1,  # pass packets of machines on
    "fs/inotify/max_user_instances": 1024,  # each machine's systemd and friends need 6 of the usual 128
}

Say = Callable[[str], None]


def command(*argv: str, input: str | None = None) -> str:
    """Run a command and return its standard output.

    Raises:
        RehearsalError: The program is missing or failed; the text has its last lines of standard error.
    """
    try:
        done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RehearsalError(f"the program {argv[0]} is missing on this computer") from error
    if done.returncode != 0:
        raise RehearsalError(f"`{' '.join(argv)}` exited with {done.returncode}: {last_lines(done.stderr)}")
    return done.stdout


def succeeds(*argv: str) -> bool:
    """Run a command that may fail, such as removing something that may be gone; returns whether it exited with 0."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@contextmanager
def locked(name: str, *, shared: bool = False, blocking: bool = True) -> Iterator[int]:
    """Hold a lock that all processes and threads of this computer respect; yields the descriptor that holds it.

    A process that inherits the descriptor holds the lock, too, until it closes the descriptor or ends.

    Raises:
        BlockingIOError: `blocking` is False, and another process or thread holds the lock.
    """
    _LOCKS.mkdir(mode=0o700, exist_ok=True)  # everybody who can open a lock file can lock it
    with (_LOCKS / f"{name}.lock").open("w") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if blocking else kind | fcntl.LOCK_NB)
        yield file.fileno()


def is_locked(name: str) -> bool:
    """Whether another process or thread holds the lock."""
    try:
        with locked(name, blocking=False):
            return False
    except BlockingIOError:
        return True


def wait(condition: Callable[[], bool], timeout: float, failure: str) -> None:
    """Poll until the condition holds.

    Raises:
        RehearsalError: It does not hold after `timeout` seconds; the text is `failure`.
    """
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
    """Raise the kernel's settings to what machines need, and keep the old values for `restore_kernel`.

    Raises:
        RehearsalError: This computer does not let root change them.
    """
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
    """Undo `adjust_kernel`, except for settings that something else has changed since."""
    if not _KEPT_SETTINGS.exists():
        return
    kept = json.loads(_KEPT_SETTINGS.read_text())
    for name, wanted in _KERNEL_SETTINGS.items():
        setting = Path("/proc/sys", name)
        if kept["boot"] == boot_id() and int(setting.read_text()) == wanted > kept[name]:
            setting.write_text(str(kept[name]))
    _KEPT_SETTINGS.unlink()


def boot_id() -> str:
    """Return the id of this boot of the computer: another one after each restart."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def has_systemd() -> bool:
    """Whether systemd runs this computer (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def kernel() -> tuple[int, int]:
    """Return the version of the running Linux kernel, such as (6, 12)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)))
