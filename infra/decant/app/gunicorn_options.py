"""gunicorn's options: what Decant does with each one, and their reading by gunicorn's own parser."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gunicorn.config import Config

from decant.app.shell import MARK
from decant.errors import AppError

USED = frozenset(
    {
        "chdir", "pythonpath", "workers", "threads", "worker_class", "worker_connections", "timeout",
        "graceful_timeout", "keepalive", "max_requests", "max_requests_jitter", "raw_env", "preload_app", "wsgi_app",
        "config", "limit_request_line", "limit_request_fields", "limit_request_field_size", "proc_name", "loglevel",
        "access_log_format", "logger_class", "logconfig", "logconfig_dict", "logconfig_json", "statsd_host",
        "statsd_prefix", "dogstatsd_tags", "enable_backlog_metric", "on_starting", "on_reload", "when_ready",
        "pre_fork", "post_fork", "post_worker_init", "worker_int", "worker_abort", "pre_exec", "pre_request",
        "post_request", "child_exit", "worker_exit", "nworkers_changed", "on_exit",
    }
)  # fmt: skip

_SOCKET = "nginx alone reaches gunicorn, at a socket of the release's own"
_SYSTEMD = "systemd starts gunicorn, as the user decant in a sandbox"
_LOGS = "gunicorn logs to the journal, and nginx writes the access log"
_PROXY = "gunicorn takes the visitor's address and scheme from nginx, which sets them itself"
_NGINX = "nginx reads and checks each request first"
_TLS = "visitors speak TLS with nginx or with the load balancer, never with gunicorn"
_DEVELOPMENT = "it is for development, and code changes by a release"
_TMPFS = "Decant chooses the folder, in memory"
_SERVES_ALONE = "Decant serves the WSGI application alone"
_ASGI = "it is for ASGI applications, and Decant serves WSGI"

REPLACED: Mapping[str, str] = {
    name: sentence
    for sentence, names in {
        _SOCKET: "bind backlog reuse_port sendfile control_socket control_socket_mode control_socket_disable",
        _SYSTEMD: "daemon pidfile user group umask initgroups default_proc_name",
        _LOGS: "accesslog errorlog capture_output enable_stdio_inheritance disable_redirect_access_to_syslog syslog"
        " syslog_addr syslog_prefix syslog_facility",
        _PROXY: "forwarded_allow_ips proxy_protocol proxy_allow_ips secure_scheme_headers forwarder_headers"
        " uwsgi_allow_ips header_map",
        _NGINX: "permit_obsolete_folding strip_header_spaces permit_unconventional_http_method"
        " permit_unconventional_http_version casefold_http_method http_parser http_protocols http2_cleartext"
        " http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size http2_max_header_list_size",
        _TLS: "keyfile certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers"
        " ssl_context",
        _DEVELOPMENT: "reload reload_engine reload_extra_files spew",
        _TMPFS: "worker_tmp_dir tmp_upload_dir",
        _ASGI: "asgi_loop asgi_lifespan asgi_disconnect_grace_period websocket_max_message_size root_path",
    }.items()
    for name in names.split()
}

REFUSED: Mapping[str, str] = {
    name: sentence
    for sentence, names in {
        "gunicorn would print or check its settings, and end": "check_config print_config",
        "it names a PasteDeploy file, which Decant does not read": "paste raw_paste_global_conf",
        "gunicorn would speak another protocol than HTTP": "protocol",
        _SERVES_ALONE: "dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting"
        " dirty_post_fork dirty_worker_init dirty_worker_exit",
    }.items()
    for name in names.split()
}

ASGI_WORKERS = re.compile(r"asgi$|uvicorn|hypercorn|Uvicorn|aiohttp|daphne")


@dataclass(kw_only=True)
class GunicornOptions:
    """What a list of arguments asks of gunicorn."""

    application: str | None = None
    used: dict[str, Any] = field(default_factory=dict)
    """Settings by gunicorn's own names, without `config`, `raw_env` and `wsgi_app`."""
    config: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class _ParseError(Exception):
    pass


