"""The card of a rehearsal: what it came to as Markdown, and a screenshot of the site's front page by a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rehearsal.errors import RehearsalError
from rehearsal.machines.image import install_packages
from rehearsal.this_host import Say, last_lines

BROWSERS = ("google-chrome", "chromium", "chromium-browser")
"""Programs that take the same options. Chrome is first: Ubuntu's chromium is a snap, which only logins run."""

WINDOW = (1280, 800)
PATIENCE = 60  # seconds for the browser's start and the page
SETTLED = 5000  # milliseconds of the page's own time, in which its scripts can load what they show
PNG = b"\x89PNG\r\n\x1a\n"


def find_browser(say: Say) -> str:
    """Return the path of a browser. Debian's chromium is installed where there is none.

    Raises:
        RehearsalError: there is none, and it cannot be installed.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    install_packages(["chromium"], say)
    if path := shutil.which("chromium"):
        return path
    raise RehearsalError(f"a screenshot needs a browser, and this computer has none of {', '.join(BROWSERS)}")


def take_screenshot(browser: str, url: str, file: Path, *, names: Sequence[str] = (), address: str = "") -> None:
    """Let a browser open a page, and write what it shows as PNG. `names` lead to `address` for it alone.

    The browser runs as the user nobody, because the page is whatever the app shows. Only the rehearsal's own authority
    vouches for a rehearsed name, which a browser does not know; the rehearsal has checked the certificate itself.

    Raises:
        RehearsalError: the browser made no picture.
    """
    with tempfile.TemporaryDirectory(prefix="decant-browser-") as kept:
        folder = Path(kept)
        os.chown(folder, *_nobody())
        picture = folder / "screenshot.png"
        argv = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--no-proxy-server", "--window-size={},{}".format(*WINDOW), f"--virtual-time-budget={SETTLED}",
            f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}",
        ]  # fmt: skip
        if names:
            argv += [
                f"--host-resolver-rules={','.join(f'MAP {name} {address}' for name in names)}",
                "--ignore-certificate-errors",
            ]
        user, group = _nobody()
        try:
            done = subprocess.run(
                [*argv, url], user=user, group=group, extra_groups=[], cwd="/", capture_output=True, text=True,
                env={"PATH": os.defpath, "HOME": str(folder)}, timeout=PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RehearsalError(f"{browser} made no picture of {url} within {PATIENCE} s") from None
        except OSError as error:
            raise RehearsalError(f"{browser} does not run here: {error.strerror}") from None
        content = picture.read_bytes() if picture.is_file() and not picture.is_symlink() else b""
        if not content.startswith(PNG):
            raise RehearsalError(f"{browser} made no picture of {url}: {last_lines(done.stderr)}")
    file.write_bytes(content)


def _nobody() -> tuple[int, int]:
    """The user and the group of nobody, by the numbers that they have everywhere."""
    return 65534, 65534


def write_card(folder: Path, title: str, text: str, *, notes: Sequence[str] = ()) -> Path:
    """Write `card.md` into the folder and return it. `text` can be anything: it stands in a code block."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    file = folder / "card.md"
    lines = [f"## {title}", "", *notes, *([""] if notes else []), fence, text.strip("\n"), fence, ""]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def picture_note() -> str:
    """The sentence that says where the screenshot is: with the run on a forge, or beside the card."""
    get = os.environ.get
    if get("GITHUB_RUN_ID"):
        run = f"{get('GITHUB_SERVER_URL')}/{get('GITHUB_REPOSITORY')}/actions/runs/{get('GITHUB_RUN_ID')}"
    elif get("CI_JOB_URL"):
        run = f"{get('CI_JOB_URL')}/artifacts/browse/card"
    else:
        return "`screenshot.png` beside this file shows the front page."
    return f"A screenshot of the front page is in the artifact `rehearsal` of [this run]({run})."
