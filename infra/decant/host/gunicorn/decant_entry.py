"""The app as gunicorn serves it: the user's own application, with the release id on each answer.

The release protocol accepts no answer without that header, so the app itself is not relied on to send it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app

COMPILE_SECONDS = 1.0  # after which no further template is compiled before the start
LARGEST_PAGE = 128 << 10  # characters
PAGES = ("html", "htm", "xml", "svg", "txt", "j2", "jinja", "jinja2")
FROM_FILES = {"FileSystemLoader", "PackageLoader"}


def describe_visit(environ: dict[str, Any]) -> None:
    """Put the visitor's address and scheme, and the site's name, where WSGI has them.

    gunicorn sees only a unix socket. nginx alone can connect to it, and sets these headers itself.
    """
    address = environ.get("HTTP_X_FORWARDED_FOR", "")
    if address and "," not in address:
        environ["REMOTE_ADDR"] = address
    scheme = environ.get("HTTP_X_FORWARDED_PROTO")
    if scheme in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    host, port = environ.get("HTTP_HOST", ""), ""
    if not host.endswith("]"):  # an IPv6 address without a port
        name, _, last = host.rpartition(":")
        host, port = (name, last) if name else (host, "")
    if host:
        environ["SERVER_NAME"] = host
        environ["SERVER_PORT"] = port or ("443" if environ["wsgi.url_scheme"] == "https" else "80")


class ReleaseHeader:
    """WSGI middleware that describes the visit, sets `X-Release` on every answer and removes any that the app set."""

    def __init__(self, app: Callable[..., Iterable[bytes]], release: str) -> None:
        self.app = app
        self.release = release

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            others = [h for h in headers if h[0].lower() != "x-release"]
            return start_response(status, [*others, ("X-Release", self.release)], exc_info)

        describe_visit(environ)
        return self.app(environ, start)


def compile_templates(app: Any) -> None:
    """Compile a Flask app's templates while there is only the master process and no visitor.

    Otherwise each worker compiles each page while its first visitors wait, and those come all at once when traffic
    switches to a release. Nothing is compiled for another kind of app, for another kind of template loader (one that
    reads a database would share its connection with all workers), for an app with a bytecode cache of its own, and for
    files too large to be pages. A template that does not compile is skipped: only the page that uses it fails.
    """
    deadline = time.monotonic() + COMPILE_SECONDS
    with contextlib.suppress(Exception):
        environment = app.jinja_env
        loaders = [app.jinja_loader, *(part.jinja_loader for part in app.iter_blueprints())]
        usual = {"DispatchingJinjaLoader"} == {type(environment.loader).__name__}
        if (
            not usual
            or environment.bytecode_cache
            or {type(loader).__name__ for loader in loaders if loader} - FROM_FILES
        ):
            return
        for name in environment.list_templates(extensions=PAGES):
            if time.monotonic() > deadline:
                return
            with contextlib.suppress(Exception):
                if len(environment.loader.get_source(environment, name)[0]) <= LARGEST_PAGE:
                    environment.get_template(name)


app = import_app(os.environ["DECANT_APP"])
compile_templates(app)
application = ReleaseHeader(app, os.environ["DECANT_RELEASE"])
