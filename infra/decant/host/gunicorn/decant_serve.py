"""Starts gunicorn for one release, inside the app's wrapper where it has one. Started by app@<release>.service.

It sets the environment first, because a wrapper such as `newrelic-admin run-program` and Python itself read it when
they start. gunicorn then has the same process, so that systemd hears from the process that it started.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import release_environment

release = os.environ["DECANT_RELEASE"]
home = Path(f"/var/lib/decant/releases/{release}")
settings = json.loads((home / "release.json").read_text(encoding="utf-8"))
release_environment.load()
# Where memory runs out, the kernel ends a release that is not confirmed before the one that serves (proc(5)). `confirm`
# takes this back (decant_host/memory.py).
with contextlib.suppress(OSError):
    if os.path.basename(os.readlink("/var/lib/decant/persisted")) != release:  # noqa: PTH115, PTH119 - Python 3.8
        Path("/proc/self/oom_score_adj").write_text("300")
# The script and not `python -m gunicorn`: a gunicorn.py of the app would be run instead, and gunicorn 20.0 has no
# __main__.
command = [
    *settings.get("wrapper", ()),
    f"{home}/venv/bin/gunicorn",
    "--config",
    "/opt/decant/python/gunicorn_settings.py",
    "decant_entry:application",  # an argument, because gunicorn 20.0 has no setting for it
]
try:
    os.execvp(command[0], command)  # noqa: S606 - the wrapper is the author's own
except FileNotFoundError:
    sys.exit(f"the program {command[0]}, which the web: line starts, is not there: add its package to requirements.txt")
