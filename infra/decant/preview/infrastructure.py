"""What happens to machines, ports, names and data, in sentences: made from the steps of a preview."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decant import clouds
from decant.clouds.changes import CloudChanges
from decant.preview.changes import SAME, Change, changes_of
from decant.preview.events import Step
from decant.preview.hosts import data_on_hosts, host_sentences, hosts_of
from decant.preview.machines import data_at_risk, machine_sentences, site_of
from decant.preview.names import address_sentences, certificate_sentences, record_sentences
from decant.preview.openings import opening_sentences
from decant.preview.other import other_sentences, protected_sentences, provision_sentences


@dataclass(frozen=True, kw_only=True)
class Infrastructure:
    """What a run does besides the release. Each entry is some sentences of plain text, in one line."""

    data_at_risk: tuple[str, ...] = ()
    """Data that is deleted, or may be lost."""
    machines: tuple[str, ...] = ()
    """Machines that are made, replaced, resized or deleted, each with how long visitors notice."""
    openings: tuple[str, ...] = ()
    """Ports that become open or closed, and to whom."""
    certificates_and_dns: tuple[str, ...] = ()
    """Certificates, records, and the address that visitors use."""
    other: tuple[str, ...] = ()
    """Everything else that is made, changed or deleted."""


def infrastructure(cloud: str, steps: Iterable[Step]) -> Infrastructure:
    """What the steps of a preview do to the stack's machines and what belongs to them.

    `cloud` is the value of `decant:cloud`. A preview that failed has told only a part of its steps, and the sentences
    are about these alone.
    """
    facts = clouds.changes(cloud)
    changes = changes_of(steps)
    site, hosts = site_of(changes, facts), hosts_of(changes)
    return Infrastructure(
        data_at_risk=_lines(data_at_risk(site, facts), data_on_hosts(hosts), protected_sentences(changes)),
        machines=_lines(
            machine_sentences(site, facts),
            host_sentences(hosts),
            provision_sentences(changes, _new(site.machines)),
        ),
        openings=_lines(opening_sentences(changes, facts)),
        certificates_and_dns=_lines(
            address_sentences(site, facts, has_records=_has_records(changes, facts)),
            certificate_sentences(changes, facts),
            record_sentences(changes, facts),
        ),
        other=_lines(other_sentences(changes, facts)),
    )


def _lines(*sentences: Iterable[str]) -> tuple[str, ...]:
    """Each text in one line, whatever characters a name or a value of a resource has."""
    return tuple(" ".join(text.split()) for text in itertools.chain(*sentences))


def _new(machines: Sequence[Change]) -> frozenset[str]:
    """The machines on which every step runs for the first time, or for the last."""
    return frozenset(machine.name for machine in machines if machine.what != SAME)


def _has_records(changes: Sequence[Change], cloud: CloudChanges) -> bool:
    """Whether DNS records of the stack lead its names to it after the run."""
    return any(
        record and not record.validates
        for change in changes
        if change.after and (record := cloud.record(change.kind, change.name, change.after.inputs))
    )
