"""The web: line: what a shell would do with it."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.web_lines import FLASK, refused, web

APP = {"migrations/alembic.ini": "", "app.py": FLASK, "backend/app.py": FLASK, "src/shop.py": FLASK}
RELEASE = "Procfile: web: {} runs as the release command: once, before the release gets traffic"

# The line, and what is not empty of: application, gunicorn's settings, variables, wrapper, release command.
UNDERSTOOD: dict[str, dict[str, object]] = {
    "gunicorn app:app": {},
    "gunicorn app:app # --workers 4": {},
    "gunicorn app:app --name=a#b": {"gunicorn": {"proc_name": "a#b"}},
    "exec gunicorn app:app": {},
    "nohup gunicorn app:app": {},
    "/app/.heroku/python/bin/gunicorn app:app": {},
    "env A=1 gunicorn app:app": {"env": {"A": "1"}},
    "A=1 B='two words' gunicorn app:app": {"env": {"A": "1", "B": "two words"}},
    "export A=1 B=2 && gunicorn app:app": {"env": {"A": "1", "B": "2"}},
    "A=1; export A; gunicorn app:app": {"env": {"A": "1"}},
    "A=x; B=$A-${A} gunicorn app:app": {"env": {"A": "x", "B": "x-x"}},
    "A='$KNOWN' gunicorn app:app": {"env": {"A": "$KNOWN"}},
    'A="$KNOWN/x" gunicorn app:app': {"env": {"A": "value/x"}},
    "A=${NOTHING:-5} gunicorn app:app": {"env": {"A": "5"}},
    "A=${KNOWN:-5} gunicorn app:app": {"env": {"A": "value"}},
    "A=$PORT gunicorn app:app": {"env": {"A": "8000"}},
    "A=\\$x gunicorn app:app": {"env": {"A": "$x"}},
    "python -m gunicorn app:app": {},
    "python3.12 -u -m gunicorn.app.wsgiapp app:app": {},
    "poetry run gunicorn app:app": {},
    "pipenv run python -m gunicorn app:app": {},
    "uv run --no-sync --frozen gunicorn app:app": {},
    "cd backend && gunicorn app:app": {"gunicorn": {"chdir": "backend"}},
    "cd ./backend/; gunicorn app:app": {"gunicorn": {"chdir": "backend"}},
    "cd /app/backend && gunicorn app:app": {"gunicorn": {"chdir": "backend"}},
    'cd "$HOME/backend" && gunicorn app:app': {"gunicorn": {"chdir": "backend"}},
    "cd src && cd ../backend && gunicorn app:app": {"gunicorn": {"chdir": "backend"}},
    "cd src && gunicorn --chdir ../backend app:app": {"gunicorn": {"chdir": "backend"}},
    "bash -c 'cd backend && exec gunicorn app:app'": {"gunicorn": {"chdir": "backend"}},
    'sh -lc "cd backend && gunicorn app:app -b :$PORT"': {"gunicorn": {"chdir": "backend"}},
    "A=1 bash -c 'gunicorn app:app'": {"env": {"A": "1"}},
    "flask db upgrade && gunicorn app:app": {"release": "flask db upgrade"},
    "flask db upgrade; gunicorn app:app": {"release": "flask db upgrade"},
    "flask db upgrade && flask seed && gunicorn app:app": {"release": "flask db upgrade && flask seed"},
    "flask db upgrade; flask seed; gunicorn app:app": {"release": "(flask db upgrade; flask seed)"},
    "flask db upgrade || true; gunicorn app:app": {"release": "(flask db upgrade || true)"},
    "cd backend && flask db upgrade && gunicorn app:app": {
        "release": "(cd backend && flask db upgrade)",
        "gunicorn": {"chdir": "backend"},
    },
    "set -e; export X=1; flask db upgrade; exec gunicorn app:app": {
        "env": {"X": "1"},
        "release": "(set -e; export X=1; flask db upgrade)",
    },
    "sleep 3 && echo started && gunicorn app:app": {},
    ". venv/bin/activate && gunicorn app:app": {},
    "newrelic-admin run-program gunicorn app:app": {"wrapper": ("newrelic-admin", "run-program")},
    "A=1 newrelic-admin run-program gunicorn app:app": {"wrapper": ("newrelic-admin", "run-program"), "env": {"A": "1"}},
    "ddtrace-run gunicorn app:app": {"wrapper": ("ddtrace-run",)},
    "ddtrace-run python -m gunicorn app:app": {"wrapper": ("ddtrace-run",)},
    "opentelemetry-instrument --traces_exporter console gunicorn app:app": {
        "wrapper": ("opentelemetry-instrument", "--traces_exporter", "console")
    },
    "PYTHONPATH=src:$PYTHONPATH gunicorn shop:app": {"env": {"PYTHONPATH": "src"}, "app": "shop:app"},
    "PYTHONPATH=/app/src gunicorn shop:app": {"env": {"PYTHONPATH": "src"}, "app": "shop:app"},
    "gunicorn app:app > out.log 2>&1": {},
    "gunicorn -w $(nproc) app:app": {},
    "gunicorn -w $(( 2 * $(nproc) + 1 )) app:app": {},
    "gunicorn -w `nproc` app:app": {},
    "gunicorn -w ${WEB_CONCURRENCY:-3} app:app": {"gunicorn": {"workers": 3}},
    "gunicorn -w $SIX app:app": {"gunicorn": {"workers": 6}},
    "gunicorn --bind $(hostname):$PORT app:app": {},
}  # fmt: skip


@pytest.mark.parametrize("line", UNDERSTOOD)
def test_a_line_is_understood_as_a_shell_would(tmp_path: Path, line: str) -> None:
    found = web(tmp_path, line, APP, env={"KNOWN": "value", "SIX": "6"})
    expected = {"app": "app:app", "gunicorn": {}, "env": {}, "wrapper": (), "release": None, **UNDERSTOOD[line]}
    assert expected == {
        "app": found.wsgi_app,
        "gunicorn": dict(found.gunicorn),
        "env": dict(found.env),
        "wrapper": found.wrapper,
        "release": found.release_command,
    }
    assert found.why == "the web: line of Procfile"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("command", "persistent", "sets"),
    [
        ("mkdir uploads", ("logs",), "pulumi config set --path 'decant:persistent[1]' uploads; "),
        ("mkdir -p uploads logs", ("logs", "x"), "pulumi config set --path 'decant:persistent[2]' uploads; "),
        ("mkdir -p ./logs/ logs/a", ("logs",), ""),
        ("mkdir logs2", ("logs",), "pulumi config set --path 'decant:persistent[1]' logs2; "),
    ],
)
def test_folders_that_are_persistent_already_are_not_named_again(
    tmp_path: Path, command: str, persistent: tuple[str, ...], sets: str
) -> None:
    _, fix = refused(tmp_path, f"{command} && gunicorn app:app", APP, persistent=persistent)
    assert fix == f"{sets}{HERE}gunicorn app:app"


def test_the_commands_before_gunicorn_come_before_those_of_the_release_line(tmp_path: Path) -> None:
    files = {**APP, "Procfile": "web: flask db upgrade; flask seed; gunicorn app:app\nrelease: ./warm.sh || true\n"}
    found = web(tmp_path, None, files)
    assert found.release_command == "(flask db upgrade; flask seed) && ./warm.sh || true"
    assert found.notes == (RELEASE.replace("runs", "run").format("`flask db upgrade` and `flask seed`"),)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("gunicorn app:app > out.log", "Procfile: web: its redirections have no effect: output goes to the journal"),
        (
            "sleep 5; gunicorn app:app",
            "Procfile: web: `sleep 5` is left out: a release that cannot start is tried again",
        ),
        (
            "source venv/bin/activate && gunicorn app:app",
            "Procfile: web: `source venv/bin/activate` is left out: the app always runs in its own environment",
        ),
        (
            "gunicorn -w $(nproc) app:app",
            "Procfile: --workers $(nproc) is a matter of the shell; Decant chooses (pulumi config set decant:workers N)",
        ),
    ],
)
def test_what_is_done_in_another_way_is_said(tmp_path: Path, line: str, note: str) -> None:
    assert web(tmp_path, line, APP).notes == (note,)


HERE = "in app/Procfile: web: "
REFUSED = {
    "": ("Procfile: web: runs nothing", HERE + "gunicorn MODULE:NAME"),
    "gunicorn 'app:app": ("Procfile: web: cannot be read: No closing quotation", HERE + "gunicorn MODULE:NAME, with everything else in a `release:` line"),
    "(gunicorn app:app)": ("cannot be read: a group in ( ) makes it a program of the shell's", "gunicorn MODULE:NAME"),
    "if true; then gunicorn app:app; fi": ("cannot be read: `if` makes it a program of the shell's", "`release:` line"),
    "while ! flask db upgrade; do sleep 1; done; gunicorn app:app": ("`while` makes it", "`release:` line"),
    "gunicorn app:app & python bot.py": ("starts another process with `&`: `python bot.py`. Decant runs the web process alone, and no other", HERE + "gunicorn app:app    (and, for platforms that run more, a line of its own: worker: python bot.py)"),
    "gunicorn app:app && gunicorn other:app": ("starts another process with `&&`: `gunicorn other:app`", HERE + "gunicorn app:app "),
    "gunicorn app:app | tee log": ("starts another process with `|`: `tee log`", HERE + "gunicorn app:app "),
    "gunicorn app:app &": ("puts the server into the background with `&`", HERE + "gunicorn app:app"),
    "python bot.py & gunicorn app:app": ("starts `python bot.py` beside the server with `&`", HERE + "gunicorn app:app"),
    "cat x | gunicorn app:app": ("starts `cat x` beside the server with `|`", HERE + "gunicorn app:app"),
    "A=$SECRET gunicorn app:app": ("sets A from the secret SECRET, which machines alone know", "pulumi config set --secret --path 'decant:secrets.A'"),
    "A=$OTHER gunicorn app:app": ("sets A to $OTHER, and nothing says what that is", "pulumi config set --path 'decant:env.OTHER' VALUE"),
    "A=$(date) gunicorn app:app": ("sets A to $(date), and nothing says what that is", "pulumi config set --path 'decant:env.A' VALUE, and " + HERE + "the line without $(date)"),
    "A=${URL/postgres:/postgresql:} gunicorn app:app": ("sets A to ${URL/postgres:/postgresql:}, and nothing", "decant:env.A"),
    "cd $SOMEWHERE && gunicorn app:app": ("needs $SOMEWHERE, and nothing says what that is", "'decant:env.SOMEWHERE' VALUE"),
    "cd .. && gunicorn app:app": ("changes to .., which is outside of the app folder", "e.g. --chdir src"),
    "cd /srv && gunicorn app:app": ("changes to /srv, which is outside of the app folder", "e.g. --chdir src"),
    "cd nowhere && gunicorn app:app": ("changes to nowhere, and there is no such folder", HERE + "gunicorn app:app"),
    "cd nowhere && A=1 gunicorn -w 3 app:app": ("changes to nowhere, and there is no such folder", HERE + "A=1 gunicorn -w 3 app:app"),
    "gunicorn --chdir nowhere app:app": ("changes to nowhere, and there is no such folder", HERE + "gunicorn app:app"),
    "gunicorn --chdir nowhere shop:app": ("changes to nowhere, and there is no such folder", HERE + "gunicorn app:app"),
    "gunicorn $APP": ("names the application $APP, and nothing says what that is", HERE + "gunicorn wsgi:app"),
    "gunicorn --timeout $T --chdir $D app:app": ("--chdir $D: nothing says what $D is", "'decant:env.D' VALUE"),
    "bin/start-nginx gunicorn -c config/g.py app:app": ("starts bin/start-nginx, which a platform's buildpack brings and machines do not have", HERE + "gunicorn -c config/g.py app:app"),
    "bin/start-pgbouncer gunicorn app:app": ("starts bin/start-pgbouncer", HERE + "gunicorn app:app"),
    "mkdir -p uploads logs && gunicorn app:app": ("makes a folder with `mkdir -p uploads logs`, and the app folder is read-only on machines", "pulumi config set --path 'decant:persistent[0]' uploads && pulumi config set --path 'decant:persistent[1]' logs; " + HERE + "gunicorn app:app"),
    "npm run build && gunicorn app:app": ("runs `npm run build`, which writes files beside the code", "pulumi config set decant:build 'npm run build'; " + HERE + "gunicorn app:app"),
    "flask db upgrade; flask translate compile; gunicorn app:app": ("runs `flask translate compile`, which writes", "pulumi config set decant:build 'flask translate compile'; " + HERE + "flask db upgrade; gunicorn app:app"),
    "pybabel compile -d translations && gunicorn app:app": ("runs `pybabel compile -d translations`, which writes", "decant:build 'pybabel compile -d translations'"),
    "flask assets build && gunicorn app:app": ("runs `flask assets build`, which writes", "decant:build 'flask assets build'"),
    "python manage.py collectstatic --noinput && gunicorn app:app": ("collectstatic --noinput`, which writes", "decant:build 'python manage.py collectstatic --noinput'"),
    "cp a b && gunicorn app:app": ("runs `cp a b`, which changes files", "decant:build 'cp a b'"),
    "newrelic-admin generate-config $KEY newrelic.ini; gunicorn app:app": ("runs `newrelic-admin generate-config $KEY newrelic.ini`, which writes a file, and the app folder is read-only on machines", "pulumi config set --secret --path 'decant:secrets.NEW_RELIC_LICENSE_KEY'; " + HERE + "gunicorn app:app"),
    "pip install -r requirements.txt && gunicorn app:app": ("installs packages with `pip install -r requirements.txt`; Decant installs them before the app starts, from requirements.txt", HERE + "gunicorn app:app"),
    "apt-get install -y ffmpeg && gunicorn app:app": ("from Aptfile", HERE + "gunicorn app:app"),
    "python -m pip install x && gunicorn app:app": ("installs packages with `python -m pip install x`", HERE + "gunicorn app:app"),
    "echo $CREDS > creds.json && gunicorn app:app": ("writes a file with `echo $CREDS > creds.json`", HERE + "gunicorn app:app"),
    "source .env && gunicorn app:app": ("reads variables with `source .env`", "pulumi config set --path 'decant:env.NAME' VALUE; " + HERE + "gunicorn app:app"),
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_refused_with_the_line_that_would_work(tmp_path: Path, line: str) -> None:
    message, fix = REFUSED[line]
    problem = refused(tmp_path, line, APP, secret_names=frozenset({"SECRET"}))
    assert message in problem[0]
    assert problem[0].startswith("Procfile: ")
    assert fix in problem[1]


def test_a_buildpacks_name_may_be_a_program_of_the_app(tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "bin/start-web", {**APP, "bin/start-web": "#!/bin/sh\nexec gunicorn app:app\n"})
    assert message == "Procfile: web: runs `bin/start-web`, and Decant does not read bin/start-web"
    assert fix == HERE + "gunicorn app:app"


FOLDERS: Mapping[str, tuple[str, ...]] = {"gunicorn --chdir backend app:app": ("backend",), "gunicorn app:app": ()}


@pytest.mark.parametrize("line", FOLDERS)
def test_the_folder_that_is_named_is_served(tmp_path: Path, line: str) -> None:
    found = web(tmp_path, line, APP)
    assert tuple(dict(found.gunicorn).values()) == FOLDERS[line]
