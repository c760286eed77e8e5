"""`status`, `ps`, `releases` and `env`: what the machines say of themselves, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from decant.verbs.units import NOTHING, duration, moment, size, table
from decant_host.protocol import CertificateStatus, Overview

FULL = 0.8
"""The share of a disk from which it is warned of."""

ENDS_SOON = 1 / 3
"""A certificate with less than this of its life has missed its renewal."""

SOURCES = {"secret": "decant:secrets", "plain": "decant:env or the web: line", "decant": "Decant"}

Overviews = Mapping[str, Overview]


def status_text(overviews: Overviews, url: str, stack: str) -> str:
    """All that is asked first: what is live since when, how the machines are, and what needs attention."""
    parts = [f"{url}\n" if url else ""]
    parts += [_machine(name, found) for name, found in overviews.items()]
    warnings = list(warnings_of(overviews, stack))
    parts.append("".join(f"warning: {text}\n" for text in warnings) or "nothing needs attention\n")
    return "\n".join(filter(None, parts)).rstrip("\n")


def _machine(name: str, found: Overview) -> str:
    now, live = found["time"], found["current"]
    since = next((p["since"] for p in found["processes"] if p["kind"] == "web" and p["release"] == live), None)
    runs = f"release {live}" if live else "nothing"
    if live and live != found["persisted"]:
        runs += f", unconfirmed (confirmed is {found['persisted'] or 'none'})"
    others = [f"{p['release']} {p['state']}" for p in found["processes"] if p["kind"] == "web" and p["release"] != live]
    rows = [
        ("live", runs + (f", its process runs since {moment(since)} ({duration(now - since)})" if since else "")),
        *([("beside it", ", ".join(others))] if others else []),
        ("rotation", "in" if found["in_rotation"] else "out"),
        ("up", f"{duration(now - found['booted'])}, since {moment(found['booted'])}"),
        ("memory", f"{size(found['memory_available'])} of {size(found['memory_total'])} available"),
        *(("disk", f"{d['path']}: {size(d['free'])} of {size(d['total'])} free") for d in found["disks"]),
        ("certificate", _certificate(found.get("https"), now)),
        ("lease", _lease(found)),
    ]
    body = "".join(f"  {label:<11}  {text}\n" for label, text in rows)
    return f"{name}\n{body}"


def _certificate(https: CertificateStatus | None, now: float) -> str:
    if https is None or https["state"] == "off":
        return "none wanted on this machine"
    reason = f": {https['reason']}" if https["reason"] else ""
    if https["state"] != "live" or https["not_after"] is None:
        return f"{https['state']}{reason}"
    left = duration(https["not_after"] - now)
    return f"{', '.join(https['names'])} until {moment(https['not_after'])} ({left}){reason}"


def _lease(found: Overview) -> str:
    lease = found["lease"]
    if lease is None:
        return "free"
    return f"held by {lease.get('owner', 'somebody')} since {moment(lease.get('since'))}"


def warnings_of(overviews: Overviews, stack: str) -> Iterator[str]:
    """What needs attention, each with the machine and the command that helps."""
    up = f"Run: make up STACK={stack}"
    for name, found in overviews.items():
        if found["current"] != found["persisted"] and not found["lease"]:
            yield f"{name}: {found['current']} is live and unconfirmed, and no rollout holds the machine. {up}"
        if found["current"] and found["current"] not in found["running"]:
            yield f"{name}: the live release does not run. See why: fab logs --stack {stack} --machine {name}"
        if reverted := found["reverted"]:
            yield (
                f"{name} went back from {reverted.get('from')} to {reverted.get('to')}: {reverted.get('because')}."
                f" See: fab logs --stack {stack} --release {reverted.get('from')}"
            )
        for disk in found["disks"]:
            used = 1 - disk["free"] / disk["total"] if disk["total"] else 0
            if used >= FULL:
                advice = f"See what fills it: fab ssh {name} --stack {stack}, then: df -h; du -xh / | sort -h | tail"
                yield f"{name}: {disk['path']} is {100 * used:.0f} % full. {advice}"
        for service, state in found["services"].items():
            if service == "nginx.service" and state != "active":
                yield f"{name}: {service} is {state}. See: fab logs --stack {stack} --source error --machine {name}"
        if text := _certificate_warning(found):
            yield f"{name}: {text}"
    live = {found["persisted"] for found in overviews.values()}
    if len(live) > 1:
        yield f"the machines serve different releases: {', '.join(sorted(map(str, live)))}. {up}"


def _certificate_warning(found: Overview) -> str:
    https = found.get("https")
    if not https or https["state"] == "off":
        return ""
    if https["state"] != "live":
        return f"there is no certificate ({https['state']}): {https['reason']}"
    if https["not_after"] and https["not_before"]:
        left = https["not_after"] - found["time"]
        if left < ENDS_SOON * (https["not_after"] - https["not_before"]):
            return f"the certificate ends in {duration(left)}: {https['reason'] or 'it was not renewed in time'}"
    return ""


def ps_text(overviews: Overviews) -> str:
    """The processes of releases on all machines."""
    rows = [
        (
            name, p["kind"], p["release"], p["state"], duration(found["time"] - p["since"]) if p["since"] else NOTHING,
            size(p["memory"]), NOTHING if p["tasks"] is None else str(p["tasks"]), str(p["restarts"]),
        )
        for name, found in overviews.items()
        for p in found["processes"]
    ]  # fmt: skip
    return table(("machine", "process", "release", "state", "for", "memory", "tasks", "restarts"), rows)


def releases_text(overviews: Overviews) -> str:
    """The releases on all machines, the last confirmed one first, and which of them one can go back to."""
    by_id: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    for name, found in overviews.items():
        for record in found["history"]:
            by_id.setdefault(record["id"], {})[name] = record["staged"], record["confirmed"]
    order = sorted(by_id, key=lambda release: _newest(by_id[release]), reverse=True)
    rows = [_release(release, by_id[release], overviews) for release in order]
    return table(("release", "staged", "last made live", "state", "on"), rows)


def _newest(places: Mapping[str, tuple[float | None, float | None]]) -> float:
    return max(max(staged or 0, confirmed or 0) for staged, confirmed in places.values())


def _release(
    release: str, places: Mapping[str, tuple[float | None, float | None]], overviews: Overviews
) -> Sequence[str]:
    live = [name for name, found in overviews.items() if found["current"] == release]
    confirmed_everywhere = all(release in found["confirmed"] for found in overviews.values())
    if len(live) == len(overviews):
        state = "live"
    elif live:
        state = f"live on {', '.join(live)}"
    else:
        state = "can be gone back to" if confirmed_everywhere else "was not live on every machine"
    if not any(confirmed for _, confirmed in places.values()) and not live:
        state = "never live"
    on = "all machines" if len(places) == len(overviews) else ", ".join(places)
    staged = max((s for s, _ in places.values() if s), default=None)
    confirmed = max((c for _, c in places.values() if c), default=None)
    return release, moment(staged), moment(confirmed), state, on


def env_text(overviews: Overviews) -> str:
    """The names of the variables of the live release, and what sets each; never a value."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, found in overviews.items():
        for variable, source in found["environment"].items():
            rows.setdefault((variable, SOURCES[source]), []).append(name)
    every = len(overviews)
    return table(
        ("variable", "from", "on"),
        [(*key, "all machines" if len(on) == every else ", ".join(on)) for key, on in sorted(rows.items())],
    )
