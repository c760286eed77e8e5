"""The few addresses that the application answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flask import Blueprint, current_app, render_template, request
from flask.typing import ResponseReturnValue

pages = Blueprint("pages", __name__)

CHUNK = 64 * 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the application believes of one request, and of itself."""

    client: str  # IP address, or "unknown": a unix socket without a proxy's header has none
    scheme: str  # "http" or "https"
    host: str  # as in the Host header, with the port if that has one
    release: str
    machine: str
    visits: int | None  # since the data folder was made; None if it cannot be written
    problem: str | None  # why `visits` is None


@pages.get("/")
def index() -> str:
    """A page for people."""
    return render_template("index.html", seen=_look())


@pages.get("/request")
def request_as_json() -> ResponseReturnValue:
    """The same for programs."""
    return asdict(_look())


@pages.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Say that this process answers. It asks nothing of a disk, a database or another service, on purpose:
    a balancer that asks here would otherwise take every machine out at once when a shared one stumbles.
    """
    return {"status": "ok", "release": current_app.config["RELEASE"]}


@pages.post("/echo")
def echo() -> ResponseReturnValue:
    """Count the bytes of a body, whatever its type, and keep none: it shows how large a body gets through.

    413 above MAX_CONTENT_LENGTH, also when the length was not announced. There is no CSRF token, because
    there is no session and nothing changes: forging a request here gains nobody anything.
    """
    length = 0
    # Not one read more than announced: at the limit, Werkzeug takes that for a body that is too large.
    while length != request.content_length and (chunk := request.stream.read(CHUNK)):
        length += len(chunk)
    return {"method": request.method, "length": length}


def _look() -> Seen:
    visits, problem = None, None
    counter = current_app.extensions["visits"]
    try:
        visits = counter.count()
    except OSError as error:
        # The page is worth more than its counter. The path is for the log, not for the public.
        problem = f"The data folder cannot be written: {error.strerror}."
        current_app.logger.warning("Visits are not counted: %s. Set DATA_DIR to a writable folder.", error)
    return Seen(
        client=request.remote_addr or "unknown",
        scheme=request.scheme,
        host=request.host,
        release=current_app.config["RELEASE"],
        machine=current_app.config["MACHINE"],
        visits=visits,
        problem=problem,
    )
