"""gunicorn's options: used, replaced or refused, and never dropped in silence."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import KNOWN_SETTINGS

from decant.app.gunicorn_options import REFUSED, REPLACED, USED, checked, read_options
from decant.errors import AppError
from tests.support.host_files import HERE
from tests.support.web_lines import FLASK, refused, web

NAMES = {setting.name for setting in KNOWN_SETTINGS}


def test_every_setting_of_gunicorns_is_used_replaced_or_refused() -> None:
    assert set(USED) | set(REPLACED) | set(REFUSED) == NAMES
    assert len(USED) + len(REPLACED) + len(REFUSED) == len(NAMES)


def test_the_machine_takes_the_same_settings_from_the_apps_own_file() -> None:
    tree = ast.parse((HERE / "gunicorn" / "gunicorn_settings.py").read_text())
    (value,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "from_file"]
    assert set(ast.literal_eval(value)) == USED - {"config", "wsgi_app"}


GIVEN: list[tuple[str, dict[str, Any]]] = [
    ("--chdir src -w 3 --threads=5 -k gthread", {"chdir": "src", "workers": 3, "threads": 5, "worker_class": "gthread"}),
    ("-t 90 --graceful-timeout 20 --keep-alive 5", {"timeout": 90, "graceful_timeout": 20, "keepalive": 5}),
    ("--max-requests 1200 --max-requests-jitter 50 --preload", {"max_requests": 1200, "max_requests_jitter": 50, "preload_app": True}),
    ("--limit-request-line 0 --limit-request-fields 50 --name site", {"limit_request_line": 0, "limit_request_fields": 50, "proc_name": "site"}),
    ("--worker-connections 50 --log-level debug --access-logformat %(h)s", {"worker_connections": 50, "loglevel": "debug", "access_log_format": "%(h)s"}),
    ("--pythonpath a,b --statsd-host localhost:8125", {"pythonpath": "a,b", "statsd_host": ("localhost", 8125)}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "used"), GIVEN)
def test_options_are_used(line: str, used: dict[str, Any]) -> None:
    found = read_options([*line.split(), "shop:app"], "Procfile", "fix")
    assert (found.application, found.used, found.notes) == ("shop:app", used, [])


def test_variables_the_configuration_file_and_the_application_have_fields_of_their_own() -> None:
    found = read_options(["-e", "A=1", "--env", "B=x=y", "-c", "conf.py", "wsgi"], "Procfile", "fix")
    assert (found.env, found.config, found.application, found.used) == ({"A": "1", "B": "x=y"}, "conf.py", "wsgi", {})


def test_replaced_options_are_said_with_the_reason() -> None:
    line = "-b 0.0.0.0:80 --backlog 5 -u www -g www -m 7 -D --log-file=- --access-logfile - --reload --certfile a a:b"
    assert read_options(line.split(), "Procfile", "fix").notes == [
        "Procfile: -b, --backlog have no effect: nginx alone reaches gunicorn, at a socket of the release's own",
        "Procfile: --reload has no effect: it is for development, and code changes by a release",
        "Procfile: -D, -u, -g, -m have no effect: systemd starts gunicorn, as the user decant in a sandbox",
        "Procfile: --access-logfile, --log-file have no effect: gunicorn logs to the journal, and nginx writes the"
        " access log",
        "Procfile: --certfile has no effect: visitors speak TLS with nginx or with the load balancer, never with gunicorn",
    ]


REFUSALS = {
    "--paste p.ini": "--paste cannot be used: it names a PasteDeploy file, which Decant does not read",
    "--check-config a:b": "--check-config cannot be used: gunicorn would print or check its settings, and end",
    "--protocol uwsgi a:b": "--protocol cannot be used: gunicorn would speak another protocol than HTTP",
    "--dirty-app x a:b": "--dirty-app cannot be used: Decant serves the WSGI application alone",
    "-k uvicorn.workers.UvicornWorker a:b": "-k: uvicorn.workers.UvicornWorker is for ASGI applications, and Decant serves",
    "--worker-class=asgi a:b": "--worker-class: asgi is for ASGI applications",
    "--threads -1 a:b": "--threads: -1 is no value that gunicorn takes (Value must be positive: -1)",
    "-w four a:b": "gunicorn does not take this line: argument -w/--workers: invalid int value: 'four'",
    "--bogus a:b": "gunicorn does not take this line: unrecognized arguments: --bogus",
    "--version": "gunicorn does not take this line: it prints a text and ends",
    "--help": "gunicorn does not take this line: it prints a text and ends",
    "-e A a:b": "-e: A is not of the form NAME=value",
    "--log x a:b": "gunicorn does not take this line: ambiguous option: --log could match",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_what_gunicorn_or_decant_does_not_take_is_refused(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AppError) as caught:
        read_options(line.split(), "Procfile", "fix")
    ((message, fix),) = caught.value.problems
    assert message.startswith("Procfile: " + REFUSALS[line])
    assert fix.endswith("fix")
    assert capfd.readouterr() == ("", "")


def test_the_variable_of_gunicorns_arguments_is_read_the_same_way(tmp_path: Path) -> None:
    env = {"GUNICORN_CMD_ARGS": "--bind=0.0.0.0 --workers=3 --timeout 90 --env A=1"}
    found = web(tmp_path, "gunicorn -w 2 app:app", {"app.py": FLASK}, env=env)
    assert dict(found.gunicorn) == {"workers": 2, "timeout": 90}
    assert dict(found.env) == {"A": "1"}
    (note,) = found.notes
    assert note.startswith("GUNICORN_CMD_ARGS: --bind has no effect")


def test_the_lines_own_variable_of_arguments_does_not_reach_the_machine(tmp_path: Path) -> None:
    found = web(tmp_path, "GUNICORN_CMD_ARGS='-w 5' gunicorn app:app", {"app.py": FLASK})
    assert (dict(found.gunicorn), dict(found.env)) == ({"workers": 5}, {})


def test_wrong_arguments_in_the_variable_are_refused_by_its_name(tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "gunicorn app:app", {"app.py": FLASK}, env={"GUNICORN_CMD_ARGS": "--bogus"})
    assert message == "GUNICORN_CMD_ARGS: gunicorn does not take this line: unrecognized arguments: --bogus"
    assert fix == "pulumi config set --path 'decant:env.GUNICORN_CMD_ARGS' '--workers 2'"


def test_a_secret_of_that_name_is_warned_about(tmp_path: Path) -> None:
    names = frozenset({"GUNICORN_CMD_ARGS"})
    (warning,) = web(tmp_path, "gunicorn app:app", {"app.py": FLASK}, secret_names=names).warnings
    assert warning.startswith("GUNICORN_CMD_ARGS is a secret, and so is not read.")


def test_a_longer_graceful_timeout_than_the_units_is_said(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn --graceful-timeout 31 app:app", {"app.py": FLASK})
    assert (dict(found.gunicorn), found.notes) == (
        {},
        (
            "graceful-timeout has no effect above 30: a release that stops gives requests the time of"
            " decant:requestTimeout, 30 seconds at least",
        ),
    )
    found = web(tmp_path, "gunicorn --graceful-timeout 30 app:app", {"app.py": FLASK})
    assert (dict(found.gunicorn), found.notes) == ({"graceful_timeout": 30}, ())


def test_the_name_of_a_hook_imports_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evilmod.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\ndef x(server): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for hook in ("on_starting", "when_ready", "post_fork", "on_exit"):
        assert checked(hook, "evilmod.x") is None
    assert not (tmp_path / "imported").exists()
