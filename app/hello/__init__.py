"""A small Flask application to put live first, and then to replace with your own."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, request
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix

from hello.config import from_environ
from hello.pages import pages
from hello.visits import VisitCounter

# Beside wsgi.py and not inside this package, so that a web server can serve this folder and none of the code.
STATIC_FOLDER = Path(__file__).resolve().parents[1] / "static"

# The application sets these headers, so that they are the same with and without a web server in front.
# Strict-Transport-Security is not among them: only the server that has the certificate can promise HTTPS.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
}


class SessionCookies(SecureCookieSessionInterface):
    """Flask's session cookies, `Secure` for each visitor who comes over HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Over plain HTTP a browser would drop such a cookie, and a site may begin to have HTTPS at any time."""
        return super().get_cookie_secure(app) or request.is_secure


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application from environment variables; `config` overrides single Flask configuration keys.

    Raises:
        ConfigError: environment variables have bad values; the text names all of them.
    """
    app = Flask(__name__, static_folder=STATIC_FOLDER, static_url_path="/static")
    app.config.from_mapping(from_environ(os.environ))
    app.config.from_mapping(config or {})
    app.config["MACHINE"] = app.config["MACHINE"] or socket.gethostname()

    # The counter opens its file at each visit: one opened here, before gunicorn forks, would be shared by all workers.
    app.extensions["visits"] = VisitCounter(Path(app.config["DATA_DIR"] or app.instance_path) / "visits")
    app.session_interface = SessionCookies()
    app.register_blueprint(pages)
    app.after_request(_add_headers)

    if hops := app.config["PROXY_HOPS"]:
        # Each proxy writes one entry into each of these two headers. Trusting one entry more than there are proxies
        # would let a visitor choose the address that the app sees. No other forwarded header is trusted.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=0, x_port=0, x_prefix=0
        )
    return app


def _add_headers(response: Response) -> Response:
    """Add the release id and the security headers to every response, errors and static files included."""
    response.headers["X-Release"] = current_app.config["RELEASE"]
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)  # a view may set its own
    if request.endpoint != "static":
        # These responses contain the visitor's address, so no cache may store them.
        response.headers.setdefault("Cache-Control", "no-store")
    return response
