"""Which ports become open or closed, and to whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from decant.clouds.changes import BALANCER, EVERYBODY, CloudChanges, Opening
from decant.preview.changes import Change
from decant.preview.events import State
from decant.preview.prose import listed

SERVICES = {"22": "SSH", "80": "HTTP", "443": "HTTPS"}
USUAL = {"80", "443"}
"""The ports that a site has open to everybody."""


def opening_sentences(changes: Sequence[Change], cloud: CloudChanges) -> Iterator[str]:
    """What opens first, then what closes. A rule that is made anew as it was is neither."""
    before = _openings(((change, change.before) for change in changes), cloud)
    after = _openings(((change, change.after) for change in changes), cloud)
    yield from _sentences(after - before, "open")
    yield from _sentences(before - after, "close")


def _openings(states: Iterable[tuple[Change, State | None]], cloud: CloudChanges) -> set[Opening]:
    return {
        opening
        for change, state in states
        if state
        for opening in cloud.openings(change.kind, change.name, state.inputs)
    }


def _sentences(openings: set[Opening], verb: str) -> Iterator[str]:
    """One sentence for each port: `Port 22 (SSH) of the machines opens to 192.0.2.1/32.`"""
    peers: dict[tuple[str, str, str], list[str]] = {}
    for one in sorted(openings, key=_order):
        peers.setdefault((one.of, one.protocol, one.port), []).append(one.peer)
    for (of, protocol, port), who in peers.items():
        text = f"{_what(protocol, port)} of {of} {verb if '-' in port else f'{verb}s'} to {listed(who)}."
        if verb == "open" and EVERYBODY in who and protocol != "icmp" and port not in USUAL:
            text += " Anybody on the Internet can connect."
        yield text


def _order(one: Opening) -> tuple[bool, bool, int, str, str, str]:
    """The load balancer's ports first, in the order of their numbers; everybody before networks."""
    number = int(one.port.partition("-")[0] or 0) if one.port.partition("-")[0].isdigit() or not one.port else 0
    return (one.of != BALANCER, one.protocol == "icmp", number, one.port, one.protocol, _peer_order(one.peer))


def _peer_order(peer: str) -> str:
    return "" if peer == EVERYBODY else peer


def _what(protocol: str, port: str) -> str:
    if protocol == "icmp":
        return "ICMP"
    transport = f" ({protocol.upper()})" if protocol and protocol != "tcp" else ""
    if not port:
        return f"Every port{transport}"
    service = SERVICES.get(port) if protocol == "tcp" else None
    return f"Port{'s' if '-' in port else ''} {port}" + (f" ({service})" if service else transport)
