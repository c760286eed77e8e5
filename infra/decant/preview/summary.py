"""The summary of a preview: what a reviewer has to know, the most important first, before it is rendered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from decant import clouds
from decant.clouds.costs import CostOutput
from decant.deploy.contents import Preview, Record
from decant.preview.app_changes import AppChanges, app_changes
from decant.preview.app_sections import app_sections
from decant.preview.events import Events
from decant.preview.infrastructure import Infrastructure, infrastructure
from decant.preview.machines import NOTHING
from decant.preview.release_change import ReleaseChange, release_change
from decant.preview.section import Section
from decant.preview.text import code, count

# What the engine adds to the program's own error, and says where plugins are not installed in its own folder.
_ENDED = "an unhandled error occurred: program exited with"
_PLUGIN = "using pulumi-resource-"

LAST_LINES = 40
"""How many lines of what Pulumi printed are shown where it failed without saying why in its events."""


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """All that is known after Pulumi's preview."""

    stack: str
    cloud: str
    failed: bool
    output: str
    """What Pulumi printed; empty where it printed to a terminal."""
    events: Events
    preview: Preview | None
    """None where the program ended before it knew what the next release is."""
    record: Record | None
    """What is live; None for a new stack, and for one of a Decant that recorded nothing."""
    live: str | None
    """The id of the release that is live."""
    cost: CostOutput | None = None
    """What the stack costs now, as its last `up` recorded it."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The verdict in one or two sentences, and the sections below it."""

    stack: str
    verdict: str
    sections: tuple[Section, ...] = field(default=())


def summarize(known: Previewed) -> Summary:
    """The summary of a preview, also of one that failed."""
    things = infrastructure(known.cloud, known.events.steps) if known.cloud in clouds.specs() else Infrastructure()
    release = release_change(known.record, known.live, known.preview, known.events.steps)
    changes = app_changes(known.record, known.preview) if known.preview else None
    sections = [
        *_risks(things),
        *_problems(known),
        *_infrastructure(known, things),
        *(release_sections(known, release, changes) if release else ()),
        *_listed("Also changes", things.other),
        *_cost(known),
        *_rollback(known, release, things),
        *_warnings(known),
    ]
    return Summary(stack=known.stack, verdict=_verdict(known, release, changes, things), sections=tuple(sections))


def release_sections(known: Previewed, release: ReleaseChange, changes: AppChanges | None) -> Iterator[Section]:
    """The release, its command, and what it holds that is new."""
    yield release.section(known.stack)
    yield from release.command_section()
    if changes is not None:
        yield from app_sections(changes)
    elif release.live and not release.pinned:
        text = (
            "What is live was released by a Decant that did not record what a release holds, so files, packages and"
            f" names cannot be compared. The next {code(f'make up STACK={known.stack}')} records it."
        )
        yield Section(title="Not compared", lines=(text,))


def _risks(things: Infrastructure) -> Iterator[Section]:
    if things.data_at_risk:
        yield Section(title="Data at risk", lines=things.data_at_risk, urgent=True)


def _problems(known: Previewed) -> Iterator[Section]:
    if not known.failed:
        return
    errors = [
        f"{found.name}: {found.message}" if found.urn and not _is_stack(found.urn) else found.message
        for found in known.events.diagnostics
        if found.severity == "error" and not found.message.startswith(_ENDED)
    ]
    if not errors:
        errors = ["\n".join(known.output.strip().splitlines()[-LAST_LINES:]) or "Pulumi ended without a reason."]
    yield Section(title="What is wrong", blocks=tuple(dict.fromkeys(errors)), urgent=True)


def _is_stack(urn: str) -> bool:
    return "::pulumi:pulumi:Stack::" in urn


def _infrastructure(known: Previewed, things: Infrastructure) -> Iterator[Section]:
    if known.failed and (things.machines or things.openings or things.certificates_and_dns or things.other):
        yield Section(title="Incomplete", lines=("The preview ended early. More may change than what follows.",))
    yield from _listed("Machines", things.machines)
    yield from _listed("Open ports", things.openings)
    yield from _listed("Certificates and DNS", things.certificates_and_dns)


def _listed(title: str, lines: tuple[str, ...]) -> Iterator[Section]:
    if lines:
        yield Section(title=title, lines=lines)


def _verdict(
    known: Previewed, release: ReleaseChange | None, changes: AppChanges | None, things: Infrastructure
) -> str:
    if known.failed:
        return f"The preview failed. As things are, {code(f'make up STACK={known.stack}')} would fail, too."
    said = ["Data is at risk."] if things.data_at_risk else []
    new = release.verdict() if release else ""
    said += [new] if new else []
    numbers = (
        (len(things.machines), "change of machines", "changes of machines"),
        (len(things.openings), "change of open ports", "changes of open ports"),
        (len(things.certificates_and_dns), "change of certificates and DNS", "changes of certificates and DNS"),
    )
    found = [count(number, one, many) for number, one, many in numbers if number]
    if found:
        said.append(f"{', '.join(found)}.")
    elif things.other:
        said.append("Something else changes: see below.")
    elif new or (changes and changes.settings):
        said.append("No machine, port, name or certificate changes.")
    else:
        said.append("Nothing changes.")
    if known.live is not None:
        said += _visitors(things, changes=bool(new or things.machines))
    return " ".join(said)


def _visitors(things: Infrastructure, *, changes: bool) -> Iterator[str]:
    """Whether visitors notice that machines or the release change. Ports and names are told one by one."""
    if not all(NOTHING in sentence for sentence in things.machines):
        yield "What visitors notice stands below."
    elif changes and not (things.openings or things.certificates_and_dns or things.other):
        yield NOTHING


def _cost(known: Previewed) -> Iterator[Section]:
    after = known.preview["cost"] if known.preview else None
    if after is None:
        return
    now = _usd(after)
    if known.cost is None:
        text = f"{now} a month"
    else:
        before = _usd(known.cost)
        text = f"{now} a month, as before" if now == before else f"{before} → {now} a month"
        one, other = known.cost["usdPerMonth"], after["usdPerMonth"]
        if one is not None and other is not None and one != other:
            text += f" ({other - one:+.2f})"
    yield Section(title="Cost", lines=(f"{text}, at list prices of {after['pricesOf']}.",))


def _usd(cost: CostOutput) -> str:
    amount = cost["usdPerMonth"]
    return "an unknown sum" if amount is None else f"{amount:.2f} USD"


def _rollback(known: Previewed, release: ReleaseChange | None, things: Infrastructure) -> Iterator[Section]:
    """What can be undone, and how. Nothing is said where nothing changes."""
    if known.failed or release is None:
        return
    more = bool(things.machines or things.openings or things.certificates_and_dns or things.other)
    lines = list(release.rollback(known.stack, more=more))
    if things.data_at_risk:
        lines.append("Nothing of this brings back the data at risk.")
    if lines:
        yield Section(title="To undo this", lines=(" ".join(lines),))


def _warnings(known: Previewed) -> Iterator[Section]:
    found = dict.fromkeys(
        found.message
        for found in known.events.diagnostics
        if found.severity == "warning" and not found.message.startswith(_PLUGIN)
    )
    yield from _listed("Warnings", tuple(found))
