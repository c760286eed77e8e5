"""Other servers in a web line: the same application is served, or the line is refused."""

# ruff: noqa: E501 - a case is one line of a table
from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.model import AppOptions
from decant.app.web import read_web
from tests.support.app_folders import write
from tests.support.web_lines import FACTORY, FLASK, RUNS, refused, web

DASH = "import dash\napp = dash.Dash(__name__)\n"
MANAGER = "from flask_script import Manager\nfrom shop import create_app\napp = create_app()\nmanager = Manager(app)\n"
SERVED: list[tuple[str, dict[str, str], str, dict[str, object]]] = [
    ("python app.py", {"app.py": RUNS}, "app:app", {}),
    ("python3 -u ./app.py", {"app.py": RUNS}, "app:app", {}),
    ("python src/main.py", {"src/main.py": RUNS}, "main:app", {"chdir": "src"}),
    ("cd src && python main.py", {"src/main.py": RUNS}, "main:app", {"chdir": "src"}),
    ("python app.py", {"app.py": RUNS.replace("app", "site"), "x.py": FLASK}, "app:site", {}),
    ("python run.py", {"run.py": "from shop import create_app\napp = create_app()\n", "shop.py": FACTORY}, "run:app", {}),
    ("python run.py", {"run.py": "from shop import app\nif __name__ == '__main__':\n    app.run()\n", "shop.py": FLASK}, "run:app", {}),
    ("python run.py", {"run.py": FLASK + "from waitress import serve\nif __name__ == '__main__':\n    serve(app, port=8)\n"}, "run:app", {}),
    ("python app.py", {"app.py": FLASK + "io = SocketIO(app)\nif __name__ == '__main__':\n    io.run(app)\n"}, "app:app", {}),
    ("python index.py", {"index.py": DASH + "server = app.server\nif __name__ == '__main__':\n    app.run_server()\n"}, "index:server", {}),
    ("python manage.py runserver", {"manage.py": MANAGER + "if __name__ == '__main__':\n    manager.run()\n", "shop.py": FACTORY}, "manage:app", {}),
    ("python -m shop", {"shop/__init__.py": "", "shop/__main__.py": RUNS}, "shop.__main__:app", {}),
    ("flask run --host=0.0.0.0 --port=$PORT", {"app.py": FLASK}, "app:app", {}),
    ("flask run", {"wsgi.py": FLASK, "app.py": FLASK}, "wsgi:app", {}),
    ("flask run", {"app.py": FACTORY}, "app:create_app()", {}),
    ("python -m flask run", {"app.py": FLASK}, "app:app", {}),
    ("flask --app shop run", {"shop/__init__.py": FACTORY}, "shop:create_app()", {}),
    ("flask --app 'shop:create_app(1)' run", {"shop/__init__.py": FACTORY}, "shop:create_app(1)", {}),
    ("FLASK_APP=shop.py flask run", {"shop.py": FLASK}, "shop:app", {}),
    ("export FLASK_APP=src/shop.py && flask run", {"src/shop.py": FLASK}, "shop:app", {"chdir": "src"}),
    ("flask run", {"shop.py": FLASK, "app.py": FLASK, ".flaskenv": "# x\nexport FLASK_APP='shop.py'\n"}, "shop:app", {}),
    ("waitress-serve --port=$PORT app:app", {"app.py": FLASK}, "app:app", {}),
    ("waitress-serve --listen *:$PORT --threads 6 app:app", {"app.py": FLASK}, "app:app", {"threads": 6}),
    ("waitress-serve --call app:create_app", {"app.py": FACTORY}, "app:create_app()", {}),
    ("waitress-serve app:create_app --call", {"app.py": FACTORY}, "app:create_app()", {}),
    ("python -m waitress app:app", {"app.py": FLASK}, "app:app", {}),
    ("uwsgi --http :$PORT -w app:app", {"app.py": FLASK}, "app:app", {}),
    ("uwsgi --http :$PORT --module app --callable app", {"app.py": FLASK}, "app:app", {}),
    ("uwsgi --socket :8 --wsgi-file src/main.py --callable app", {"src/main.py": FLASK}, "src.main:app", {}),
    ("uwsgi --mount /=app:app", {"app.py": FLASK}, "app:app", {}),
    ("uvicorn --interface wsgi app:app", {"app.py": FLASK}, "app:app", {}),
    ("hypercorn wsgi:app:app", {"app.py": FLASK}, "app:app", {}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "files", "app", "gunicorn"), SERVED, ids=lambda v: v if isinstance(v, str) else "")
def test_the_same_application_is_served(
    tmp_path: Path, line: str, files: dict[str, str], app: str, gunicorn: dict[str, object]
) -> None:
    found = web(tmp_path, line, files)
    assert (found.wsgi_app, dict(found.gunicorn)) == (app, gunicorn)
    (note,) = found.notes
    assert note.endswith(f"Decant serves the same application, {app}, with gunicorn")
    assert note.startswith("Procfile: web: `")


