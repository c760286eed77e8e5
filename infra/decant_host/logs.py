"""Logs for people: what releases wrote to the journal, and nginx's access and error log, as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

from decant_host.errors import HostError
from decant_host.masking import masker
from decant_host.paths import NGINX_LOGS, RELEASES
from decant_host.processes import message_text
from decant_host.protocol import PING_TIMEOUT, RELEASE_ID, LogLine
from decant_host.releases import complete_releases

SOURCES = ("app", "access", "error")

_KINDS = {"app": "web", "release": "release"}
_UNIT = re.compile(rf"(app|release)@({RELEASE_ID})\.service")


def show_logs(source: str, release: str | None, lines: int, *, follow: bool) -> None:
    """Print the last lines of a log, each as a `LogLine` in JSON; with `follow`, those that come, too.

    Whoever follows sends a line every PING_INTERVAL; following ends when standard input does, or when none came for
    PING_TIMEOUT. Raises HostError for a release that this machine knows nothing of.
    """
    if release and source == "app":
        check_known(release)
    command, read = _journal(release, lines) if source == "app" else _file(source, release)
    if follow:
        command = (
            [command[0], "--follow", *command[1:]] if source == "app" else ["tail", "-n", str(lines), "-F", command[-1]]
        )
    with (
        contextlib.suppress(BrokenPipeError),
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child,
    ):
        try:
            found = filter(None, map(read, _lines(child, follow=follow)))
            for line in found if follow else deque(found, maxlen=lines):
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
        finally:
            child.kill()
    # What is left in the buffer of a reader who is gone must not fail at the end of the program.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _journal(release: str | None, lines: int) -> tuple[list[str], Callable[[bytes], LogLine | None]]:
    """The journal of all releases, or of one, also of one that never went live and is gone."""
    command = ["journalctl", "--output=json", "--all", "--no-pager", "--quiet", f"--lines={lines}"]
    if release:
        command += [f"--unit=app@{release}.service", f"--unit=release@{release}.service"]
    else:
        # By their slices: a pattern for units would leave out those that start after journalctl.
        command += ["_SYSTEMD_SLICE=system-app.slice", "_SYSTEMD_SLICE=system-release.slice"]
    # With the secrets of all releases that are here: those of a release that was removed are known no more, but secrets
    # seldom change.
    mask = masker(*complete_releases())

    def read(raw: bytes) -> LogLine | None:
        try:
            entry = json.loads(raw)
        except ValueError:
            return None
        # What systemd itself says of a unit names it in UNIT.
        by, about = str(entry.get("_SYSTEMD_UNIT")), str(entry.get("UNIT"))
        unit = _UNIT.fullmatch(by) or _UNIT.fullmatch(about)
        if unit is None:
            return None
        return {
            "time": int(entry["__REALTIME_TIMESTAMP"]) / 1e6,
            "release": unit[2],
            "source": _KINDS[unit[1]] if unit[0] == by else "systemd",
            "text": mask(message_text(entry.get("MESSAGE"))),
        }

    return command, read


def _file(source: str, release: str | None) -> tuple[list[str], Callable[[bytes], LogLine | None]]:
    """One of nginx's logs; the access log has the release in each line."""
    path = NGINX_LOGS / f"{source}.log"
    if release and source == "error":
        raise HostError("nginx's error log does not say which release a line is about. Leave the release out.")
    if not path.exists():
        raise HostError(f"{path} is not there yet: nginx has written nothing.")

    mask = masker(*complete_releases())

    def read(raw: bytes) -> LogLine | None:
        text = raw.decode(errors="replace")
        # At the end, where a visitor's own words are not: see log_format in nginx.conf.j2.
        named = re.search(rf" release=({RELEASE_ID}) limit=\S*$", text)
        if release and (named is None or named[1] != release):
            return None
        return {"time": None, "release": named[1] if named else "", "source": source, "text": mask(text)}

    # grep, because the lines of one release may be far from the end of a long file.
    return ["grep", "--text", "--fixed-strings", f" release={release}" if release else "", str(path)], read


def _lines(child: subprocess.Popen[bytes], *, follow: bool) -> Iterator[bytes]:
    """The lines that a program prints, until it ends or the one who follows is gone."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    output, heard, rest = child.stdout.fileno(), time.monotonic(), b""
    watched = select.poll()
    watched.register(output, select.POLLIN)
    if follow:
        watched.register(0, select.POLLIN)
    while not follow or time.monotonic() < heard + PING_TIMEOUT:
        for descriptor, _ in watched.poll(1000):
            data = os.read(descriptor, 1 << 16)
            if not data:
                if rest and descriptor == output:
                    yield rest
                return
            if descriptor == 0:
                heard = time.monotonic()
                continue
            *whole, rest = (rest + data).split(b"\n")
            yield from whole


def check_known(release: str) -> None:
    """Raises HostError when neither the disk nor the journal knows a release."""
    if (RELEASES / release).exists():
        return
    units = (f"--unit=app@{release}.service", f"--unit=release@{release}.service")
    seen = subprocess.run(["journalctl", *units, "--lines=1", "--quiet"], capture_output=True, check=False).stdout
    if not seen.strip():
        raise HostError(f"release {release} was never on this machine, or its log is gone. See: fab releases")
