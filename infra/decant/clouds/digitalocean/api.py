"""DigitalOcean's HTTP API: a client for what the program asks, and for the few things that it makes without Pulumi.

Reference: https://docs.digitalocean.com/reference/api/digitalocean/
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from decant.app.files import escaped
from decant.errors import CloudApiError

PUBLIC_URL = "https://api.digitalocean.com"
PAGE = 200  # entries of a list in one answer, the most that the API gives
TIMEOUT = 30.0  # seconds for one answer
ATTEMPTS = 6
UNANSWERED_ATTEMPTS = 3  # where nobody answered at all
NO_CONTENT = 204
LONGEST_PAUSE = 60  # seconds; the limit for bursts is counted by the minute
TOKEN_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
"""What the Pulumi provider reads where the stack has no `digitalocean:token`, in the provider's order."""


class Api:
    """A client for one account. Paths are as in the reference: `/v2/droplets`."""

    def __init__(self, token: str, url: str = PUBLIC_URL, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._token = token
        self.url = url.rstrip("/")
        self._sleep = sleep
        # Without redirects: urllib would send the token to wherever one leads.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The answer to one question. Raises CloudApiError, whose `status` is 404 for what does not exist."""
        return self._patiently("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request that makes something. Raises CloudApiError.

        It is sent again like any other: after an error on the API's own side, the first may have had its effect.
        """
        return self._patiently("POST", path, body)

    def delete(self, path: str) -> None:
        """Delete what the path names. It is no error if that is gone already. Raises CloudApiError."""
        try:
            self._patiently("DELETE", path)
        except CloudApiError as error:
            if error.status != 404:
                raise

    def _patiently(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A refusal for too many requests, and an error on the API's own side, are waited out. Raises CloudApiError."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, target, body)
            except _LaterError as error:
                if attempt == (ATTEMPTS if error.refusal.status else UNANSWERED_ATTEMPTS):
                    raise error.refusal from None
                self._sleep(min(LONGEST_PAUSE, error.pause or 2**attempt / 2))
        raise AssertionError("the last attempt returns or raises")

    def every(self, path: str, key: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """The entries of a list, through all pages; `key` is the list's name in the answer. Raises CloudApiError."""
        page = 1
        while True:
            answer = self.get(path, **query, page=page, per_page=PAGE)
            yield from answer.get(key) or []
            if not (answer.get("links") or {}).get("pages", {}).get("next"):
                return
            page += 1

    def _once(self, method: str, target: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(  # noqa: S310 (connect checks the scheme)
            self.url + target, data=data, headers=headers, method=method
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                found = {} if answer.status == NO_CONTENT else json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                refusal = _refusal(error.code, error.read())
            if error.code == 429 or error.code >= 500:
                raise _LaterError(refusal, _seconds(error.headers.get("Retry-After"))) from None
            raise refusal from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise _LaterError(CloudApiError(f"{self.url} does not answer: {reason}"), None) from None
        except ValueError:
            raise CloudApiError(f"{self.url} did not answer with JSON") from None
        if not isinstance(found, dict):
            raise CloudApiError(f"{self.url} did not answer with an object")
        return found


def connect(provider: Mapping[str, Any], environ: Mapping[str, str]) -> Api:
    """A client with the stack's token.

    `provider` are the stack's settings in the namespace `digitalocean:`, in clear; where they leave something out, the
    variables that the Pulumi provider reads are taken from `environ`.

    Raises:
        CloudApiError: there is no token, or the API's address is no URL.
    """
    token = provider.get("token") or next((environ[name] for name in TOKEN_VARIABLES if environ.get(name)), "")
    if not token:
        raise CloudApiError("there is no token", status=401, code="no_token")
    url = provider.get("apiEndpoint") or environ.get("DIGITALOCEAN_API_URL") or PUBLIC_URL
    if not (url.startswith("https://") or _is_of_this_computer(url)):
        name = "digitalocean:apiEndpoint" if provider.get("apiEndpoint") else "DIGITALOCEAN_API_URL"
        raise CloudApiError(f"{name} is {url}: it must be a URL that starts with https://")
    return Api(token.strip(), url)


def _is_of_this_computer(url: str) -> bool:
    """Whether a URL leads to the loopback address, as those of doubles do: nobody else sees what is sent there."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:  # a name
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Nothing follows a redirect: it is an error of its status."""
        del req, fp, code, msg, headers, newurl


class _LaterError(Exception):
    """A refusal that another attempt may not get, and the seconds to wait, where the API said how many."""

    def __init__(self, refusal: CloudApiError, pause: float | None) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.pause = pause


def _refusal(status: int, body: bytes) -> CloudApiError:
    try:
        told = json.loads(body)
        code, message = escaped(str(told.get("id", ""))), escaped(str(told.get("message", "")))
    except (ValueError, AttributeError):
        code, message = "", ""
    return CloudApiError(message or f"status {status}", status=status, code=code)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
