"""The certificate outlives its machine: what has to be saved of it, and putting that on another machine."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, cast

from decant_host.atomic import read_json
from decant_host.certificate import adopt_state, https_settings
from decant_host.certificate_files import (
    Certificate,
    certificate_lock,
    install_certificate,
    live_certificate,
    plain_name,
    read_certificate,
)
from decant_host.certificate_order import LINEAGE, ordered_from
from decant_host.errors import HostError
from decant_host.paths import ACME_DATA, CERTIFICATE_STATE, TLS

STATE = "state.json"

# What is saved, relative to ACME_DATA; and what the links in live/ lead to. Nothing else is ever unpacked.
_FILE = re.compile(
    r"accounts(/[\w.:-]+)+/(private_key|regr|meta)\.json"
    rf"|archive/{LINEAGE}/(cert|chain|fullchain|privkey)\d+\.pem"
    rf"|renewal/{LINEAGE}\.conf|{STATE}"
)
_LINK = re.compile(rf"live/{LINEAGE}/(cert|chain|fullchain|privkey)\.pem")
_LINK_TARGET = re.compile(rf"\.\./\.\./archive/{LINEAGE}/(cert|chain|fullchain|privkey)\d+\.pem")
_LARGEST = 1 << 20


class Saved(TypedDict):
    """Output of `certificate-save` and input of `certificate-restore`: a tgz as base64; None where there is none."""

    saved: str | None


class Restored(TypedDict):
    """Output of `certificate-restore`. `reason`: why not."""

    restored: bool
    reason: str


def save_certificate() -> Saved:
    """What another machine needs to go on with this certificate: secret, because it holds two private keys."""
    if not TLS.is_dir():
        return {"saved": None}
    with certificate_lock():
        live = ACME_DATA / "live" / LINEAGE
        if read_certificate(live / "fullchain.pem", live / "privkey.pem") is None:
            return {"saved": None}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for path in _files_to_save():
                tar.add(path, arcname=str(path.relative_to(ACME_DATA)), recursive=False)
            if CERTIFICATE_STATE.exists():
                tar.add(CERTIFICATE_STATE, arcname=STATE)
    return {"saved": base64.b64encode(buffer.getvalue()).decode()}


def _files_to_save() -> Iterator[Path]:
    """The accounts, and of the certificate the generation that is used now."""
    for path in sorted((ACME_DATA / "accounts").rglob("*.json")):
        if not path.is_symlink() and not path.parent.is_symlink():
            yield path
    for path in sorted((ACME_DATA / "live" / LINEAGE).glob("*.pem")):
        yield Path(os.path.normpath(path.parent / path.readlink()))
        yield path
    yield ACME_DATA / "renewal" / f"{LINEAGE}.conf"


def restore_certificate(saved: Saved) -> Restored:
    """Take what was saved on another machine, where it is newer than what is here, valid, and for the site's name.

    Raises HostError for what `certificate-save` has not made.
    """
    settings = https_settings()
    if saved["saved"] is None:
        return _refused("nothing was saved")
    if settings is None or settings["own"]:
        return _refused("this machine gets no certificate by itself")
    name = plain_name(settings["names"][0])
    with certificate_lock(), tempfile.TemporaryDirectory(dir=ACME_DATA.parent, prefix=".certificate-") as folder:
        unpacked = Path(folder) / "certbot"
        _unpack(saved["saved"], unpacked)
        live = unpacked / "live" / LINEAGE
        found, here = read_certificate(live / "fullchain.pem", live / "privkey.pem"), live_certificate()
        if found is None or not found.is_valid(name):
            return _refused(f"what was saved is not valid for {name} now")
        if ordered_from(unpacked) != settings["server"]:
            return _refused(f"what was saved is not from {settings['server']}")
        if here and not _is_newer(found, here):
            return _refused("the machine's own is as new")
        _take_over(unpacked, found)
    return {"restored": True, "reason": ""}


def _refused(reason: str) -> Restored:
    return {"restored": False, "reason": reason}


def _is_newer(found: Certificate, here: Certificate) -> bool:
    return found.serial != here.serial and found.not_before > here.not_before


def _unpack(text: str, folder: Path) -> None:
    """Write the files of an archive below a folder, if they are all of those that are saved."""
    folder.mkdir(mode=0o700)
    try:
        data = base64.b64decode(text, validate=True)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            for member in tar:
                is_file = member.isfile() and bool(_FILE.fullmatch(member.name)) and ".." not in member.name
                is_link = member.issym() and bool(
                    _LINK.fullmatch(member.name) and _LINK_TARGET.fullmatch(member.linkname)
                )
                if not is_file and not is_link:  # before anything is made at this path
                    raise HostError(f"the saved certificate holds {member.name!r}, which no certificate needs.")
                path = folder / member.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if is_link:
                    path.symlink_to(member.linkname)
                else:
                    content = cast("io.BufferedReader", tar.extractfile(member)).read(_LARGEST)
                    path.write_bytes(content)
                    path.chmod(0o600)
    except (binascii.Error, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise HostError(f"the saved certificate cannot be read: {error}") from None


def _take_over(unpacked: Path, found: Certificate) -> None:
    """Replace what the ACME client has, and let nginx serve the certificate.

    The folder itself stays: the client's unit, which may wait for the lock, has it mounted.
    """
    state = unpacked / STATE
    kept = read_json(state) if state.exists() else {}
    state.unlink(missing_ok=True)
    for path in ACME_DATA.iterdir():
        shutil.rmtree(path)
    for path in unpacked.iterdir():
        path.rename(ACME_DATA / path.name)
    live = ACME_DATA / "live" / LINEAGE
    install_certificate(live / "fullchain.pem", live / "privkey.pem", found)
    adopt_state(kept)
