"""Makes what runs on machines importable, as `decant_host`, and keeps this computer's own settings out."""

from __future__ import annotations

import sys

import pytest

from tests.unit.paper import REPOSITORY

sys.path.append(str(REPOSITORY / "infra" / "decant" / "host" / "python"))


@pytest.fixture(autouse=True)
def no_settings_of_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy, a cloud's token or a Pulumi setting of whoever runs the tests must not change what they find."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PULUMI_CONFIG", "PULUMI_CONFIG_SECRET_KEYS", "PULUMI_CONFIG_PASSPHRASE",
                 "PULUMI_CONFIG_PASSPHRASE_FILE", "DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
