"""What Debian 12 has in another way than Debian 13."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import pytest

from decant_host import debian


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What os-release says."""
    monkeypatch.undo()  # the machine of the other tests
    found: dict[str, str] = {}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: found)
    for cached in (debian.version, debian.suite):
        cached.cache_clear()
    yield found
    for cached in (debian.version, debian.suite):
        cached.cache_clear()


def test_the_machine_says_which_debian_it_is(release: dict[str, str]) -> None:
    release |= {"VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}
    assert (debian.version(), debian.suite()) == (12, "bookworm")
    assert debian.own_python() == f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("name", "on_12"),
    [
        ("libpq5", "libpq5"),
        ("libglib2.0-0t64", "libglib2.0-0"),
        ("libcurl3t64-gnutls", "libcurl3-gnutls"),
        ("libgdal36", "libgdal32"),
        ("libgeos-c1t64", "libgeos-c1v5"),
        ("libldap2", "libldap-2.5-0"),
        ("libglib2.0-0t64=2.84.4", "libglib2.0-0t64=2.84.4"),
    ],
)
def test_packages_have_the_names_of_this_debian(name: str, on_12: str, request: pytest.FixtureRequest) -> None:
    assert debian.package(name) == name
    request.getfixturevalue("debian_12")
    assert debian.package(name) == on_12
