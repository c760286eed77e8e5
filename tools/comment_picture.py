# /// script
# requires-python = ">=3.11"
# dependencies = ["markdown-it-py==4.0.0"]
# ///
"""Makes the picture of a comment for docs/ci.md: `.venv/bin/uv run tools/comment_picture.py preview.md picture.png`."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

WIDTH, TALLEST = 900, 2400  # CSS pixels
# As GitHub shows a comment: its font, sizes and colours, in the light theme.
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 16px; font: 14px/1.5 "Liberation Sans", "DejaVu Sans", sans-serif; color: #1f2328; background: #fff }}
.comment {{ border: 1px solid #d1d9e0; border-radius: 6px }}
.head {{ background: #f6f8fa; border-bottom: 1px solid #d1d9e0; border-radius: 6px 6px 0 0; padding: 8px 16px;
         color: #59636e }}
.head b {{ color: #1f2328 }}
.head span {{ border: 1px solid #d1d9e0; border-radius: 2em; padding: 0 7px; font-size: 12px }}
.body {{ padding: 16px }} .body > :first-child {{ margin-top: 0 }} .body > :last-child {{ margin-bottom: 0 }}
h2 {{ font-size: 21px; border-bottom: 1px solid #d1d9e0; padding-bottom: 4px }} h3 {{ font-size: 17px }}
code, pre {{ font: 12px "Liberation Mono", "DejaVu Sans Mono", monospace; background: #eff1f3; border-radius: 6px }}
code {{ padding: 2px 4px }} pre {{ padding: 12px; overflow: hidden }} pre code {{ padding: 0 }}
ul {{ padding-left: 28px }} li + li {{ margin-top: 4px }} summary {{ cursor: pointer }}
</style><div class="comment"><div class="head"><b>github-actions</b> <span>bot</span> commented</div>
<div class="body">{body}</div></div>"""


def main() -> int:
    """Render the Markdown of a preview, and have Chromium make a picture of it, cut where the comment ends."""
    if len(sys.argv) != 3:
        print("usage: .venv/bin/uv run tools/comment_picture.py preview.md picture.png", file=sys.stderr)
        return 2
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("Chromium makes the picture, and it is not here: apt-get install chromium", file=sys.stderr)
        return 1
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    target = Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "comment.html")
        page.write_text(PAGE.format(body=rendered(text)), encoding="utf-8")
        _run(browser, folder, f"--window-size={WIDTH},{height(browser, folder, page)}", f"--screenshot={target}", page)
    print(f"{target} is made.")
    return 0


def rendered(text: str) -> str:
    """The Markdown as HTML, as GitHub renders it: only a fold of ours is HTML in it."""
    return str(MarkdownIt("commonmark", {"html": True}).render(text))


def height(browser: str, folder: str, page: Path) -> int:
    """The height of the page in pixels, which the page itself tells."""
    told = Path(folder, "told.html")
    script = "<script>document.title = document.querySelector('.comment').getBoundingClientRect().bottom</script>"
    told.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
    found = _run(browser, folder, f"--window-size={WIDTH},{TALLEST}", "--dump-dom", told)
    number = html.unescape(found.partition("<title>")[2].partition("</title>")[0])
    return min(TALLEST, round(float(number)) + 16)


def _run(browser: str, folder: str, *argv: str | Path) -> str:
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile")
    command = [browser, *options, *map(str, argv[:-1]), Path(argv[-1]).as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


if __name__ == "__main__":
    sys.exit(main())
