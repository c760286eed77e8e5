"""The Debian that runs here: what Debian 12 has in another way than Debian 13, whose names Decant uses."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from functools import cache

PYTHON = "3.13"
"""The Python of Debian 13, and of every release that asks for no other one."""

_BOOKWORM: Mapping[str, str] = {
    "libdmtx0t64": "libdmtx0b",
    "libgdal36": "libgdal32",
    "libgeos-c1t64": "libgeos-c1v5",
    "libicu76": "libicu72",
    "libldap2": "libldap-2.5-0",
    "libmagickwand-7.q16-10": "libmagickwand-6.q16-6",
    "libpoppler-cpp2": "libpoppler-cpp0v5",
    "libspatialindex-c8": "libspatialindex-c6",
    "libspatialindex8": "libspatialindex6",
}
"""Debian 12's packages by the names of Debian 13. Besides, no package of Debian 12 has `t64` in its name."""


@cache
def version() -> int:
    """The number of this machine's Debian, such as 13."""
    return int(platform.freedesktop_os_release().get("VERSION_ID", "13"))


@cache
def suite() -> str:
    """The name of this machine's Debian, such as `trixie`."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "trixie")


def package(name: str) -> str:
    """What this machine's Debian calls a package of Debian 13; `name=version` stays as it is."""
    if version() >= 13 or "=" in name:
        return name
    return _BOOKWORM.get(name) or name.replace("t64", "")


def own_python() -> str:
    """The version of Debian's own Python, which runs this program: `3.13` on Debian 13, `3.11` on Debian 12."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"
