"""A release that does not work is not served: the one before is, all the time, and the cause is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from decant.errors import RolloutError
from decant.rollout import timeouts
from tests.support.project_copy import REPOSITORY
from tests.support.site import CANARY, Site
from tests.support.visitors import Visitors
from tests.support.waiting import wait_for

# Apps that start as quickly as any can, for those whose test waits until their time is over.
PLAIN = """
import time

def app(environ, start_response):
    {first}
    start_response("{status}", [("Content-Type", "text/plain"), ("Location", "/login")])
    return [b"the body"]
"""
SOON = {"health_timeout": 4}
LOCK = (REPOSITORY / "app/requirements.txt").read_text()


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What is wrong with an app, and words of the cause and the way out that its user has to read."""

    says: list[str]
    wsgi: str | None = None
    requirements: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    within: str = ""
    around: Callable[[Site], AbstractContextManager[None]] = lambda _: nullcontext()


# A disk that only the step sees: the live release's files stay where they are.
FULL_OF_RELEASES = "unshare --mount sh -c 'mount -t tmpfs -o size=64k none /var/lib/decant/releases && exec \"$@\"' sh"
LEAK = CANARY.replace("canary", "leaked")  # what apps here print themselves is no other test's secret


@contextmanager
def full_of_packages(site: Site) -> Iterator[None]:
    site.machine.run("mount -t tmpfs -o size=1m none /var/cache/decant")
    try:
        yield
    finally:
        site.machine.run("umount /var/cache/decant")