HERE = "in app/Procfile: web: "
IN_MAIN = "from flask import Flask\ndef main():\n    app = Flask(__name__)\n    app.run()\nif __name__ == '__main__':\n    main()\n"
ONLY_MAIN = "from flask import Flask\nif __name__ == '__main__':\n    app = Flask(__name__)\n    app.run()\n"
BOOT = "#!/bin/sh\nwhile true; do\n    flask db upgrade\n    sleep 5\ndone\nexec gunicorn -b :5000 \\\n    app:app\n"
REFUSED: list[tuple[str, dict[str, str], str, str]] = [
    ("python app.py", {"app.py": IN_MAIN}, "runs `python app.py` and no application can be seen in app.py outside of its main part", HERE + "gunicorn MODULE:NAME"),
    ("python app.py", {"app.py": ONLY_MAIN, "wsgi.py": FLASK}, "no application can be seen in app.py", HERE + "gunicorn wsgi:app"),
    ("python app.py", {"wsgi.py": FLASK}, "runs `python app.py`, and not gunicorn", HERE + "gunicorn wsgi:app"),
    ("python app.py", {"app.py": FLASK + "app.run()\n"}, "app.py starts a server when it is imported, so gunicorn could never serve it", "in app.py, put that call under: if __name__ == '__main__':"),
    ("python index.py", {"index.py": DASH + "if __name__ == '__main__':\n    app.run()\n"}, "whose Dash object gunicorn cannot serve by itself", "add to index.py: server = app.server    and " + HERE + "gunicorn index:server"),
    ("python manage.py runserver", {"manage.py": "import django\n"}, "runs Django's manage.py", HERE + "gunicorn PROJECT.wsgi:application"),
    ("flask run", {"shop.py": FLASK}, "runs `flask run`, and not gunicorn", HERE + "gunicorn shop:app"),
    ("flask --app nothing run", {"shop.py": FLASK}, "runs flask with nothing, in which no application can be seen", HERE + "gunicorn MODULE:NAME"),
    ("flask worker", {"shop.py": FLASK}, "runs `flask worker`, and not gunicorn", HERE + "gunicorn shop:app"),
    ("waitress-serve --port 8", {"app.py": FLASK}, "names no application, such as shop:app", HERE + "gunicorn shop:app"),
    ("waitress-serve --url-prefix=/x app:app", {"app.py": FLASK}, "gives waitress-serve --url-prefix, which gunicorn does not have", HERE + "gunicorn app:app"),
    ("uwsgi uwsgi.ini", {"uwsgi.ini": "[uwsgi]\nmodule = wsgi:app\n", "wsgi.py": FLASK, "main.py": FLASK}, "runs uwsgi with uwsgi.ini, and Decant serves with gunicorn", HERE + "gunicorn wsgi:app"),
    ("uwsgi --ini u.ini", {"u.ini": "[uwsgi]\nwsgi-file = main.py\ncallable = app\nchdir = src\n", "src/main.py": FLASK}, "runs uwsgi with u.ini", HERE + "gunicorn --chdir src main:app"),
    ("uwsgi --http :8", {"app.py": FLASK}, "runs `uwsgi --http :8`, and not gunicorn", HERE + "gunicorn app:app"),
    ("uvicorn app:app --port $PORT", {"app.py": FLASK}, "runs uvicorn, a server for ASGI, with app:app, which is a WSGI application", HERE + "gunicorn app:app"),
    ("uvicorn main:app", {"main.py": "from fastapi import FastAPI\napp = FastAPI()\n"}, "runs uvicorn, a server for ASGI applications; Decant serves WSGI applications, such as Flask's", "if main:app is a WSGI application: " + HERE + "gunicorn main:app"),
    ("daphne app:app", {"app.py": FLASK}, "runs daphne, a server for ASGI", HERE + "gunicorn app:app"),
    ("./start.sh", {"start.sh": "#!/bin/sh\nflask db upgrade\nexec gunicorn app:app\n", "app.py": FLASK}, "runs `./start.sh`, and Decant does not read start.sh", HERE + "flask db upgrade && gunicorn app:app"),
    ("sh boot.sh", {"boot.sh": BOOT, "app.py": FLASK}, "runs `sh boot.sh`, and Decant does not read boot.sh", HERE + "flask db upgrade && gunicorn -b :5000 app:app"),
    ("bash start.sh", {"start.sh": "cd src\nnpm start\n", "app.py": FLASK}, "Decant does not read start.sh", HERE + "gunicorn app:app"),
    ("honcho start", {"app.py": FLASK}, "runs `honcho start`, and not gunicorn", HERE + "gunicorn app:app"),
    ("npm start", {"app.py": FLASK}, "runs `npm start`, and not gunicorn", HERE + "gunicorn app:app"),
    ("streamlit run x.py", {"x.py": ""}, "runs `streamlit run x.py`, and not gunicorn", HERE + "gunicorn MODULE:NAME"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "files", "message", "fix"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_not_sure_is_refused_with_the_line_that_would_work(
    tmp_path: Path, line: str, files: dict[str, str], message: str, fix: str
) -> None:
    problem = refused(tmp_path, line, files)
    assert message in problem[0]
    assert problem[1] == fix


def test_the_fix_of_a_script_serves(tmp_path: Path) -> None:
    files = {"boot.sh": BOOT, "app.py": FLASK}
    _, fix = refused(tmp_path, "sh boot.sh", files)
    found = web(tmp_path, fix.removeprefix(HERE), files)
    assert (found.wsgi_app, found.release_command) == ("app:app", "flask db upgrade")


def test_with_decant_wsgi_app_another_server_is_no_problem(tmp_path: Path) -> None:
    found = web(tmp_path, "A=1 uvicorn main:app", {"main.py": "", "app.py": FLASK}, wsgi_app="app:app")
    assert (found.wsgi_app, found.why, dict(found.env)) == ("app:app", "decant:wsgiApp", {"A": "1"})
    assert found.notes == ("Procfile: web: runs uvicorn; decant:wsgiApp names what Decant serves",)


def test_gunicorns_own_configuration_is_not_read_for_another_server(tmp_path: Path) -> None:
    files = {"gunicorn.conf.py": "timeout = 90\n", "app.py": RUNS, "Procfile": "web: python app.py\n"}
    assert read_web(write(tmp_path / "app", files), AppOptions()).config_file is None
