"""Makes the tests run from this folder and from the one above, whatever the shell's environment holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

APP_FOLDER = Path(__file__).resolve().parents[1]
sys.path.append(str(APP_FOLDER))

VARIABLES = (
    "DECANT_RELEASE", "DECANT_MACHINE", "DATA_DIR", "PROXY_HOPS", "PREFERRED_URL_SCHEME", "TRUSTED_HOSTS",
    "SECRET_KEY", "SECRET_KEY_FALLBACKS", "FLASK_DEBUG", "GUNICORN_CMD_ARGS", "PORT", "WEB_CONCURRENCY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets, and a data folder of its own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flask]:
    """Make an application from environment variables, as a server does: `make_app(PROXY_HOPS=1)`."""

    def make(config: dict[str, Any] | None = None, **variables: object) -> Flask:
        from hello import create_app

        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return create_app(config)

    return make
