"""The card of a rehearsal: its Markdown, and the screenshot that a browser takes as somebody who may do nothing."""

from __future__ import annotations

import ast
import http.server
import os
import shutil
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rehearsal import __main__ as rehearsal
from rehearsal import card
from rehearsal.errors import RehearsalError
from rehearsal.progress import Progress

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the browser runs as another user, which only root can start")


@pytest.fixture(autouse=True)
def _no_forge(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_RUN_ID", "CI_JOB_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def page() -> Iterator[tuple[str, list[str]]]:
    """The URL of a page that is one colour, and the Host headers that came."""
    hosts: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body style='background:#c00'>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", hosts
    server.shutdown()


@pytest.fixture
def browser() -> Iterator[Callable[[str], str]]:
    """Makes a program in place of a browser, which anybody can run. `file` in its script is where the picture goes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        def made(script: str) -> str:
            path = Path(folder, "browser")
            first = "import os, sys\nfile = next(a for a in sys.argv if a.startswith('--screenshot='))[13:]\n"
            path.write_text(f"#!/usr/bin/python3 -I\n{first}{script}\n")
            path.chmod(0o755)
            return str(path)

        yield made


def test_the_card_holds_any_text_in_a_code_block(tmp_path: Path) -> None:
    file = card.write_card(tmp_path, "Stack dev is rehearsed.", "````\n<b>@everyone</b>\n", notes=["See below."])
    assert file.read_text() == ("## Stack dev is rehearsed.\n\nSee below.\n\n`````\n````\n<b>@everyone</b>\n`````\n")
    assert card.write_card(tmp_path, "T", "x").read_text() == "## T\n\n```\nx\n```\n"


def test_the_card_says_where_the_screenshot_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert card.picture_note() == "`screenshot.png` beside this file shows the front page."
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example/g/p/-/jobs/5")
    assert "(https://gitlab.example/g/p/-/jobs/5/artifacts/browse/card)" in card.picture_note()
    for name, value in {"SERVER_URL": "https://github.com", "REPOSITORY": "octo/site", "RUN_ID": "9"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert card.picture_note() == (
        "A screenshot of the front page is in the artifact `rehearsal` of"
        " [this run](https://github.com/octo/site/actions/runs/9)."
    )


@as_root
def test_the_browser_is_nobody_and_has_no_variables_of_ours(
    browser: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "canary")
    said = "repr((os.getuid(), os.getgid(), sorted(os.environ))).encode()"
    program = browser(f"open(file, 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + {said})")
    card.take_screenshot(program, "http://192.0.2.1/", tmp_path / "s.png")
    user, group, variables = ast.literal_eval((tmp_path / "s.png").read_bytes()[8:].decode())
    assert (user, group) == (65534, 65534)
    assert set(variables) <= {"HOME", "PATH", "LC_CTYPE"}


@as_root
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit('no display')", "made no picture of http://192.0.2.1/: no display"),
        ("open(file, 'w').write('text')", "made no picture of http://192.0.2.1/: "),
        ("os.symlink('@/own.png', file)", "made no picture of http://192.0.2.1/: "),
        ("import time; time.sleep(60)", "made no picture of http://192.0.2.1/ within 1 s"),
    ],
)
def test_a_browser_without_a_picture_is_an_error(
    browser: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(card, "PATIENCE", 1 if "sleep" in script else 60)
    (tmp_path / "own.png").write_bytes(card.PNG)  # a picture that root alone can read
    script = script.replace("@", str(tmp_path))
    with pytest.raises(RehearsalError, match=said.replace(".", r"\.")):
        card.take_screenshot(browser(script), "http://192.0.2.1/", tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()


@as_root
def test_a_browser_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="/nowhere/browser does not run here: No such file"):
        card.take_screenshot("/nowhere/browser", "http://192.0.2.1/", tmp_path / "s.png")


@as_root
@pytest.mark.skipif(not any(map(shutil.which, card.BROWSERS)), reason="needs a browser (apt-get install chromium)")
def test_a_real_browser_shows_the_page_under_its_name(page: tuple[str, list[str]], tmp_path: Path) -> None:
    url, hosts = page
    found = card.find_browser(print)
    card.take_screenshot(found, url, tmp_path / "by-address.png")
    named = url.replace("127.0.0.1", "www.example.com")
    card.take_screenshot(found, named, tmp_path / "s.png", names=["www.example.com"], address="127.0.0.1")
    assert named.split("/")[2] in hosts
    content = (tmp_path / "s.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == card.WINDOW
    assert len(content) < 30_000, "one colour alone, and no page with an error"


def test_a_missing_browser_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, str] = {}
    monkeypatch.setattr(card.shutil, "which", there.get)  # type: ignore[attr-defined]
    monkeypatch.setattr(card, "install_packages", lambda packages, say: there.update({packages[0]: "/usr/bin/it"}))
    assert card.find_browser(print) == "/usr/bin/it"
    there["google-chrome"] = "/opt/chrome"
    assert card.find_browser(print) == "/opt/chrome"
    there.clear()
    monkeypatch.setattr(card, "install_packages", lambda packages, say: None)
    with pytest.raises(RehearsalError, match="has none of google-chrome, chromium, chromium-browser"):
        card.find_browser(print)


def test_a_rehearsal_that_fails_leaves_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(stack: str, folder: Path | None) -> None:
        raise RehearsalError("decant:machines must be a number")

    monkeypatch.setattr(rehearsal, "up", fails)
    monkeypatch.setattr(sys, "argv", ["rehearsal", "up", "--card", str(tmp_path / "card"), "staging"])
    assert rehearsal.main() == 1
    assert (tmp_path / "card/card.md").read_text() == (
        "## The rehearsal of stack staging failed.\n\n```\ndecant:machines must be a number\n```\n"
    )
    assert "decant:machines must be a number" in capsys.readouterr().err


def test_the_card_of_a_rehearsal_shows_the_page_under_the_sites_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(rehearsal, "find_browser", lambda say: "/usr/bin/chromium")
    monkeypatch.setattr(rehearsal, "take_screenshot", lambda *given, **named: asked.append((given, named)))
    outputs: dict[str, object] = {"url": "https://example.com", "dns": {"names": ["example.com"], "value": "192.0.2.1"}}
    rehearsal._keep_card(tmp_path, "Stack dev runs.", "url  x", outputs, Progress())
    outputs = {"url": "http://192.0.2.1"}
    rehearsal._keep_card(tmp_path, "Stack dev runs.", "url  x", outputs, Progress())
    picture = tmp_path / "screenshot.png"
    assert asked == [
        (("/usr/bin/chromium", "https://example.com/", picture), {"names": ["example.com"], "address": "192.0.2.1"}),
        (("/usr/bin/chromium", "http://192.0.2.1/", picture), {"names": (), "address": ""}),
    ]
    assert "beside this file shows the front page.\n\n```\nurl  x\n```\n" in (tmp_path / "card.md").read_text()
