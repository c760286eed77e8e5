"""The public IPv4 address of this computer, as machines on the internet see it.

No cloud tells its caller where a request came from, so a service on the internet is asked over HTTPS: the one
that the docs of `decant:adminCidrs` name as well. Machines on clouds are reached by IPv4 alone.
"""

from __future__ import annotations

import http.client
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from decant.errors import StackError

SERVICE = "https://checkip.amazonaws.com"
SERVICE_VARIABLE = "DECANT_ADDRESS_SERVICE"
ADDRESS_VARIABLE = "ADDRESS"
TIMEOUT = 15.0  # seconds
ATTEMPTS = 3
MOST = 100  # bytes of an answer that are read


def own_address(environ: Mapping[str, str]) -> str:
    """The address of ADDRESS, else what the service says.

    Raises:
        StackError: there is no answer, or it is no public IPv4 address.
    """
    given = environ.get(ADDRESS_VARIABLE, "").strip()
    if given:
        return _public(given, f"{ADDRESS_VARIABLE} is {given!r}")
    url = environ.get(SERVICE_VARIABLE) or SERVICE
    said = _ask(url)
    return _public(said, f"{url} says that this computer's address is {said!r}")


def _public(text: str, said: str) -> str:
    """The address, if a rule may let it in: a service that lies must not open anything wider."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or not address.is_global or address.is_multicast:
        raise StackError(
            f"{said}: it must be one public IPv4 address.\n"
            f"  To name it yourself: make ssh-open {ADDRESS_VARIABLE}=203.0.113.7"
        )
    return str(address)


def _ask(url: str) -> str:
    """The service's answer over IPv4. Raises StackError."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise StackError(
            f"{SERVICE_VARIABLE} is {url!r}: it must be a URL that starts with https://, such as {SERVICE}"
        )
    why = ""
    for _ in range(ATTEMPTS):
        try:
            return _answer(parts.hostname, parts.port or 443, parts.path or "/")
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
    raise StackError(
        f"{url} does not say what the address of this computer is: {why}\n"
        f"  To name it yourself: make ssh-open {ADDRESS_VARIABLE}=203.0.113.7\n"
        f"  To ask another service, which answers with the address alone: {SERVICE_VARIABLE}=https://..."
    )


def _answer(host: str, port: int, path: str) -> str:
    # No IPv6 socket can be bound to this address, so it is IPv4 that is used.
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, source_address=("0.0.0.0", 0))  # noqa: S104
    try:
        connection.request("GET", path, headers={"User-Agent": "decant", "Accept": "text/plain"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise OSError(f"status {answer.status}")
        return answer.read(MOST).decode("ascii", errors="replace").strip()
    finally:
        connection.close()
