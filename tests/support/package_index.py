"""A package index and a git repository on this computer that want a login, with one small package each."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.app_folders import committed, git

WHEEL = "shop_private-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """A wheel with one module and no dependency."""
    buffer = io.BytesIO()
    info = "shop_private-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("shop_private.py", "NAME = 'private'\n")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: shop-private\nVersion: 1.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", f"shop_private.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return buffer.getvalue()


def repository(folder: Path) -> None:
    """A bare repository that a plain web server can serve, with a package that needs nothing to be built."""
    source = committed(
        folder / "source",
        {
            "pyproject.toml": '[project]\nname = "shop-repository"\nversion = "2.0"\n[build-system]\n'
            'requires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
            "shop_repository.py": "",
        },
    )
    git(folder, "clone", "-q", "--bare", str(source), "shop.git")
    git(folder / "shop.git", "update-server-info")
    shutil.rmtree(source)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, token: str, **more: Any) -> None:
        self.token = token
        super().__init__(*arguments, **more)

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        user = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")[0] if given else ""
        if user != self.token:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, address: str, token: str) -> Iterator[str]:
    """HOST:PORT of a server where `token` is the user of simple/shop-private/ and of shop.git."""
    page = folder / "simple" / "shop-private"
    page.mkdir(parents=True)
    (page / WHEEL).write_bytes(wheel())
    (page / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>\n')
    repository(folder)
    handler = functools.partial(_Handler, directory=str(folder), token=token)
    server = ThreadingHTTPServer((address, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
