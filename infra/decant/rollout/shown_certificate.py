"""The certificate that a load balancer shows to visitors, by a handshake of our own.

A cloud renews it by itself and tells nobody when that fails, so each `up` looks at what visitors get.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from decant.rollout.certificate import Renewal, SiteCertificate
from decant.rollout.route import trust
from decant.rollout.timeouts import PROBE_TIMEOUT


def shown_certificate(address: str, renewal: Renewal, root: str | None, port: int = 443) -> SiteCertificate | None:
    """What the server at an address shows for the names of `renewal`; of several certificates, the first to end.

    None: it shows no valid one for any of the names. Those without one are `missing`, and `reason` says why. `root` is
    the PEM of a private certificate authority.
    """
    found: list[tuple[float, float, list[str]]] = []
    failed: dict[str, str] = {}
    for name in renewal["names"]:
        try:
            shown = _handshake(address, port, name, root)
        except OSError as error:  # also those of TLS
            failed[name] = f"{name}: {getattr(error, 'verify_message', '') or error}"
            continue
        limits = [ssl.cert_time_to_seconds(shown[limit]) for limit in ("notAfter", "notBefore")]
        # The certificate's own order is anything.
        names = sorted((value for _, value in shown["subjectAltName"]), key=_place_in(renewal["names"]))
        found.append((limits[0], limits[1], names))
    if not found:
        return None
    ends, begins, names = min(found)
    return {
        "state": "live",
        "names": names,
        "missing": list(failed),
        "not_before": begins,
        "not_after": ends,
        "issued": None,
        "renewed": None,
        "last_try": None,
        "next_try": None,
        "cause": "",
        "reason": "\n".join(failed.values()),
        "renewal": renewal,
    }


def _place_in(names: list[str]) -> Callable[[str], tuple[int, str]]:
    """What sorts names as they are in the list; others, such as wildcards, come last."""
    return lambda name: (names.index(name) if name in names else len(names), name)


def _handshake(address: str, port: int, name: str, root: str | None) -> dict[str, Any]:
    """The verified certificate for a name, as `ssl` shows it. Raises OSError."""
    with (
        socket.create_connection((address, port), PROBE_TIMEOUT) as plain,
        trust(root).wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.getpeercert() or {}
