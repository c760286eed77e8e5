"""Reads the configuration from environment variables and reports every mistake before the first request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEBIBYTE = 1024 * 1024
MOST_HOPS = 10
SHORTEST_SECRET = 32  # characters; `secrets.token_hex()` makes 64


class ConfigError(RuntimeError):
    """One or more environment variables have a bad value; the text names each, and what to do.

    It is a RuntimeError, because `gunicorn --preload` prints those as a plain message without a traceback.
    """


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return Flask configuration from environment variables. An empty variable counts as an absent one.

    Raises:
        ConfigError: what is wrong with all variables. Its text never contains the value of a secret.
    """
    problems: list[str] = []
    release = environ.get("DECANT_RELEASE", "")
    scheme = _scheme(environ, problems)
    key, *fallbacks = _secret_keys(environ, problems)
    config = {
        "RELEASE": release or "development",
        "MACHINE": environ.get("DECANT_MACHINE", ""),
        "DATA_DIR": environ.get("DATA_DIR", ""),
        "PROXY_HOPS": _hops(environ, problems),
        "PREFERRED_URL_SCHEME": scheme,
        "TRUSTED_HOSTS": _list(environ, "TRUSTED_HOSTS") or None,
        # Without a key, Flask raises an error when a session is used. A key generated here would seem to work, but
        # each release would log everybody out, and machines would refuse each other's cookies.
        "SECRET_KEY": key,
        "SECRET_KEY_FALLBACKS": fallbacks or None,
        "SESSION_COOKIE_SECURE": scheme == "https",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        # The largest body, in bytes. nginx in front has the same limit (16m) and refuses larger ones first.
        "MAX_CONTENT_LENGTH": 16 * MEBIBYTE,
        # For multipart forms, whose fields are held in memory, and whose files are not. Werkzeug applies neither limit
        # to a url-encoded form: a view that reads one should lower `request.max_content_length` first.
        "MAX_FORM_MEMORY_SIZE": MEBIBYTE // 2,
        "MAX_FORM_PARTS": 100,
    }
    if release and environ.get("FLASK_DEBUG", "").lower() not in ("", "0", "false", "no"):
        problems.append(
            f"FLASK_DEBUG is {environ['FLASK_DEBUG']!r} in release {release!r}; allowed is 0, or nothing. "
            "Remove it: pulumi config rm --path 'decant:env.FLASK_DEBUG'"
        )
    if problems:
        raise ConfigError("\n  - ".join(["The application cannot start:", *problems]))
    return config


def _hops(environ: Mapping[str, str], problems: list[str]) -> int:
    text = environ.get("PROXY_HOPS", "").strip() or "0"
    if text in {str(number) for number in range(MOST_HOPS + 1)}:
        return int(text)
    problems.append(
        f"PROXY_HOPS is {text!r}; allowed is the number of proxies in front of the application, "
        f"0 to {MOST_HOPS}. With nginx alone: export PROXY_HOPS=1. With none: unset PROXY_HOPS"
    )
    return 0


def _scheme(environ: Mapping[str, str], problems: list[str]) -> str:
    scheme = environ.get("PREFERRED_URL_SCHEME", "").strip().lower() or "http"
    if scheme not in ("http", "https"):
        problems.append(
            f"PREFERRED_URL_SCHEME is {scheme!r}; allowed are 'http' and 'https', as in the public URL. "
            "For example: export PREFERRED_URL_SCHEME=https"
        )
    return scheme


def _secret_keys(environ: Mapping[str, str], problems: list[str]) -> list[str | None]:
    """Return the key that signs, or None, and after it the old keys whose cookies are still accepted."""
    key = environ.get("SECRET_KEY") or None
    fallbacks = _list(environ, "SECRET_KEY_FALLBACKS")
    make_one = (  # by a pipe, because every user of a computer can read its command lines
        "python3 -c 'import secrets; print(secrets.token_hex())' | "
        "pulumi config set --secret --path 'decant:secrets.SECRET_KEY'"
    )
    if key and len(key) < SHORTEST_SECRET:
        problems.append(
            f"SECRET_KEY has {len(key)} characters; allowed are {SHORTEST_SECRET} or more, random. Make one: {make_one}"
        )
    if fallbacks and not key:
        problems.append(
            f"SECRET_KEY_FALLBACKS has {len(fallbacks)} key(s), but SECRET_KEY is not set; allowed are old "
            f"keys beside a new one. Make one: {make_one}"
        )
    return [key, *fallbacks]


def _list(environ: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
