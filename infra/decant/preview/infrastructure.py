"""What happens to machines, ports, names and data, in sentences: made from the steps of a preview."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decant.preview.events import Step


@dataclass(frozen=True, kw_only=True)
class Infrastructure:
    """What a run does besides the release. Each entry is one or two sentences of plain text."""

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

    `cloud` is the value of `decant:cloud`.
    """
    return Infrastructure()
