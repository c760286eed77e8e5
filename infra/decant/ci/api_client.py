"""An HTTP client for a forge's API: pages, and patience where the forge asks for it."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from types import MappingProxyType
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from decant.app.files import escaped
from decant.errors import CiError, ForgeError, UnclearWriteError

TIMEOUT = 30.0  # seconds for one answer
ATTEMPTS = 5
PATIENCE = 300.0  # seconds that a client waits in all; a job should not stand still for an hour
PAGE = 100  # entries of a list in one answer, the most that GitHub and GitLab give
MOST_PAGES = 1000  # ends a list whose every page names a next one
LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Answer:
    """A forge's answer: its headers and its JSON; None where it has no body."""

    headers: Message
    data: Any


class ApiClient:
    """A client for one forge. `forge` is its name in messages, `headers` hold the token.

    The token is taken out of every message, also where the forge itself repeats it.
    """

    def __init__(
        self,
        forge: str,
        url: str,
        token: str,
        headers: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.forge = forge
        self.url = url.rstrip("/")
        self._token = token
        self._headers = {"Accept": "application/json", "User-Agent": "decant", **headers}
        self._sleep = sleep
        self._waited = 0.0
        # Without redirects: urllib would send the token to wherever one leads.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] = MappingProxyType({}),
        *,
        makes: bool | None = None,
    ) -> Answer:
        """The answer to one request. Refusals for too many requests, and errors on the forge's side, are waited out.

        A request that `makes` something, as a POST does unless told otherwise, is not repeated where its answer got
        lost, because that could make it twice.

        Raises:
            UnclearWriteError: the answer to such a request got lost.
            ForgeError: the forge refused, or did not answer. `status` is 404 for what does not exist.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, path, body, query)
            except _LaterError as later:
                if (method == "POST" if makes is None else makes) and not later.refused:
                    raise UnclearWriteError(str(later.error), status=later.error.status) from None
                pause = later.pause if later.pause is not None else 2.0 ** (attempt - 1) * later.first_pause
                if attempt == ATTEMPTS or self._waited + pause > PATIENCE:
                    raise _out_of_patience(later, pause) from None
                self._sleep(pause)
                self._waited += pause
        raise AssertionError("the last attempt returns or raises")

    def every(self, path: str, **query: str | int) -> Iterator[Any]:
        """The entries of a list, through all pages. Raises ForgeError."""
        for page in range(1, MOST_PAGES + 1):
            answer = self.request("GET", path, query={**query, "per_page": PAGE, "page": page})
            if not isinstance(answer.data, list):
                raise ForgeError(f"{self.forge} did not answer with a list: {path}")
            yield from answer.data
            if 'rel="next"' not in str(answer.headers.get("Link", "")):
                return
        raise ForgeError(f"{self.forge} lists more than {MOST_PAGES} pages: {path}")

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str | int]) -> Answer:
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (check_url checks the scheme)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                content = answer.read()
                return Answer(answer.headers, json.loads(content) if content else None)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.headers, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            reason = self._clean(str(getattr(error, "reason", None) or error) or type(error).__name__)
            raise _LaterError(ForgeError(f"{self.forge} does not answer at {self.url}: {reason}")) from None
        except ValueError:
            raise ForgeError(f"{self.forge} did not answer with JSON at {self.url}") from None

    def _refusal(self, status: int, headers: Message, content: bytes) -> Exception:
        message = self._clean(_message(content)) or f"HTTP status {status}"
        if 300 <= status < 400:
            place = self._clean(headers.get("Location", ""))
            return ForgeError(f"{self.forge} sends to another address, which gets no token: {place}", status=status)
        error = ForgeError(message, status=status)
        spent = headers.get("X-RateLimit-Remaining") == "0"
        after = headers.get("Retry-After", "")
        if status == 429 or (status == 403 and (spent or after or "rate limit" in message.lower())):
            return _LaterError(error, refused=True, pause=_pause(headers, spent=spent), first_pause=60)
        if status >= 500:
            return _LaterError(ForgeError(f"{self.forge} has an error of its own ({status}): {message}", status=status))
        return error

    def _clean(self, text: str) -> str:
        """Somebody else's words for a message: without the token, on one line, and not too long."""
        return escaped(text.replace(self._token, "[token]").strip())[:LONGEST_MESSAGE]


def check_token(variable: str, value: str) -> str:
    """A token from a variable, without the line's end that a paste leaves. Raises CiError without showing it."""
    token = value.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise CiError(f"{variable} holds a character that no token has. Store the token again, and only the token.")
    return token


def check_url(variable: str, url: str) -> str:
    """The URL of an API that may get a token: https, or this computer's own. Raises CiError."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return url
    raise CiError(f"{variable} is {escaped(url)}: it must be a URL that starts with https://")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _message(content: bytes) -> str:
    """What an error's JSON says: GitHub and GitLab have a message, and GitHub a list of errors besides."""
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return str(found)
    text = found.get("message") or found.get("error_description") or found.get("error") or ""
    if not isinstance(text, str):
        text = json.dumps(text)
    errors = found.get("errors")
    details = (
        [str(e["message"]) for e in errors if isinstance(e, dict) and e.get("message")]
        if isinstance(errors, list)
        else []
    )
    return ": ".join([text, "; ".join(details)] if details else [text])


def _pause(headers: Message, *, spent: bool) -> float | None:
    """The seconds that a refusal asks to wait; None where it does not say."""
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    reset = headers.get("X-RateLimit-Reset", "")
    if spent and reset.isdigit():
        return max(1.0, int(reset) - time.time() + 1)
    return None


def _out_of_patience(later: _LaterError, pause: float) -> ForgeError:
    """The error where waiting ends, with when another try makes sense."""
    if not later.refused:
        return later.error
    at = time.strftime("%H:%M UTC", time.gmtime(time.time() + pause))
    return ForgeError(f"{later.error}\nRun this job again at {at} or later.", status=later.error.status)


class _LaterError(Exception):
    """An error that another attempt may not get.

    `refused` says that the forge did nothing. `pause` are the seconds to wait, where it said how many;
    `first_pause` is the first of growing pauses otherwise.
    """

    def __init__(
        self, error: ForgeError, *, refused: bool = False, pause: float | None = None, first_pause: float = 1
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.refused = refused
        self.pause = pause
        self.first_pause = first_pause


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Nothing follows a redirect: it is an error of its status."""
        del req, fp, code, msg, headers, newurl
