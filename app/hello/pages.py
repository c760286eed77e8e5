"""The pages: one for people, the same as JSON, a health check, and an echo."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flask import Blueprint, current_app, render_template, request
from flask.typing import ResponseReturnValue

pages = Blueprint("pages", __name__)

CHUNK = 64 * 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class RequestDetails:
    """What the application knows of one request, and of itself."""

    client: str  # IP address; "unknown" on a unix socket without a proxy's header
    scheme: str  # "http" or "https"
    host: str  # as in the Host header, with the port if that has one
    release: str
    machine: str
    visits: int | None  # since the data folder was made; None if the folder cannot be written
    problem: str | None  # why `visits` is None


@pages.get("/")
def index() -> str:
    """Show the request to people."""
    return render_template("index.html", seen=_request_details())


@pages.get("/request")
def request_as_json() -> ResponseReturnValue:
    """Show the request to programs."""
    return asdict(_request_details())


@pages.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer the health check without using a disk, a database or another service.

    If a shared service failed, a load balancer would otherwise take all machines out of rotation at once.
    """
    return {"status": "ok", "release": current_app.config["RELEASE"]}


@pages.post("/echo")
def echo() -> ResponseReturnValue:
    """Return the length of a body of any type, without storing it: this shows how large a body may be.

    The answer is 413 above MAX_CONTENT_LENGTH, also without a Content-Length. There is no CSRF token, because there
    is no session and nothing changes, so a forged request is useless.
    """
    length = 0
    # Stop at the announced length: Werkzeug takes another read at the limit for a body that is too large.
    while length != request.content_length and (chunk := request.stream.read(CHUNK)):
        length += len(chunk)
    return {"method": request.method, "length": length}


def _request_details() -> RequestDetails:
    """Count the visit and collect what the pages show."""
    visits, problem = None, None
    counter = current_app.extensions["visits"]
    try:
        visits = counter.count()
    except OSError as error:
        # The page is shown without the counter. The path is for the log, not for the public.
        problem = f"The data folder cannot be written: {error.strerror}."
        current_app.logger.warning("Visits are not counted: %s. Set DATA_DIR to a writable folder.", error)
    return RequestDetails(
        client=request.remote_addr or "unknown",
        scheme=request.scheme,
        host=request.host,
        release=current_app.config["RELEASE"],
        machine=current_app.config["MACHINE"],
        visits=visits,
        problem=problem,
    )
