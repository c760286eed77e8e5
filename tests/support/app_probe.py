"""WSGI middleware for the app on a throwaway machine, which shows tests what the app sees and can do.

With the header `X-Probe: environ`, a request is answered with its WSGI environment and the length of its body, as JSON.
With `X-Probe: run`, the worker runs the body as Python code, and the answer is what the code prints. Method and address
of every request are appended to $DATA_DIR/requests.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from collections.abc import Callable, Iterable
from typing import Any


class Probe:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with open(os.path.join(os.environ["DATA_DIR"], "requests"), "a") as log:  # noqa: PTH118, PTH123
            log.write(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}\n")
        wanted = environ.get("HTTP_X_PROBE")
        if wanted == "environ":
            length = len(environ["wsgi.input"].read())
            seen = {key: value for key, value in environ.items() if isinstance(value, str)}
            answer = json.dumps({**seen, "length": length})
        elif wanted == "run":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                try:
                    exec(environ["wsgi.input"].read().decode(), {})
                except Exception:
                    print(traceback.format_exc())
            answer = said.getvalue()
        else:
            return self.app(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer.encode()]
