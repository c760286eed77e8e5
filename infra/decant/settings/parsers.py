"""Parsers of settings: each turns what a stack file holds into a typed value or raises InvalidValueError.

A parser takes what Pulumi hands over: text, or the value of a JSON text for a setting with structure.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from decant.errors import HostKeyError, InvalidValueError
from decant.settings.model import EXPIRES_FORMAT, MOST_REVIEW_DAYS, Host, Review
from decant.ssh.keys import check_host_key, check_private_key

_T = TypeVar("_T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 5737 and RFC 3849 reserve these networks for examples. Copied from a document into adminCidrs, one of them would
# lock the user out.
DOCUMENTATION_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
# The largest networks that adminCidrs takes, as prefix lengths: the private network 10.0.0.0/8 still passes.
LARGEST_ADMIN_NETWORK = {4: 8, 6: 16}

# Decant sets these variables itself; another value would break the release instead of configuring the app.
RESERVED_ENV = ("DATA_DIR", "DECANT_RELEASE", "DECANT_MACHINE", "PROXY_HOPS", "CREDENTIALS_DIRECTORY", "PORT")

_HOST_KEYS = ("address", "hostKey", "user", "port", "name")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ADMIN_NETWORK = "your own address or network: SSH is never open to the world"


def text(pattern: str, allowed: str) -> Callable[[Any], str]:
    """A parser of text that matches `pattern` as a whole; `allowed` completes the sentence "must be ..."."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise InvalidValueError(allowed)
        return value

    return parse


