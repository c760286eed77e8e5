"""gunicorn's settings for one release. Read by gunicorn inside the unit app@<release>, before the app's import.

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
from gunicorn.workers.gthread import ThreadWorker

release = os.environ["DECANT_RELEASE"]
settings = json.loads(Path(f"/var/lib/decant/releases/{release}/release.json").read_text(encoding="utf-8"))
release_environment.load()
os.environ["DECANT_APP"] = settings["entry"]


def _default_workers() -> int:
    """One a core and one more, as far as memory goes: 300 MB stay with the system, 100 MB a worker.

    gunicorn's own 2 x cores + 1 is for workers that do one thing at a time. With threads, more processes do no more
    work: each new request wakes all that wait, which costs 10 to 20 % of a small reply's time (measured on 2 cores).
    """
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(1, min((os.cpu_count() or 1) + 1, (megabytes - 300) // 100, 12))


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """gthread without its wait for a connection's first bytes, an epoll of its own each time: 8 % of a small reply.

    nginx connects when it has the whole request, and nobody else can.
    """

    def enqueue_req(self, conn: Any) -> None:
        """To a thread, at once."""
        conn.data_ready = True
        super().enqueue_req(conn)


wsgi_app = "decant_entry:application"
pythonpath = "/opt/decant/python"
bind = f"unix:/run/decant/{release}/socket/gunicorn.sock"
umask = 0o007  # nginx is in the app's group; nobody else connects
worker_class = Worker  # gthread finishes what waits in its queue when it is told to stop
workers = settings["workers"] or _default_workers()
# More than requests that think at once: one that finds all threads of its worker busy waits, though another is idle.
threads = settings["threads"] or 8
preload_app = True  # an app that cannot be imported fails the start, and workers share memory
# The heartbeat file must not be on a disk, whose stalls would look like dead workers.
worker_tmp_dir = f"/run/decant/{release}/socket"
timeout = 30
graceful_timeout = 30
limit_request_line = 8190  # nginx takes lines of 8k: without this they would die here, as a 414
control_socket_disable = True
# One header says the scheme, and nginx sets it; two that disagree would be answered with 400.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""


def post_fork(server: Any, worker: Any) -> None:
    """Until a worker has its own handler, a TERM would be lost, and the master would wait 30 s for it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def on_starting(server: Any) -> None:
    """In the master, when the app is there and no worker is."""
    # A unit that is started while it stops keeps its folder, and so what its last workers left.
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").unlink(missing_ok=True)
    # What is there will stay. A worker's first full collection would look at all of it, which makes visitors wait and
    # copies the memory that workers share.
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    """In the master, when a worker has ended: whoever decides on this release's traffic looks for the file."""
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").touch()
