"""Makes the tables of README.md, between its markers, from the raw figures in results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.environment import HERE

RESULTS, README = HERE / "results.json", HERE / "README.md"
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
TIMES = ("first", "again", "release", "live")
WHEN = ("during", "planning", "between")
Results = dict[str, Any]


def read() -> Results:
    """Return the figures in results.json; empty when there is no such file."""
    found: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def write(results: Results) -> None:
    """Write the raw figures into results.json and the tables into README.md."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    before, found, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    if not found:
        raise ValueError(f"{README} has no line {BEGIN}")
    README.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}")


def tables(results: Results) -> str:
    """Return all tables as Markdown."""
    parts = []
    if "deploy" in results:
        parts.append(_deploy(results["deploy"]))
    if "load" in results:
        parts.append(_load(results["load"]))
    if "serving" in results:
        parts.append(_serving(results["serving"]))
    parts.append(_targets(results))
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median and, in brackets, the range."""
    middle = f"**{statistics.median(values):.{digits}f}**"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _measured_on(part: Mapping[str, Any]) -> str:
    on, versions = part["on"], part["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured {on['when']} on {on['cores']} cores ({on['processor']}), {on['memory_gb']} GB, Linux {on['kernel']};"
        f" load average before: {on['load_before']}. {named}."
    )


# ------------------------------------------------------------------------------------------------ the deploy bench


def _deploy(part: Mapping[str, Any]) -> str:
    tools = part["tools"]
    rows = [
        [
            f"{name}<br>`{tool['command']}`",
            *(_spread(tool[what]) for what in TIMES),
            f"{sum(r['during']['failed'] for r in tool['loaded'])} of"
            f" {sum(r['during']['requests'] for r in tool['loaded'])}",
            _spread([r["during"]["p99_ms"] for r in tool["loaded"]], 0),
            _spread([r["before"]["p99_ms"] for r in tool["loaded"]], 0),
        ]
        for name, tool in tools.items()
    ]
    head = ["", "first deploy, s", "nothing to do, s", "code-only release, s", "until its URL gives it, s"]
    head += ["under load: requests failed", "p99 during it, ms", "p99 before it, ms"]
    return f"### Deploying\n\n{_measured_on(part)}\n\n{_table(head, rows)}"


# ------------------------------------------------------------------------------------------------ the load bench


def _load(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            str(len(case["releases"])),
            _spread([r["seconds"] for r in case["releases"]]),
            f"{sum(case[when]['failed'] for when in WHEN)} of {sum(case[when]['requests'] for when in WHEN)}",
            *(f"{case[when]['p50_ms']:.1f} / {case[when]['p99_ms']:.1f}" for when in WHEN),
        ]
        for name, case in part["cases"].items()
    ]
    head = ["", "releases in a row", "seconds of each", "requests failed"]
    head += ["p50 / p99 during them, ms", "during `pulumi preview`, ms", "between them, ms"]
    about = f"{part['rate']:.0f} requests a second."
    return f"### Releases under load\n\n{_measured_on(part)} {about}\n\n{_table(head, rows)}"


# ------------------------------------------------------------------------------------------------ the serving bench


def _serving(part: Mapping[str, Any]) -> str:
    rows = []
    ours = part["set_ups"]["decant"]
    for set_up in part["set_ups"].values():
        row = [set_up["text"]]
        for what in ("dynamic", "static"):
            rates = [r["rate"] for r in set_up[what]]
            row += [_spread(rates, 0), f"{_ratio(ours[what], set_up[what]):.2f}"]
            row += [" / ".join(f"{statistics.median(r[p] for r in set_up[what]):.1f}" for p in ("p50_ms", "p99_ms"))]
        row.append(str(sum(r["failed"] for what in ("dynamic", "static") for r in set_up[what])))
        rows.append(row)
    head = ["", "dynamic, requests/s", "Decant / it", "p50 / p99, ms"]
    head += ["static, requests/s", "Decant / it", "p50 / p99, ms", "failed"]
    about = f"{part['connections']} connections, {part['seconds']} s a round, rounds interleaved."
    text = f"### Serving\n\n{_measured_on(part)} {about}\n\n{_table(head, rows)}"
    return f"{text}\n\n{_https(part['https'])}" if "https" in part else text


def _https(part: Mapping[str, Any]) -> str:
    rows = [
        [name, _spread([r["rate"] for r in found], 0), _spread([r["microseconds"] for r in found], 0)]
        for name, found in part["cases"].items()
    ]
    head = ["connections, scheme", "requests/s", "processor time of the machine for each, us"]
    about = (
        "The machine has one core and the load generator another one."
        f" {len(next(iter(part['cases'].values())))} rounds, interleaved; kept connections for {part['seconds']} s,"
        f" {part['connections']} new ones, each with a full handshake."
    )
    return f"### HTTPS\n\n{_measured_on(part)} {about}\n\n{_table(head, rows)}"


def handshake(cases: Mapping[str, Sequence[Mapping[str, float]]], kind: str = "") -> list[float]:
    """What a full handshake costs in each round: a new connection over HTTPS, less one over HTTP."""
    pairs = zip(cases[f"new, HTTPS{kind}"], cases[f"new, HTTP{kind}"], strict=True)
    return [secure["microseconds"] - plain["microseconds"] for secure, plain in pairs]


def _ratio(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> float:
    """Return the median of the ratios of each round; in a slow minute both rates are low."""
    return statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, theirs, strict=True))


# ------------------------------------------------------------------------------------------------ the targets


def _targets(results: Results) -> str:
    rows: list[list[str]] = []

    def target(what: str, wanted: str, value: float, *, most: float | None = None, least: float | None = None) -> None:
        met = (most is None or value <= most) and (least is None or value >= least)
        rows.append([what, wanted, f"{value:.2f}", "yes" if met else "**no**"])

    if "deploy" in results:
        tools = results["deploy"]["tools"]
        middle = {name: {what: statistics.median(tool[what]) for what in TIMES} for name, tool in tools.items()}
        fastest = min((name for name in middle if name != "Decant"), key=lambda name: middle[name]["first"])
        ours, theirs = middle["Decant"], middle["pyinfra"]
        target(
            f"first deploy / the fastest peer's ({fastest})",
            "at most 1.0",
            ours["first"] / middle[fastest]["first"],
            most=1.0,
        )
        target("code-only release / pyinfra's", "at most 1.0", ours["release"] / theirs["release"], most=1.0)
        here = "code-only release until its URL gives it / pyinfra's"
        target(here, "at most 1.0", ours["live"] / theirs["live"], most=1.0)
        target("nothing to do / pyinfra's", "at most 0.8", ours["again"] / theirs["again"], most=0.8)
        failed = sum(r["during"]["failed"] for r in tools["Decant"]["loaded"])
        target("requests failed during releases under load", "0", failed, most=0)
        slower = statistics.median(r["during"]["p99_ms"] / r["before"]["p99_ms"] for r in tools["Decant"]["loaded"])
        target("p99 during a release / before it", "at most 1.5", slower, most=1.5)
    for name, case in results.get("load", {}).get("cases", {}).items():
        here = f"{len(case['releases'])} releases on {name}"
        target(f"{here}: requests failed", "0", case["during"]["failed"], most=0)
        during, planning, between = (case[when]["p99_ms"] for when in WHEN)
        target(f"{here}: p99 / between them", "at most 1.5", during / between, most=1.5)
        if case["planning"]["requests"]:
            target(f"{here}: p99 / during `pulumi preview`", "at most 1.5", during / planning, most=1.5)
    if "serving" in results:
        kinds = results["serving"]["set_ups"]
        ours = kinds["decant"]
        for name in ("page-printed", "page"):
            value = _ratio(ours["dynamic"], kinds[name]["dynamic"])
            target(f"dynamic throughput / {kinds[name]['text']}", "at least 1.2", value, least=1.2)
        for name in ("direct", "direct-sync"):
            value = _ratio(ours["dynamic"], kinds[name]["dynamic"])
            target(f"dynamic throughput / {kinds[name]['text']}", "at least 0.85", value, least=0.85)
        if cases := results["serving"].get("https", {}).get("cases"):
            value = _ratio(cases["kept, HTTPS"], cases["kept, HTTP"])
            target("dynamic throughput over HTTPS / over HTTP, kept connections", "at least 0.9", value, least=0.9)
            pairs = zip(handshake(cases), handshake(cases, ", nginx's own settings"), strict=True)
            value = statistics.median(ours / theirs for ours, theirs in pairs)
            target("a full handshake / with nginx's own settings", "at most 1.0", value, most=1.0)
        target("static / dynamic throughput", "at least 10", _ratio(ours["static"], ours["dynamic"]), least=10)
    return f"### Targets\n\n{_table(['', 'wanted', 'measured', 'met'], rows)}"
