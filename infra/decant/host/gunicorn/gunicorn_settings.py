"""gunicorn's settings for one release. gunicorn reads them in the unit app@<release>, before it imports the app.

The release's settings are in release.json beside its code; its environment and secrets come as a systemd credential.
"""

import contextlib
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "/opt/decant/python")
import release_environment

release = os.environ["DECANT_RELEASE"]
settings = json.loads(Path(f"/var/lib/decant/releases/{release}/release.json").read_text(encoding="utf-8"))
release_environment.load()
os.environ["DECANT_APP"] = settings["entry"]


def _default_workers() -> int:
    """One for each core and one more, as far as memory allows.

    300 MB are left to the system. A worker takes about 100 MB, and is counted twice because two releases run side by
    side during a rollout: a machine with 512 MB gets one worker. gunicorn's own rule, 2 x cores + 1, is for workers
    that serve one request at a time. With threads, more processes do not do more work: each new request wakes all
    processes that wait, which costs 10 to 20 % of a small reply's time (measured on 2 cores).
    """
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(1, min((os.cpu_count() or 1) + 1, (megabytes - 300) // 200, 12))


wsgi_app = "decant_entry:application"
pythonpath = "/opt/decant/python"
bind = f"unix:/run/decant/{release}/socket/gunicorn.sock"
umask = 0o007  # nginx may connect, because it is in the app's group; no other user may
worker_class = "gthread"  # it finishes the requests in its queue when it stops
workers = settings["workers"] or _default_workers()
# More threads than slow requests are expected at once: a request waits for a thread of its own worker even if another
# worker is idle.
threads = settings["threads"] or 8
preload_app = True  # an app that cannot be imported fails the start, and workers share memory
# The heartbeat file must be on a tmpfs: a stalled disk would look like a dead worker (gunicorn's FAQ).
worker_tmp_dir = f"/run/decant/{release}/socket"
timeout = 30  # a worker whose main loop hangs for this long is killed; nginx limits how long a request takes
graceful_timeout = 30  # what requests in flight get when the release stops
limit_request_line = 8190  # nginx accepts lines of 8k; the default here, 4094, would answer them with 414
control_socket_disable = True
# The one header that gives the scheme, which nginx sets. With gunicorn's defaults, a client could send a second one
# that disagrees, and the answer would be 400.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""


def post_fork(server: Any, worker: Any) -> None:
    """Let SIGTERM end a worker that has no handler yet: it would be lost, and the master would wait 30 s for it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def on_starting(server: Any) -> None:
    """Prepare the master after it has imported the app and before it forks workers."""
    # The file of `child_exit` may still be there: a unit that is started while it stops keeps its runtime directory.
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").unlink(missing_ok=True)
    # All objects that exist now are there to stay. Without this, each worker's first full collection would visit them,
    # which makes visitors wait and copies memory that the workers share.
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    """Leave a file when a worker has ended: decant-host looks for it before it gives this release the traffic."""
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").touch()
