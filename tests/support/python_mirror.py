"""A mirror of Pythons on this computer: one of its own, in the form that uv downloads, and the list that names it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A running mirror. `version` is that of its only Python, such as `3.11.2`."""

    url: str
    version: str

    @property
    def minor(self) -> str:
        return self.version.rpartition(".")[0]


def _interpreters() -> Iterator[Path]:
    yield from sorted(Path("/usr/bin").glob("python3.[0-9]*"))
    yield Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def usable_python() -> tuple[Path, str] | None:
    """A Python of this computer that is not 3.13 and needs no library of its own beside it, with its version."""
    for path in _interpreters():
        if not re.fullmatch(r"python3\.\d+", path.name) or path.name == "python3.13" or not path.exists():
            continue
        libraries = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        if "libpython" not in libraries:
            said = subprocess.run([str(path), "-V"], capture_output=True, text=True, check=True).stdout
            return path, said.split()[1]
    return None


def _make(folder: Path, interpreter: Path, version: str) -> None:
    minor = version.rpartition(".")[0]
    library = interpreter.resolve().parents[1] / "lib" / f"python{minor}"
    left_out = {"test", "__pycache__", "site-packages", "dist-packages", "idlelib", "EXTERNALLY-MANAGED"}

    def wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = set(Path(info.name).parts)
        if info.issym() and info.linkname.startswith("/"):
            return None  # Debian's settings; uv refuses such links
        return None if parts & left_out or any(part.startswith("config-") for part in parts) else info

    archive = folder / f"python-{version}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(interpreter.resolve(), f"python/bin/python{minor}")
        for name in ("python3", "python"):
            link = tarfile.TarInfo(f"python/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"python{minor}"
            tar.addfile(link)
        tar.add(library, f"python/lib/python{minor}", filter=wanted)
    (folder / "sha256").write_text(hashlib.sha256(archive.read_bytes()).hexdigest())


@contextlib.contextmanager
def serving(folder: Path, address: str, *, sha256: str | None = None) -> Iterator[Mirror]:
    """A mirror at `address` while the block runs; `sha256` is announced in place of the right one."""
    found = usable_python()
    assert found is not None
    interpreter, version = found
    _make(folder, interpreter, version)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer((address, 0), handler)
    url = f"http://{address}:{server.server_port}"
    machine = platform.machine()
    major, minor, patch = map(int, version.split("."))
    entry = {
        "name": "cpython", "arch": {"family": machine, "variant": None}, "os": "linux", "libc": "gnu", "major": major,
        "minor": minor, "patch": patch, "prerelease": "", "url": f"{url}/python-{version}.tar.gz",
        "sha256": sha256 or (folder / "sha256").read_text(), "variant": None, "build": None,
    }  # fmt: skip
    (folder / "downloads.json").write_text(json.dumps({f"cpython-{version}-linux-{machine}-gnu": entry}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Mirror(url=f"{url}/downloads.json", version=version)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
