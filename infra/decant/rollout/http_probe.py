"""Requests to the public URL, and waiting until it serves the expected release."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Set
from dataclasses import dataclass
from email.message import Message
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from decant.errors import NotInRotationError, RolloutError
from decant.rollout.report import log
from decant.rollout.route import Route
from decant.rollout.timeouts import PROBE_TIMEOUT

MAX_BODY = 1 << 16
"""Bytes of a response body that are read at most."""

BY_NAME = Route()
"""The usual way: where the URL's name leads to."""

LOG_INTERVAL = 15.0
"""Seconds between two messages while something is waited for."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the public URL answered.

    `status` 0 means that no whole answer came. `why` describes the answer, or says why there is none. `release` and
    `machine` are the headers X-Release and X-Machine. `at` is when the request began, on the monotonic clock, and
    `seconds` how long it took.
    """

    status: int
    release: str
    machine: str
    why: str
    at: float
    seconds: float

    def is_good(self, *, needs_200: bool) -> bool:
        """Return whether a release answered well: with 200 at a health path, else with any status below 500."""
        return bool(self.release) and (self.status == 200 if needs_200 else 0 < self.status < 500)

    def serves(self, release: str, *, needs_200: bool = True) -> bool:
        """Return whether this is a good answer of the release."""
        return self.is_good(needs_200=needs_200) and self.release == release

    def __str__(self) -> str:
        return self.why + (f" from release {self.release}" if self.release else "")


class _RedirectsOfProxies(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same host, such as a proxy's from http to https, unless a release gave it.

    The app's own redirects are answers. It also chooses their targets, and this computer may reach services that the
    app cannot.
    """

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if headers.get("X-Release") or urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        fp.close()  # urllib would read the redirect's body to its end, however slowly it comes
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@cache
def _opener(route: Route) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_RedirectsOfProxies, *route.handlers())


def probe(url: str, timeout: float = PROBE_TIMEOUT, route: Route = BY_NAME) -> ProbeResult:
    """Send one GET request on a new connection, from this computer. Raises nothing: every failure is a result.

    A certificate is verified, as a browser does it.
    """
    began = time.monotonic()

    def result(status: int, headers: Mapping[str, str] | Message, why: str) -> ProbeResult:
        return ProbeResult(
            status=status,
            release=headers.get("X-Release", ""),
            machine=headers.get("X-Machine", ""),
            why=why,
            at=began,
            seconds=time.monotonic() - began,
        )

    # nginx answers a request with X-Decant-Probe with the machine's tag in X-Machine.
    headers = {"User-Agent": "decant", "X-Decant-Probe": "1"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the settings allow http and https only
    try:
        with _opener(route).open(request, timeout=timeout) as reply:
            expected = min(int(reply.headers.get("Content-Length", 0)), MAX_BODY)
            received = 0
            while received < MAX_BODY and (piece := reply.read1(MAX_BODY)):
                received += len(piece)
                # The socket's time-out is for each read; without this check an answer that trickles would never end.
                if (not expected or received < expected) and time.monotonic() - began > timeout:
                    return result(0, {}, f"no whole answer within {timeout:.0f} s")
            if received < expected:
                return result(0, {}, "an answer that was cut short")
            return result(reply.status, reply.headers, f"status {reply.status}")
    except urllib.error.HTTPError as error:
        location = error.headers.get("Location")  # of a redirect that is not followed
        target = f" to {location[:200]!r}" if location else ""
        return result(error.code, error.headers, f"status {error.code}{target}")
    except urllib.error.URLError as error:
        return result(0, {}, str(error.reason))
    # http.client's own errors are not OSErrors; a Content-Length that is not a number is a ValueError.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return result(0, {}, str(error) or type(error).__name__)


def wait_for_release(
    url: str, release: str, timeout: float, *, needs_200: bool = True, route: Route = BY_NAME
) -> ProbeResult:
    """Wait until the URL gives a good answer with the release's id, and return that answer.

    Raises:
        RolloutError: it did not within `timeout` seconds; the message has the last answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = probe(url, route=route)
        if result.serves(release, needs_200=needs_200):
            return result
        if time.monotonic() > deadline:
            raise RolloutError(
                f"{url} gave {result} instead of {_wanted(needs_200)} from release {release}.\n"
                f"  The machine itself serves it. Is port {port_of(url)} open to this computer? Does the name lead to"
                " the machine?"
            )
        time.sleep(0.1)


def _wanted(needs_200: bool) -> str:
    return "200" if needs_200 else "a status below 500"


def port_of(url: str) -> int:
    """Return the TCP port that a URL leads to."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def routes_to_us(
    url: str, releases: Set[str], timeout: float, *, needs_200: bool = True, route: Route = BY_NAME
) -> bool:
    """Return whether the URL gives one of these releases within `timeout` seconds.

    A load balancer that is new, or that has no healthy machine, does not.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = probe(url, route=route)
        if result.is_good(needs_200=needs_200) and result.release in releases:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def wait_until_in_rotation(
    url: str, release: str, tags: Set[str], timeout: float, *, needs_200: bool = True, route: Route = BY_NAME
) -> None:
    """Wait until each machine, known by its tag, has answered through the URL with the release.

    Raises:
        NotInRotationError: some did not within `timeout` seconds; the message names them.
    """
    deadline = time.monotonic() + timeout
    missing, requests, logged = set(tags), 0, 0.0
    while missing:
        result = probe(url, route=route)
        requests += 1
        failure = "" if result.serves(release, needs_200=needs_200) else f"; {url} gave {result}"
        if not failure:
            missing.discard(result.machine)
        if time.monotonic() > deadline:
            raise NotInRotationError(
                f"within {timeout:.0f} s the balancer sent no request to {', '.join(sorted(missing))}{failure}.\n"
                "  Look at its health checks in the cloud's console; they must get 200 from these machines."
            )
        # The first requests follow each other at once, which is enough where all machines are in rotation already.
        # After that, health checks have to pass first.
        if requests > 4 * len(tags):
            if time.monotonic() - logged > LOG_INTERVAL:
                log(f"waiting until the balancer sends requests to {', '.join(sorted(missing))}{failure}")
                logged = time.monotonic()
            time.sleep(0.25)
