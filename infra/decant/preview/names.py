"""The address that visitors use, the site's DNS records, and certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decant.clouds.changes import Certificate, CloudChanges, Record, known
from decant.preview.changes import DELETED, MADE, REPLACED, SAME, Change
from decant.preview.events import State
from decant.preview.machines import Site
from decant.preview.prose import listed


def address_sentences(site: Site, cloud: CloudChanges, *, has_records: bool) -> Iterator[str]:
    """Whether the site's address becomes another one. `has_records`: DNS records of the stack follow it."""
    if site.is_new or site.ends:
        return
    before, after = _address(site, cloud, after=False), _address(site, cloud, after=True)
    if before == after:
        return
    now = f" ({before[1]})" if before[1] else ""
    then = f" ({after[1]})" if after[1] else ", which is known after the run"
    follow = (
        "The stack's DNS records follow it; other names have to lead there, too"
        if has_records
        else "A name of yours has to lead there: make up prints the records"
    )
    yield (
        f"The site's address changes: from {before[0]}{now} to {after[0]}{then}. Visitors who come by the old one reach"
        f" nobody any more. {follow}."
    )


def _address(site: Site, cloud: CloudChanges, *, after: bool) -> tuple[str, str]:
    """What leads visitors to the site, and its name or address. A new one is another one, also without a value."""
    for changes, output, words in (
        (site.balancers, cloud.balancer_output, "the load balancer"),
        (site.addresses, cloud.address_output, "the machine's address"),
    ):
        for change in changes:
            state = change.after if after else change.before
            if state is None:
                continue
            if after and change.what in (MADE, REPLACED):
                article = "a new load balancer" if words == "the load balancer" else "a new address"
                return article, ""
            value = known(change.before.outputs.get(output)) if change.before else ""
            return words, value
    return "the machines", ""


def record_sentences(changes: Sequence[Change], cloud: CloudChanges) -> Iterator[str]:
    """One text for each DNS record that is made, changed or deleted."""
    for change in changes:
        before, after = _record(change, change.before, cloud), _record(change, change.after, cloud)
        shown = after or before
        if change.what == SAME or shown is None:
            continue
        if shown.validates:
            yield _validation(change, cloud)
        elif after is None:
            yield f"DNS: the record of {shown.name} ({shown.type}) is deleted, and the name leads nowhere."
        elif before is None:
            yield f"DNS: {shown.name} leads to {shown.value or 'the new address'} by a new record ({shown.type})."
        elif before != after:
            yield (
                f"DNS: the record of {shown.name} ({shown.type}) leads to {shown.value or 'the new address'}"
                f"{f', before to {before.value}' if before.value else ''}. Visitors follow within"
                f" {_duration(before.ttl)}."
            )


def _validation(change: Change, cloud: CloudChanges) -> str:
    name = change.name.partition("-")[2]
    fate = {MADE: "is made", DELETED: "is deleted, so the certificate can no longer be renewed"}
    return f"DNS: the record by which {cloud.title} sees that {name} is yours {fate.get(change.what, 'changes')}."


def certificate_sentences(changes: Sequence[Change], cloud: CloudChanges) -> Iterator[str]:
    """One text for each certificate that is made, exchanged or deleted."""
    for change in changes:
        before, after = _certificate(change, change.before, cloud), _certificate(change, change.after, cloud)
        one = after or before
        if change.what == SAME or one is None:
            continue
        waits = not cloud.validation or any(
            other.kind == cloud.validation and other.name == change.name and other.after for other in changes
        )
        yield f"Certificate: {_title(one)} {_fate(change, one, cloud, waits=waits)}"


def _title(certificate: Certificate) -> str:
    return "your own" if certificate.own else f"that for {listed(certificate.names or ('the site',))}"


def _fate(change: Change, certificate: Certificate, cloud: CloudChanges, *, waits: bool) -> str:
    """What happens to it. `waits`: the run ends only when it is issued."""
    if change.what == DELETED:
        return "is deleted."
    if change.what == MADE and certificate.own:
        return "is uploaded."
    if change.what == MADE:
        when = (
            "The run waits for it, 15 minutes at most."
            if waits
            else "It is issued when its DNS record is set, which make up prints. A later make up turns HTTPS on."
        )
        return f"is ordered from {cloud.title}. {when}"
    if change.what == REPLACED:
        return "is replaced: visitors get the new one before the old one goes. They notice nothing."
    return "is exchanged in place. Visitors notice nothing."


def _record(change: Change, state: State | None, cloud: CloudChanges) -> Record | None:
    return cloud.record(change.kind, change.name, state.inputs) if state else None


def _certificate(change: Change, state: State | None, cloud: CloudChanges) -> Certificate | None:
    return cloud.certificate(change.kind, change.name, state.inputs) if state else None


def _duration(seconds: int) -> str:
    """A time to live in words."""
    if seconds % 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    return f"{minutes} minute{'s' if minutes != 1 else ''}"
