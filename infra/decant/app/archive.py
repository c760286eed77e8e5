"""The archive of an app: a reproducible tar of its files, and the cache folder for such tars.

The same folder gives the same bytes on every computer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

from decant.app.files import app_files, open_file, printable
from decant.app.model import App, Bundle
from decant.errors import AppError

LARGEST = 512 * 1024 * 1024
KEPT = 10  # tars of each kind in the cache folder
UNFINISHED = 24 * 3600  # seconds after which nobody writes a tar any more


class _HashingReader(io.RawIOBase):
    """A file that hashes what is read of it, so that the hash is that of the bytes that are shipped."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        return data


class _Packer:
    """Adds files to a tar and to the hash of the code. No file is held in memory as a whole: an app may be large."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see `finish`
        self.code = hashlib.sha256()
        self.digests: dict[str, str] = {}

    def add_link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o755
        self._add(info, io.BytesIO())

    def add_file(self, name: str, file: BinaryIO, size: int, *, executable: bool) -> None:
        info = tarfile.TarInfo(name)
        # Only the executable bit is content; umasks and Windows change the others.
        info.size, info.mode = size, 0o755 if executable else 0o644
        self._add(info, file)

    def _add(self, info: tarfile.TarInfo, file: BinaryIO) -> None:
        if self.out.tell() + info.size > LARGEST:
            raise AppError("app", (f"is over {LARGEST >> 20} MB", "move data out of it, or list it in .gitignore"))
        reader = _HashingReader(file)
        try:
            self.tar.addfile(info, reader)
        except OSError as error:
            if str(error) != "unexpected end of data":
                raise
            changed = f"has a file {printable(info.name)} that became shorter while it was read"
            raise AppError("app", (changed, "wait until nothing writes to it, or list it in .gitignore")) from None
        entry = json.dumps([info.name, info.mode, info.linkname, reader.sha256.hexdigest()]).encode()
        self.code.update(entry)
        self.digests[printable(info.name)] = hashlib.sha256(entry).hexdigest()[:16]

    def finish(self) -> None:
        self.tar.close()


def pack(app: App, folder: Path) -> Bundle:
    """The app folder as a tar in `folder`, of which all but the newest tars are removed.

    Raises:
        AppError: for a link that leads out of the app folder, for an app that is too large, where git cannot say which
            files are ignored, and where the tar cannot be written.
    """
    try:
        return _pack(app, folder)
    except OSError as error:
        reason = f"cannot be packed into {folder.resolve()} ({error.strerror or error})"
        raise AppError("app", (reason, "look at that folder's disk (df -h), then run the same command again")) from None


def _pack(app: App, folder: Path) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"app.{os.getpid()}"
    try:
        with unfinished.open("wb") as out:
            packer = _Packer(out)
            files = _add_all(packer, app)
            packer.finish()
        sha256, size = _sha256(unfinished), unfinished.stat().st_size
        path = folder / f"app-{packer.code.hexdigest()[:12]}.tar"
        if not path.exists() or _sha256(path) != sha256:
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _prune(path)
    return Bundle(
        path=path,
        size=size,
        sha256=sha256,
        code_hash=packer.code.hexdigest(),
        requirements_hash=_requirements_hash(app, packer.code.digest()),
        files=files,
        digests={name: digest for name, digest in packer.digests.items() if name not in app.packages.generated},
    )


def _add_all(packer: _Packer, app: App) -> int:
    """Add the folder's files, then those that were generated; how many of the folder's own there are."""
    generated = app.packages.generated
    entries = sorted(
        (entry for entry in app_files(app.folder) if entry[0] not in generated), key=lambda entry: entry[0]
    )
    for name, path in entries:
        if path.is_symlink():
            packer.add_link(name, _link_target(app.folder, path))
            continue
        with open_file(app.folder, name) as file:
            facts = os.fstat(file.fileno())
            packer.add_file(name, file, facts.st_size, executable=bool(facts.st_mode & 0o100))
    for name, content in sorted(generated.items()):
        packer.add_file(name, io.BytesIO(content), len(content), executable=False)
    return len(entries)


def _requirements_hash(app: App, code: bytes) -> str:
    packages = app.packages
    digest = hashlib.sha256(json.dumps([packages.install, packages.project, app.python.version]).encode())
    for name in packages.files:
        content = packages.generated[name] if name in packages.generated else (app.folder / name).read_bytes()
        digest.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    if packages.local:
        digest.update(code)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    _prune(path)
    return path


def _prune(kept: Path) -> None:
    """Remove all but the newest tars of a file's kind from its folder; the file itself stays."""
    kind = kept.name.partition("-")[0]
    by_age = sorted(kept.parent.glob(f"{kind}-*.tar"), key=lambda p: p.stat().st_mtime)
    for old in by_age[:-KEPT]:
        if old != kept:
            old.unlink(missing_ok=True)
    for unfinished in kept.parent.glob(f"{kind}.[0-9]*"):  # of runs that were killed
        if time.time() - unfinished.stat().st_mtime > UNFINISHED:
            unfinished.unlink(missing_ok=True)
