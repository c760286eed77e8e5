"""The app as gunicorn serves it: the user's own application, each of whose answers says which release gave it.

The release protocol believes no answer without that header, so it cannot depend on the app to send it.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app

Headers = list[tuple[str, str]]


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


application = ReleaseHeader(import_app(os.environ["DECANT_APP"]), os.environ["DECANT_RELEASE"])
