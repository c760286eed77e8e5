"""The id of a release: a hash of everything that decides how a request is served."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from decant.app.model import App, Bundle


def release_id(bundle: Bundle, config: Mapping[str, Any], secrets: Mapping[str, str], key: str) -> str:
    """The id of a release: 12 hexadecimal digits (`decant_host.protocol.RELEASE_ID`).

    `config` is what the settings add to the code: the entry point, the environment, the number of workers and so on.
    Secrets enter the hash by an HMAC with `key`, which only the stack has: the id can be public, because a guess at a
    secret cannot be checked against it without that key.
    """
    mac = ""
    if secrets:
        secret_key = hashlib.sha256(b"decant release id\0" + key.encode()).digest()
        mac = hmac.new(secret_key, _canonical(secrets), hashlib.sha256).hexdigest()
    parts = [bundle.code_hash, bundle.requirements_hash, config, mac]
    return hashlib.sha256(_canonical(parts)).hexdigest()[:12]


def app_config(app: App) -> dict[str, Any]:
    """What an app folder adds to a release's description, as JSON: how a machine installs it, serves it and writes."""
    return {
        "entry": app.web.wsgi_app,
        "gunicorn": dict(app.web.gunicorn),
        "gunicorn_config": app.web.config_file,
        "wrapper": list(app.web.wrapper),
        "release_command": app.web.release_command,
        "static": app.static,
        "install": list(app.packages.install),
        "install_project": app.packages.project,
        "locked": app.packages.hashed,
        "install_variables": list(app.packages.variables),
        "python": None if app.python.system else app.python.version,
        "debian_packages": list(app.debian_packages),
        "persistent": list(app.persistent),
        # Only where there is one, so that the ids of other releases stay.
        **({"table_line": app.table_line} if app.table_line else {}),
    }


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
