"""Runs a one-off command with the release's own environment. Started by `decant-host run` as decant-run-*.service.

The command comes as a credential: a unit's command line is in the journal, and every user can read it.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import release_environment

asked = json.loads((Path(os.environ["CREDENTIALS_DIRECTORY"]) / "command.json").read_text(encoding="utf-8"))
release_environment.load()
if asked["terminal"]:
    # systemd has made this process the leader of a session. With a terminal of its own, Ctrl-C reaches the command.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.environ["TERM"] = asked["terminal"][0]
# The command gets them, too. This process stays and tells how it ended: systemd calls an end by SIGINT a success.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
status = subprocess.run(["/bin/sh", "-c", asked["command"]], check=False).returncode  # a shell line, as in a Procfile
sys.exit(status if status >= 0 else 128 - status)