def one_of(*names: str) -> Callable[[Any], str]:
    """A parser of one of a few names."""
    return text("|".join(map(re.escape, names)), "one of " + ", ".join(names))


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A parser of a whole number from `low` to `high`, both included."""

    def parse(value: Any) -> int:
        if not re.fullmatch(r"-?\d{1,9}", str(value)) or not low <= int(value) <= high:
            raise InvalidValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def boolean(value: Any) -> bool:
    """True or false, as Pulumi or JSON writes them."""
    if str(value) not in ("true", "false", "True", "False"):
        raise InvalidValueError("true or false")
    return str(value).lower() == "true"


def networks(value: Any) -> tuple[str, ...]:
    """A list of networks in CIDR form; an address becomes a network of one. The whole internet is refused."""
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of networks in CIDR form, at least one")
    return tuple(str(_network(item, f"[{i}]")) for i, item in enumerate(value))


def admin_networks(example_networks: Sequence[str] = ()) -> Callable[[Any], tuple[str, ...]]:
    """A parser of networks that may connect by SSH: neither too large a part of the internet nor an example.

    Networks inside of `example_networks` are taken although they are reserved for examples: a rehearsal's machines
    have such addresses.
    """
    rehearsed = tuple(ipaddress.ip_network(network) for network in example_networks)

    def parse(value: Any) -> tuple[str, ...]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                if str(item).endswith("/0"):
                    raise InvalidValueError(_ADMIN_NETWORK, at=f"[{i}]", shown=str(item))
        parsed = networks(value)
        for i, item in enumerate(parsed):
            _check_admin_network(ipaddress.ip_network(item), f"[{i}]", rehearsed)
        return parsed

    return parse


def _check_admin_network(network: Network, at: str, rehearsed: Sequence[Network]) -> None:
    if network.prefixlen < LARGEST_ADMIN_NETWORK[network.version]:
        raise InvalidValueError(_ADMIN_NETWORK, at=at, shown=str(network))
    example = any(network.version == n.version and network.overlaps(n) for n in DOCUMENTATION_NETWORKS)
    allowed = any(network.version == n.version and network.subnet_of(n) for n in rehearsed)  # type: ignore[arg-type]
    if example and not allowed:
        raise InvalidValueError("your own address; this one is reserved for examples", at=at, shown=str(network))


def _network(value: Any, at: str) -> Network:
    try:
        if "%" in str(value):  # Python takes any text as the zone of an address
            raise ValueError("an address without a zone is wanted")  # noqa: TRY301
        network = ipaddress.ip_network(str(value))
        if network.prefixlen == 0:
            raise ValueError("not the whole world")  # noqa: TRY301
    except ValueError as error:
        allowed = f"an address or a network in CIDR form such as 10.1.2.3/32 ({error})"
        raise InvalidValueError(allowed, at=at, shown=value if isinstance(value, str) else json.dumps(value)) from None
    return network


def _is_address(value: str) -> bool:
    """Whether the text is an IP address or a host name."""
    if "%" in value:  # Python takes any text as the zone of an address
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # A name of digits and dots alone is a mistyped address, never a host name (RFC 1123, 2.1).
        return bool(_HOST_NAME.fullmatch(value)) and not re.fullmatch(r"[\d.]+", value)
    return True


def hosts(value: Any) -> tuple[Host, ...]:
    """A list of hosts, no two of which have the same name or address."""
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of hosts, each with address and hostKey")
    parsed = tuple(_host(item, f"[{i}]") for i, item in enumerate(value))
    for attribute in ("name", "address"):
        seen = [getattr(host, attribute) for host in parsed]
        for i, item in enumerate(seen):
            if item in seen[:i]:
                allowed = f"different from every other host's {attribute}"
                raise InvalidValueError(allowed, at=f"[{i}].{attribute}", shown=item)
    return parsed


def _host(value: Any, at: str) -> Host:
    if not isinstance(value, dict):
        raise InvalidValueError("an object with address and hostKey", at=at, shown=str(value)[:60])
    for key in value:
        if key not in _HOST_KEYS:
            near = difflib.get_close_matches(key, _HOST_KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidValueError(f"one of {', '.join(_HOST_KEYS)}{hint}", at=f"{at}.{key}")
    address = value.get("address")
    if not isinstance(address, str) or not _is_address(address):
        raise InvalidValueError("an IP address or a host name", at=f"{at}.address", shown=str(address))
    host_key = _host_key(value.get("hostKey"), f"{at}.hostKey")
    login = text(r"(?!decant(-build)?$)[a-z_][a-z0-9_-]{0,31}", "a login name")
    user = part(login, value.get("user", "root"), f"{at}.user")
    port = part(integer(1, 65535), value.get("port", 22), f"{at}.port")
    short = text(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,62}", "letters, digits and . : _ -, 63 at most")
    name = part(short, value.get("name", address), f"{at}.name")
    return Host(address=address, host_key=host_key, user=user, port=port, name=name)


def part(parse: Callable[[Any], _T], value: Any, at: str) -> _T:
    """The parsed part of a structured value; an error says where the part stands."""
    try:
        return parse(value)
    except InvalidValueError as error:
        raise InvalidValueError(error.allowed, at=at, shown=str(value)) from None


def _host_key(value: Any, at: str) -> str:
    try:
        return check_host_key(value)
    except HostKeyError as error:
        raise InvalidValueError(
            f'the host\'s ed25519 public key, "ssh-ed25519 AAAA..." ({error}); on the host itself:'
            " cat /etc/ssh/ssh_host_ed25519_key.pub",
            at=at,
            shown=str(value)[:60],
        ) from None


def environment(value: Any) -> dict[str, str]:
    """Names and texts of environment variables. Numbers and booleans become text as YAML writes them.

    The errors show no value: a secret variable may be among them.
    """
    if not isinstance(value, dict):
        raise InvalidValueError("an object of names and values")
    result: dict[str, str] = {}
    for name, item in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidValueError("named with letters, digits and _", at=f".{name}", shown="")
        if name in RESERVED_ENV or name.startswith("GUNICORN_"):
            raise InvalidValueError("left out: Decant sets this variable itself", at=f".{name}", shown="")
        if isinstance(item, dict | list) or item is None:
            raise InvalidValueError("text, a number or a boolean", at=f".{name}", shown="")
        value_text = item if isinstance(item, str) else json.dumps(item)
        if "\0" in value_text:
            raise InvalidValueError("text without NUL characters", at=f".{name}", shown="")
        result[name] = value_text
    return result


def private_key(value: Any) -> str:
    """A private SSH key without a passphrase."""
    try:
        return check_private_key(value)
    except ValueError as error:
        raise InvalidValueError(f"a private key in OpenSSH form without a passphrase ({error})") from None


def url(value: Any) -> str:
    """The scheme, name and port of a URL without a path, user or query."""
    wanted = InvalidValueError("http://NAME or https://NAME, without a path")
    try:
        parts = urlsplit(str(value))
        name, port = parts.hostname, parts.port
    except ValueError:
        raise wanted from None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not name or port == 0 or not plain or not _is_address(name):
        raise wanted
    return f"{parts.scheme}://{parts.netloc}"


def project_folder(value: Any) -> str:
    """A folder inside the project."""
    folder = str(value)
    if not folder or folder.startswith("/") or ".." in Path(folder).parts:
        raise InvalidValueError("a folder of this project, relative to Pulumi.yaml")
    return folder


def app_subfolder(value: Any) -> str:
    """A folder inside the app, without slashes around it."""
    folder = str(value).strip("/")
    if not Path(folder).parts or ".." in Path(folder).parts or not re.fullmatch(r"[A-Za-z0-9._/-]+", folder):
        raise InvalidValueError("a folder inside the app, such as static or shop/static")
    return folder


def app_paths(value: Any) -> tuple[str, ...]:
    """A list of paths inside the app, each without slashes around it."""
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of paths inside the app, at least one")
    return tuple(part(app_subfolder, item, f"[{i}]") for i, item in enumerate(value))


def size(value: Any) -> int:
    """A size from 1k to 100g, in bytes."""
    match = re.fullmatch(r"([1-9]\d{0,5})([kmg])", str(value).lower())
    found = int(match[1]) << {"k": 10, "m": 20, "g": 30}[match[2]] if match else 0
    if not 1 << 10 <= found <= 100 << 30:
        raise InvalidValueError("a size from 1k to 100g, such as 16m")
    return found


def review(value: Any) -> Review:
    """How the stacks of pull requests are kept."""
    known = ("atOnce", "days", "expires")
    if not isinstance(value, dict):
        raise InvalidValueError(f"an object with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise InvalidValueError(f"one of {', '.join(known)}", at=f".{key}", shown="")
    default = Review()
    return Review(
        at_once=part(integer(1, 50), value.get("atOnce", default.at_once), ".atOnce"),
        days=part(integer(1, MOST_REVIEW_DAYS), value.get("days", default.days), ".days"),
        expires=part(_expires, value["expires"], ".expires") if "expires" in value else None,
    )


def _expires(value: Any) -> datetime:
    try:
        return datetime.strptime(value, EXPIRES_FORMAT).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise InvalidValueError("a time in UTC such as 2026-12-31T18:00Z, which `make review-up` sets") from None