def read_options(arguments: Sequence[str], source: str, fix: str) -> GunicornOptions:
    """What the arguments of gunicorn ask for. What a shell on a machine would fill in stands between two `MARK`.

    `source` begins each sentence; `fix` is what to do about arguments that gunicorn itself does not take.

    Raises:
        AppError: for what gunicorn does not take, and for what Decant refuses.
    """
    try:
        given = _parse(arguments)
    except _ParseError as error:
        raise AppError("app", (f"{source}: gunicorn does not take this line: {_shown(str(error))}", fix)) from None
    found = GunicornOptions()
    positional = given.pop("args")
    if positional:
        found.application = positional[0]
    if len(positional) > 1:
        found.notes.append(f"{source}: gunicorn ignores {' '.join(positional[1:])}, and so does Decant")
    problems: list[tuple[str, str]] = []
    replaced: dict[str, list[str]] = {}
    for name, value in given.items():
        flag = _flag(name, arguments)
        if name in REFUSED:
            problems.append((f"{source}: {flag} cannot be used: {REFUSED[name]}", f"leave out {flag}: {fix}"))
        elif name in REPLACED:
            replaced.setdefault(REPLACED[name], []).append(flag)
        elif MARK in str(value):
            _unknown(found, name, value, source, problems)
        else:
            try:
                _use(found, name, value)
            except ValueError as error:
                problems.append((f"{source}: {flag}: {error}", fix))
    found.notes += [f"{source}: {without_effect(flags)}: {why}" for why, flags in replaced.items()]
    if problems:
        raise AppError("app", *problems)
    return found


def without_effect(names: Sequence[str]) -> str:
    """The beginning of the sentence about settings that Decant replaces."""
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect"


def _unknown(found: GunicornOptions, name: str, value: Any, source: str, problems: list[tuple[str, str]]) -> None:
    """A value that only a shell on a machine could tell: Decant's own is used for a number, any other is refused."""
    flag, shown = _flag(name), _shown(str(value[0] if isinstance(value, list) else value))
    if Config().settings[name].type is int:
        setting = (
            f"pulumi config set decant:{name} N" if name in ("workers", "threads") else f"write a number: {flag} N"
        )
        found.notes.append(f"{source}: {flag} {shown} is a matter of the shell; Decant chooses ({setting})")
        return
    variable = re.search(r"\$\{?(\w+)", shown)
    fix = (
        f"pulumi config set --path 'decant:env.{variable[1]}' VALUE"
        if variable
        else f"write the value itself in place of {shown}"
    )
    problems.append((f"{source}: {flag} {shown}: nothing says what {shown} is", fix))


def _use(found: GunicornOptions, name: str, value: Any) -> None:
    if name == "config":
        found.config = value
    elif name == "wsgi_app":
        found.application = found.application or value
    elif name == "raw_env":
        found.env.update(read_raw_env(value))
    else:
        found.used[name] = checked(name, value)


def read_raw_env(values: Any) -> dict[str, str]:
    """The variables of gunicorn's `raw_env`.

    Raises:
        ValueError: for a value that is not `NAME=value`.
    """
    pairs = [str(value).partition("=") for value in ([values] if isinstance(values, str) else values)]
    if wrong := next((name for name, equals, _ in pairs if not equals or not name), None):
        raise ValueError(f"{wrong} is not of the form NAME=value")
    return {name: value for name, _, value in pairs}


def checked(name: str, value: Any) -> Any:
    """A value of a setting in the form that gunicorn gives it; None for a hook, which is the machine's to read.

    Raises:
        ValueError: where gunicorn does not take it, and for a worker class that cannot serve WSGI.
    """
    if name == "worker_class":
        text = value if isinstance(value, str) else ""
        if ASGI_WORKERS.search(text):
            raise ValueError(f"{text} is {_ASGI.removeprefix('it is ')}")
        return value
    if name in ("chdir", "pythonpath"):  # gunicorn would look for the folder on this computer
        return str(value)
    config = Config()
    if callable(config.settings[name].default):  # gunicorn would import the module that a hook's text names
        return None
    try:
        config.set(name, value)
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{value} is no value that gunicorn takes ({error})") from None
    return config.settings[name].get()


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that are given, and `args`, by gunicorn's parser."""
    parser = Config(prog="gunicorn").parser()
    parser.error = _fail  # argparse would end the program
    for action in parser._actions:
        if callable(action.type):
            action.type = _unless_unknown(action.type)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            known, positional = vars(parser.parse_args([])), parser.parse_args(list(arguments))
    except SystemExit:
        raise _ParseError("it prints a text and ends") from None
    except argparse.ArgumentError as error:
        raise _ParseError(str(error)) from None
    return {k: v for k, v in vars(positional).items() if v is not None and (k == "args" or v != known.get(k))}


def _fail(message: str) -> Any:
    raise _ParseError(message)


def _unless_unknown(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:
        return text if MARK in text else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value")
    return converted


def _flag(name: str, arguments: Sequence[str] = ()) -> str:
    """The option of a setting, as it stands in the arguments where it does."""
    cli: list[str] | None = Config().settings[name].cli
    if not cli:
        return name
    written = (flag for flag in cli for argument in arguments if argument.partition("=")[0] == flag)
    return next(written, max(cli, key=len))


def _shown(text: str) -> str:
    return text.replace(MARK, "")