BROKEN = {
    "a module is missing": Broken(
        wsgi="import nosuchmodule\n",
        says=["the module nosuchmodule is not there", "Add nosuchmodule to requirements.txt"],
    ),
    "its import fails": Broken(
        wsgi="raise ImportError('libodd.so.1: no such file')\n", says=["libodd.so.1: no such file", "wsgi.py"]
    ),
    "its code is no Python": Broken(
        wsgi="def app(:\n    pass\n", says=["the code is not valid Python 3.13", "wsgi.py", "line 1"]
    ),
    "it has no such attribute": Broken(wsgi="application = None\n", says=["wsgi:app names app"]),
    "it misses a variable": Broken(
        wsgi="import os\n\nos.environ['DATABASE_URL']\n",
        says=["the variable DATABASE_URL is not set", "config set --secret --path 'decant:secrets.DATABASE_URL'"],
    ),
    "it prints any bytes": Broken(
        wsgi=r"""import os, sys

os.write(2, b"caf\xe9 \xff \x1b[31mred\x1b[0m \x07 " + os.environb[b"API_TOKEN"] + b"\n")
os._exit(3)
""",
        says=["it crashes when it starts", "caf\ufffd \ufffd red \\x07 [API_TOKEN]"],
    ),
    "it shows its secret": Broken(
        wsgi="import os\n\ntoken = os.environ['API_TOKEN']\nraise ValueError('this: ' + token + repr(token))\n",
        says=["ValueError: this: [API_TOKEN]'[API_TOKEN]'"],
    ),
    "its health path raises": Broken(
        wsgi=PLAIN.format(first="1 // 0", status="200 OK"), settings=SOON,
        says=["/healthz answers with an error", "status 500", "ZeroDivisionError"],
    ),
    "its health path hangs": Broken(
        wsgi=PLAIN.format(first="time.sleep(7)", status="200 OK"), settings=SOON,
        says=["/healthz does not answer in time", "decant:healthTimeout is 4 s"],
    ),
    "it has no such health path": Broken(
        settings={"health_path": "/nowhere"},
        says=["nothing answers at /nowhere", "Set decant:healthPath to a path that answers 200"],
    ),
    "its health path wants a login": Broken(
        wsgi=PLAIN.format(first="", status="401 Who"), settings={"health_path": "/healthz"},
        says=["/healthz asks for a login", "Set decant:healthPath"],
    ),
    "it refuses the site's name": Broken(
        wsgi=PLAIN.format(first="", status="400 Name"), settings={"health_path": "/healthz", **SOON},
        says=["the app refuses the site's own name, 198.51.100.", "TRUSTED_HOSTS"],
    ),
    "it takes too long": Broken(
        wsgi="import time\n\ntime.sleep(60)\n", settings={"health_timeout": 1},
        says=["it takes longer to start than decant:healthTimeout, which is 1 s"],
    ),
    "it ends soon after its start": Broken(
        wsgi="import os\nimport threading\n\nthreading.Timer(0.5, os._exit, [7]).start()\n"
        + PLAIN.format(first="time.sleep(60)", status="200 OK"),
        says=["it crashes when it starts", "exit status 7"],
    ),
    "its workers cannot start": Broken(
        wsgi="import os\n\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n"
        + PLAIN.format(first="", status="200 OK"),
        says=["it crashes when it starts", "Worker failed to boot"],
    ),
    "its lock has another hash": Broken(
        requirements=re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", LOCK),
        says=["requirements.txt does not match its hashes", "Lock it again"],
    ),
    "its lock lacks a hash": Broken(
        requirements=re.sub(r"\nitsdangerous==.*?(?=\njinja2==)", "", LOCK, flags=re.DOTALL),
        says=["requirements.txt does not match its hashes", "Lock it again"],
    ),
    "its requirements cannot be met": Broken(
        requirements="flask==3.1.3\nflask==3.1.2\n", says=["the requirements cannot be met on Python 3.13"]
    ),
    "its requirements cannot be had": Broken(
        requirements="flask==3.1.3\nmarkupsafe\n", around=Site.offline, says=["the package index cannot be reached"]
    ),
    "the disk is full of releases": Broken(
        within=FULL_OF_RELEASES, says=["the disk is full", "df -h"]
    ),
    "the disk is full of packages": Broken(
        requirements="flask==3.1.3\n", around=full_of_packages, says=["the disk is full", "df -h"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def visitors(site: Site) -> Iterator[Visitors]:
    with Visitors(site.address) as visitors:
        yield visitors


@pytest.fixture(autouse=True)
def seen_on_trial(site: Site, visitors: Visitors) -> Iterator[set[str]]:
    """Nobody may notice a test here; it adds the releases that visitors may see all the same."""
    live = site.live
    visitors.releases.clear()
    also: set[str] = set()
    yield also
    visitors.more()
    assert visitors.failures == []
    assert set(visitors.releases) - also == {live}
    assert [site.status()[name] for name in ("current", "persisted")] == [live, live]
    wait_for(lambda: site.status()["running"] == [live], "the end of the other release")


@pytest.mark.parametrize("what", BROKEN)
def test_a_release_that_cannot_be_staged_says_why(site: Site, tmp_path: Path, what: str) -> None:
    broken = BROKEN[what]
    changed = {"wsgi.py": broken.wsgi, "requirements.txt": broken.requirements, "static/what.txt": what}
    app = site.variant(tmp_path / "app", {name: text for name, text in changed.items() if text is not None})
    with broken.around(site):
        # Where its code is broken, the folder would be refused before a machine is touched.
        read_as = site.project.app if broken.wsgi else None
        staged = site.stage(app, secrets={"API_TOKEN": LEAK}, within=broken.within, read_as=read_as, **broken.settings)
    assert staged.status == 1
    assert staged.error.startswith("site: "), "the machine's name"
    assert [words for words in broken.says if words not in staged.error] == [], staged.error
    assert "leaked" not in staged.error
    assert "Traceback" not in staged.error.partition("\n")[0]


IN_THE_MASTER = "threading.Timer(2, os._exit, [9]).start()"
IN_A_WORKER = "os.register_at_fork(after_in_child=threading.Timer(2, os._exit, [9]).start)"  # gunicorn replaces it


@pytest.mark.parametrize(
    ("crash", "log"),
    [(IN_THE_MASTER, "exit status 9|status=9/"), (IN_A_WORKER, "exited with code 9")],
    ids=["master", "worker"],
)
def test_a_release_that_crashes_after_two_seconds_gets_no_traffic(
    site: Site, tmp_path: Path, crash: str, log: str
) -> None:
    """It was healthy when it was staged."""
    wsgi = (site.project.app / "wsgi.py").read_text()
    staged = site.stage(site.variant(tmp_path, {"wsgi.py": f"{wsgi}\nimport os\nimport threading\n\n{crash}\n"}))
    assert staged.status == 0, staged.error
    with pytest.raises(RolloutError, match="it starts, answers, and crashes seconds later") as caught:
        site.roll_out(staged.release)
    assert re.search(log, str(caught.value))


def test_the_program_says_why_and_leaves_the_old_release(site: Site, tmp_path: Path) -> None:
    wsgi = site.project.app / "wsgi.py"
    good = wsgi.read_text()
    wsgi.write_text("import os\n\nimport nosuchmodule\n\nprint(os.environ['API_TOKEN'])\napp = nosuchmodule.app\n")
    try:
        run = site.up(secrets={"API_TOKEN": LEAK})
    finally:
        wsgi.write_text(good)
    assert run.status == 1
    assert run.error.startswith("web-stage failed:")
    assert "the module nosuchmodule is not there. Add nosuchmodule to requirements.txt" in run.error
    assert "Traceback (most recent call last)" not in run.error.splitlines()[1]
    assert "leaked" not in run.error + run.log


def test_a_release_that_fails_behind_nginx_goes_back_at_once(
    site: Site, seen_on_trial: set[str], tmp_path: Path
) -> None:
    """Healthy on its own socket, which is all that staging sees: only nginx gives a request an id."""
    code = "from flask import request\n\n@app.before_request\ndef fail():\n    if 'decant' in request.user_agent.string"
    behind = code + " and 'X-Request-ID' in request.headers:\n        return 'not behind nginx', 503\n"
    wsgi = (site.project.app / "wsgi.py").read_text()
    staged = site.stage(site.variant(tmp_path, {"wsgi.py": f"{wsgi}\n{behind}"}))
    assert staged.status == 0, staged.error
    with pytest.raises(RolloutError, match=r"answered status 503, body: 'not behind nginx' through nginx at /healthz"):
        site.roll_out(staged.release)
    seen_on_trial.add(staged.release)


def test_a_release_that_fails_at_its_public_address_goes_back(
    site: Site, seen_on_trial: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "URL_TIMEOUT", 1.0)
    code = "from flask import request\n\n@app.before_request\ndef fail():\n    if 'decant' in request.user_agent.string"
    outside = code + " and request.remote_addr != '127.0.0.1':\n        return 'not outside', 503\n"
    wsgi = (site.project.app / "wsgi.py").read_text()
    staged = site.stage(site.variant(tmp_path, {"wsgi.py": f"{wsgi}\n{outside}"}))
    assert staged.status == 0, staged.error
    with pytest.raises(
        RolloutError, match=f"gave status 503 from release {staged.release} instead of a status below 500"
    ):
        site.roll_out(staged.release)
    seen_on_trial.add(staged.release)
    reverted = site.status()["reverted"]
    assert (reverted["from"], reverted["because"]) == (staged.release, "the attempt failed")
