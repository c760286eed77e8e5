"""What an app writes into its own folder, and what it needs of the machine: Debian packages and compilers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site import Site

# As Flask's tutorial writes it, with uploads that nginx serves and a log beside the code.
APP = """
import os
import sqlite3
from contextlib import closing

from flask import Flask, request

app = Flask(__name__)
os.makedirs(app.instance_path, exist_ok=True)
if not os.path.exists("logs"):
    os.mkdir("logs")
with open("logs/app.log", "a") as log:
    log.write("started\\n")


def connect():
    return closing(sqlite3.connect(os.path.join(app.instance_path, "site.db")))


with connect() as db, db:
    db.execute("create table if not exists visits (n integer)")


@app.get("/")
def index():
    with connect() as db:
        with db:
            db.execute("insert into visits values (1)")
        return str(db.execute("select count(*) from visits").fetchone()[0])


@app.post("/upload")
def upload():
    request.files["file"].save(os.path.join("static", "uploads", "new.txt"))
    return "kept"


@app.post("/write")
def write():
    try:
        with open(request.args["name"], "a"):
            return "could"
    except OSError as error:
        return error.strerror
"""
UPLOAD = (
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nnew\r\n--x--\r\n',
    {"Content-Type": "multipart/form-data; boundary=x"},
)
PERSISTENT = ["instance", "logs", "static/uploads", "state.json"]


@pytest.fixture
def afterwards(site: Site) -> Iterator[None]:
    """The release that was live before is live again after the test."""
    live = site.live
    yield
    if site.live != live:
        site.roll_out(live)


def made(site: Site, folder: Path, **files: str) -> Path:
    app = site.variant(folder, {"wsgi.py": APP})
    for name, text in {"static/uploads/seed.txt": "seed", **files}.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    return app


def ask(site: Site, path: str, **more: object) -> str:
    reply = site.ask(path, **more)  # type: ignore[arg-type]
    assert reply.status == 200, reply.body
    return reply.body.decode()


def test_an_app_writes_into_its_folder_and_keeps_it_through_releases(
    site: Site, tmp_path: Path, afterwards: None
) -> None:
    first = site.release(made(site, tmp_path / "1"), persistent=PERSISTENT, health_path=None)
    seen = int(ask(site, "/"))
    assert ask(site, "/upload", method="POST", body=UPLOAD[0].encode(), headers=UPLOAD[1]) == "kept"
    assert ask(site, "/static/uploads/new.txt") == "new", "nginx reads it"
    assert ask(site, "/static/uploads/seed.txt") == "seed"
    for name in ("instance/x", "logs/x", "state.json", "static/uploads/y", "/tmp/x"):
        assert ask(site, f"/write?name={name}", method="POST") == "could", name
    refused = ("Read-only file system", "Permission denied")
    for name in ("wsgi.py", "new", "static/style.css", "static/new", "hello/new", "../release.json", "state.json.tmp"):
        assert ask(site, f"/write?name={name}", method="POST") in refused, name

    app = made(site, tmp_path / "2", **{"static/uploads/seed.txt": "another", "static/uploads/later.txt": "later"})
    second = site.release(app, persistent=PERSISTENT, health_path=None)
    assert second != first
    assert int(ask(site, "/")) > seen
    assert [ask(site, f"/static/uploads/{name}.txt") for name in ("new", "seed", "later")] == ["new", "seed", "later"]
    assert len(site.machine.run("cat /var/lib/decant/app-data/logs/app.log").stdout.splitlines()) >= 2
    before = int(ask(site, "/"))
    site.roll_out(first)
    assert site.live == first
    assert int(ask(site, "/")) > before, "an older release sees the same data"
    assert ask(site, "/static/uploads/later.txt") == "later"


def test_a_link_of_the_release_publishes_nothing_that_the_app_chooses(
    site: Site, tmp_path: Path, afterwards: None
) -> None:
    """The app decides at run time what is behind such a link, and nginx can read the key of the certificate."""
    app = made(site, tmp_path / "app")
    for name, target in (("x", "uploads/x"), ("d", "uploads/d"), ("twice", "x"), ("up", "uploads/../uploads/x")):
        (app / "static" / name).symlink_to(target)
    release, run = site.release(app, persistent=PERSISTENT, health_path=None), site.machine.run
    key = "/var/lib/decant/tls/of-this-test/privkey.pem"
    run(f"install -d -m 0750 -g www-data {key.rpartition('/')[0]}; echo secret >{key}; chmod 0640 {key}")
    run(f"chgrp www-data /var/lib/decant/tls {key}; chmod 0750 /var/lib/decant/tls")
    assert run(f"runuser -u www-data -- cat {key}").stdout == "secret\n"
    uploads = "/var/lib/decant/app-data/static+uploads"
    try:
        run(f"runuser -u decant -- sh -c 'cd {uploads} && echo own >own.txt && ln -s own.txt x && ln -s . d'")
        names = ("x", "twice", "up")
        assert [ask(site, f"/static/{name}") for name in names] == ["own\n"] * 3, "what is the app's own is served"
        assert ask(site, "/static/d/own.txt") == "own\n"
        run(f"runuser -u decant -- sh -c 'cd {uploads} && ln -sfn {key} x && ln -sfn / d'")
        # nginx passes the request on, and the app finds no file that it may read.
        assert [site.ask(f"/static/{path}").status for path in (*names, f"d{key}")] == [404] * 4
        # The same links of root's, which nginx follows: the test would see the secret.
        run(f"chown -h root:root /var/lib/decant/releases/{release}/app/static/x {uploads}/x")
        assert ask(site, "/static/x") == "secret\n"
    finally:
        run(f"rm -rf {uploads}/x {uploads}/d {key.rpartition('/')[0]}")


def test_other_users_and_nginx_read_no_more_than_what_nginx_serves(
    site: Site, tmp_path: Path, afterwards: None
) -> None:
    site.release(made(site, tmp_path / "app"), persistent=PERSISTENT, health_path=None)
    ask(site, "/")
    readable = "sudo -u {} find -L /var/lib/decant/app-data/{} -type f -readable 2>/dev/null | sort"
    folders = ("instance", "logs", "state.json", "static+uploads", "")
    run = site.machine.run
    found = {
        (user, name): run(readable.format(user, name), check=False).stdout
        for user in ("www-data", "nobody")
        for name in folders
    }
    assert [key for key, files in found.items() if files] == [("www-data", "static+uploads")]
    owners = run("find /var/lib/decant/app-data -maxdepth 1 -printf '%f %u %m\\n' | sort").stdout.splitlines()
    assert owners == [
        "+var decant 700", "app-data root 710", "instance decant 700", "logs decant 700", "state.json decant 700",
        "static+uploads decant 750",
    ]  # fmt: skip


def test_the_release_command_may_write_there_too(site: Site, tmp_path: Path, afterwards: None) -> None:
    command = "echo migrated >instance/migrated; echo x >new 2>/dev/null || echo refused >>instance/migrated"
    site.release(made(site, tmp_path / "app"), persistent=PERSISTENT, health_path=None, release_command=command)
    assert site.machine.run("cat /var/lib/decant/app-data/instance/migrated").stdout == "migrated\nrefused\n"


def test_an_aptfiles_packages_are_installed_once(site: Site, tmp_path: Path, afterwards: None) -> None:
    app = made(site, tmp_path / "app", Aptfile="# greets\nhello\n")
    staged = site.stage(app, persistent=PERSISTENT)
    assert staged.status == 0, staged.error
    assert "installing Debian packages for the app: hello" in staged.error
    assert site.machine.run(["hello", "--version"]).stdout.startswith("hello (GNU Hello)")
    assert "hello" in site.machine.run("cat /var/lib/decant/packages-added").stdout.split(), "destroy removes it"
    with site.offline():
        again = site.stage(made(site, tmp_path / "again", Aptfile="hello\n", other="x"), persistent=PERSISTENT)
    assert (again.status, again.installed) == (0, False), again.error


def test_an_interrupted_dpkg_is_mended(site: Site, tmp_path: Path, afterwards: None) -> None:
    site.machine.run("apt-get -qq purge hello >/dev/null 2>&1; touch /var/lib/dpkg/updates/0000", check=False)
    staged = site.stage(made(site, tmp_path / "app", Aptfile="hello\n", other="y"), persistent=PERSISTENT)
    assert staged.status == 0, staged.error


def test_a_package_that_was_half_unpacked_is_unpacked_again(site: Site, tmp_path: Path, afterwards: None) -> None:
    """dpkg refuses to configure it. A power cut leaves one like that at times; here its recorded state is changed."""
    site.machine.run("apt-get -qq install hello >/dev/null 2>&1")
    state = "/^Package: hello$/,/^$/s/^Status: .*/Status: install reinstreq unpacked/"
    site.machine.run(f"sed -i '{state}' /var/lib/dpkg/status")
    assert "They must be reinstalled" in site.machine.run("dpkg --audit", check=False).stdout
    site.machine.run("touch /var/lib/dpkg/updates/0000")
    staged = site.stage(made(site, tmp_path / "app", Aptfile="hello\n", other="z"), persistent=PERSISTENT)
    assert staged.status == 0, staged.error
    assert site.machine.run("dpkg --audit").stdout == ""


def test_a_package_that_debian_lacks_is_named_with_its_line(site: Site, tmp_path: Path) -> None:
    live = site.live
    staged = site.stage(made(site, tmp_path / "app", Aptfile="hello\n\nlibnosuch.3\n"), persistent=PERSISTENT)
    assert staged.status == 1
    assert "Debian 13 has no package libnosuch.3, which line 3 of Aptfile names." in staged.error
    assert site.live == live


SETUP = """
from setuptools import Extension, setup
setup(name="tinyext", version="1.0", ext_modules=[Extension("tinyext", ["tinyext.c"], libraries=["ffi"])])
"""
CODE = """
#include <Python.h>
#include <ffi.h>
static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(FFI_OK + 42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tinyext", "", -1, methods};
PyMODINIT_FUNC PyInit_tinyext(void) { return PyModule_Create(&module); }
"""


def test_a_package_without_a_wheel_is_compiled(site: Site, tmp_path: Path, afterwards: None) -> None:
    """It needs a compiler, Python's headers and those of libffi, none of which is on the machine."""
    app = made(site, tmp_path / "app", **{"ext/setup.py": SETUP, "ext/tinyext.c": CODE})
    (app / "requirements.txt").write_text("flask\n./ext\n")
    code = "\nimport tinyext\n\n\n@app.get('/answer')\ndef answer():\n    return str(tinyext.answer())\n"
    (app / "wsgi.py").write_text(APP + code)
    staged = site.stage(app, persistent=PERSISTENT)
    assert staged.status == 0, staged.error
    assert "to build tinyext, which has no wheel for this machine's Python" in staged.error
    site.roll_out(staged.release)
    assert ask(site, "/answer") == "42"
    # The environment is kept by what is in it: the same app again builds nothing.
    again = site.stage(app, persistent=PERSISTENT, health_timeout=31)
    assert (again.status, again.installed) == (0, False)
    assert json.loads(site.machine.run(f"cat /var/lib/decant/releases/{again.release}/release.json").stdout)
