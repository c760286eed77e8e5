"""The app as gunicorn serves it: the user's own application, each of whose answers says which release gave it.

The release protocol believes no answer without that header, so it cannot depend on the app to send it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app

Headers = list[tuple[str, str]]
COMPILING = 1.0  # seconds after which no further template is compiled before the start
LARGEST_PAGE = 128 << 10  # characters
PAGES = ("html", "htm", "xml", "svg", "txt", "j2", "jinja", "jinja2")
FROM_FILES = {"FileSystemLoader", "PackageLoader"}


class ReleaseHeader:
    """WSGI middleware that puts `X-Release` on every answer, in place of any that the app set."""

    def __init__(self, app: Callable[..., Iterable[bytes]], release: str) -> None:
        self.app = app
        self.release = release

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            marked = [h for h in headers if h[0].lower() != "x-release"]
            return start_response(status, [*marked, ("X-Release", self.release)], exc_info)

        return self.app(environ, start)


def compile_templates(app: Any) -> None:
    """Compile a Flask app's templates while there is one process and no visitor.

    Each worker would compile each page at the expense of its first visitors, which come all at once when traffic
    switches to a release. Whatever is unusual is left alone: another kind of app or of loader (a database's, say, whose
    connection the workers would share), a cache of the app's own, files too large to be pages. A template that does
    not compile is the business of the page that uses it.
    """
    deadline = time.monotonic() + COMPILING
    with contextlib.suppress(Exception):
        environment = app.jinja_env
        loaders = [app.jinja_loader, *(part.jinja_loader for part in app.iter_blueprints())]
        usual = {"DispatchingJinjaLoader"} == {type(environment.loader).__name__}
        if not usual or environment.bytecode_cache or {type(one).__name__ for one in loaders if one} - FROM_FILES:
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
