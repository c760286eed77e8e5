"""gunicorn's settings for one release. gunicorn reads them in the unit app@<release>, before it imports the app.

The release's settings are in release.json beside its code. Its environment is there already: see decant_serve.py.
What the author asks of gunicorn comes from the web: line ("gunicorn" in release.json) and from the author's own
configuration file; decant:workers and decant:threads have precedence over both.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

# Last, so that no module of the app is hidden.
sys.path.append("/opt/decant/python")
import release_environment

release = os.environ["DECANT_RELEASE"]
settings = json.loads(Path(f"/var/lib/decant/releases/{release}/release.json").read_text(encoding="utf-8"))
if "VIRTUAL_ENV" not in os.environ:
    release_environment.load()  # started by a unit that was installed before decant_serve.py was there
os.environ["DECANT_APP"] = settings["entry"]
folder = f"/var/lib/decant/releases/{release}/app"
# The settings that the author's configuration file may make. Decant makes all others (decant.app.gunicorn_options).
from_file = (
    "chdir", "pythonpath", "workers", "threads", "worker_class", "worker_connections", "timeout", "graceful_timeout",
    "keepalive", "max_requests", "max_requests_jitter", "raw_env", "preload_app", "limit_request_line",
    "limit_request_fields", "limit_request_field_size", "proc_name", "loglevel", "access_log_format", "logger_class",
    "logconfig", "logconfig_dict", "logconfig_json", "statsd_host", "statsd_prefix", "dogstatsd_tags",
    "enable_backlog_metric", "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init",
    "worker_int", "worker_abort", "pre_exec", "pre_request", "post_request", "child_exit", "worker_exit",
    "nworkers_changed", "on_exit",
)  # fmt: skip


def _asked() -> "dict[str, Any]":
    """What the author asks of gunicorn, by gunicorn's own names: the web: line beats the configuration file."""
    name = settings.get("gunicorn_config")
    made = runpy.run_path(f"{folder}/{name}", run_name="__config__") if name else {}
    found = {name: made[name] for name in from_file if made.get(name) is not None}
    found.update(settings.get("gunicorn") or {})
    found.update({name: settings[name] for name in ("workers", "threads") if settings[name]})
    pairs = found.pop("raw_env", ())
    for pair in [pairs] if isinstance(pairs, str) else pairs:
        variable, _, value = pair.partition("=")
        os.environ.setdefault(variable, value)  # decant:env has precedence
    if "chdir" in found:
        found["chdir"] = os.path.join(folder, found["chdir"])  # noqa: PTH118 - the configuration file may have made it absolute
    if "pythonpath" in found:
        found["pythonpath"] = ",".join(os.path.join(folder, part) for part in found["pythonpath"].split(","))  # noqa: PTH118
    return found


asked = _asked()


def _default_workers() -> int:
    """One for each core and one more, as far as memory allows.

    300 MB are left to the system. A worker takes about 100 MB, and is counted twice because two releases run side by
    side during a rollout: a machine with 512 MB gets one worker. gunicorn's own rule, 2 x cores + 1, is for workers
    that serve one request at a time. With threads, more processes do not do more work: each new request wakes all
    processes that wait, which costs 10 to 20 % of a small reply's time (measured on 2 cores).
    """
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(1, min((os.cpu_count() or 1) + 1, (megabytes - 300) // 200, 12))


def _concurrency() -> int:
    """The workers that WEB_CONCURRENCY asks for, which gunicorn itself would read; 0 for none."""
    text = os.environ.get("WEB_CONCURRENCY", "")
    return int(text) if text.isdigit() else 0


wsgi_app = "decant_entry:application"
bind = f"unix:/run/decant/{release}/socket/gunicorn.sock"
umask = 0o007  # nginx may connect, because it is in the app's group; no other user may
worker_class = "gthread"  # it finishes the requests in its queue when it stops
workers = asked.pop("workers", 0) or _concurrency() or _default_workers()
# More threads than slow requests are expected at once: a request waits for a thread of its own worker even if another
# worker is idle. Another worker class than gthread has them only where they are asked for.
threads = asked.pop("threads", 0) or (8 if asked.get("worker_class", "gthread") == "gthread" else 1)
# An app that cannot be imported fails the start, and workers share memory. Classes such as gevent change Python's
# library in the worker, which has to come before the import of the app.
preload_app = asked.get("worker_class", "gthread") in ("gthread", "sync")
# The heartbeat file must be on a tmpfs: a stalled disk would look like a dead worker (gunicorn's FAQ).
worker_tmp_dir = f"/run/decant/{release}/socket"
# nginx answers 504 after this time. A release that was made before there was this setting had 30 s.
request_timeout = settings.get("request_timeout", 30)
# A worker that hangs for this long is killed. A sync worker hangs while it answers, so nginx has to give up before.
timeout = max(30, request_timeout + 5)
# What requests, streams and WebSockets get when the release stops: see `kept_after_switch` in decant_host's protocol.
graceful_timeout = max(30, request_timeout)
worker_connections = 8192  # as many as nginx may open: a WebSocket takes one for as long as it is open
limit_request_line = 8190  # nginx accepts lines of 8k; the default here, 4094, would answer them with 414
control_socket_disable = True
# The one header that gives the scheme, which nginx sets. With gunicorn's defaults, a client could send a second one
# that disagrees, and the answer would be 400.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""


# The hooks below call the author's own, too.
hooks = {name: asked.pop(name) for name in ("post_fork", "on_starting", "child_exit") if name in asked}
if asked.get("worker_class") == "gthread":
    del asked["worker_class"]  # the one above
if asked.get("timeout"):  # 0 is no limit
    asked["timeout"] = max(asked["timeout"], timeout)
asked["graceful_timeout"] = min(asked.get("graceful_timeout", graceful_timeout), graceful_timeout)
globals().update(asked)


def post_fork(server: Any, worker: Any) -> None:
    """Let SIGTERM end a worker that has no handler yet: it would be lost, and the master would wait 30 s for it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "post_fork" in hooks:
        hooks["post_fork"](server, worker)


def on_starting(server: Any) -> None:
    """Prepare the master after it has imported the app and before it forks workers."""
    # The file of `child_exit` may still be there: a unit that is started while it stops keeps its runtime directory.
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").unlink(missing_ok=True)
    # All objects that exist now are there to stay. Without this, each worker's first full collection would visit them,
    # which makes visitors wait and copies memory that the workers share.
    gc.collect()
    gc.freeze()
    if "on_starting" in hooks:
        hooks["on_starting"](server)


def child_exit(server: Any, worker: Any) -> None:
    """Leave a file when a worker has ended: decant-host looks for it before it gives this release the traffic."""
    with contextlib.suppress(OSError):
        Path(f"/run/decant/{release}/socket/worker-exited").touch()
    if "child_exit" in hooks:
        hooks["child_exit"](server, worker)
