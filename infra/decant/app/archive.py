"""The archive of an app: a reproducible tar of its files, and the cache folder for such tars.

The same folder gives the same bytes on every computer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from decant.app.files import app_files, read_file
from decant.app.model import App, Bundle
from decant.errors import AppError

LARGEST = 512 * 1024 * 1024
KEPT = 10  # tars of each kind in the cache folder


def pack(app: App) -> Bundle:
    """The app folder as a tar.

    Raises:
        AppError: for a link that leads out of the folder, for an app that is too large, and where git cannot say which
            files are ignored.
    """
    generated = app.packages.generated
    entries = sorted(
        (entry for entry in app_files(app.folder) if entry[0] not in generated), key=lambda entry: entry[0]
    )
    buffer = io.BytesIO()
    code = hashlib.sha256()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in entries:
            info = tarfile.TarInfo(name)
            if path.is_symlink():
                info.type, info.linkname, content = tarfile.SYMTYPE, _link_target(app.folder, path), b""
            else:
                content = read_file(app.folder, name)
                info.size = len(content)
            # Only the executable bit is content; umasks and Windows change the others.
            info.mode = 0o755 if path.is_symlink() or path.stat().st_mode & 0o100 else 0o644
            tar.addfile(info, io.BytesIO(content))
            code.update(json.dumps([name, info.mode, info.linkname, hashlib.sha256(content).hexdigest()]).encode())
            if buffer.tell() > LARGEST:
                raise AppError("app", (f"is over {LARGEST >> 20} MB", "move data out of it, or list it in .gitignore"))
        for name, content in sorted(generated.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
            code.update(json.dumps([name, info.mode, "", hashlib.sha256(content).hexdigest()]).encode())
    packages = app.packages
    requirements = hashlib.sha256(json.dumps([packages.install, packages.project, app.python.version]).encode())
    for name in packages.files:
        content = generated[name] if name in generated else (app.folder / name).read_bytes()
        requirements.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    if packages.local:
        requirements.update(code.digest())
    return Bundle(
        data=buffer.getvalue(),
        code_hash=code.hexdigest(),
        requirements_hash=requirements.hexdigest(),
        files=len(entries),
    )


def _link_target(folder: Path, path: Path) -> str:
    target = path.readlink()
    inside = (path.parent / target).resolve().is_relative_to(folder.resolve())
    if target.is_absolute() or not inside:
        name = path.relative_to(folder)
        raise AppError(
            "app", (f"has a link {name} that leads out of the folder", f"replace {name} by what it points to")
        )
    return target.as_posix()


def cache_file(folder: Path, name: str, data: bytes) -> Path:
    """Write a file named KIND-DIGEST.tar into `folder`, and remove all but the newest files of that kind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists() or path.read_bytes() != data:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(data)
        unfinished.replace(path)
    by_age = sorted(folder.glob(f"{name.partition('-')[0]}-*.tar"), key=lambda p: p.stat().st_mtime)
    for old in by_age[:-KEPT]:
        if old != path:
            old.unlink(missing_ok=True)
    return path
