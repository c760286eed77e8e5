"""Stacks whose accounts are checked, as short as they can be."""

from __future__ import annotations

from typing import Any

from decant import clouds
from decant.clouds.checks import Check, StackFacts
from decant.settings.load import check
from decant.settings.model import Settings


def settings(cloud: str, *, stack: str = "dev", aws_region: str = "eu-central-1", **more: Any) -> Settings:
    """The settings of a stack; those in `more` by their names."""
    raw = {"cloud": cloud, "adminCidrs": '["8.8.8.0/24"]', **{name: str(value) for name, value in more.items()}}
    providers = {"aws:region": aws_region} if cloud == "aws" else {}
    checked = check(raw, frozenset(), stack=stack, clouds=clouds.specs(), providers=providers)
    assert checked.settings, [str(problem) for problem in checked.problems]
    return checked.settings


def facts(
    cloud: str,
    *,
    provider: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    owned: dict[str, frozenset[str]] | None = None,
    reads_only: bool = False,
    role: str = "",
    **more: Any,
) -> StackFacts:
    known = settings(cloud, **more)
    return StackFacts(
        project="decant",
        settings=known,
        provider=known.provider | (provider or {}),  # type: ignore[operator]
        environ=environ or {},
        owned=owned or {},
        reads_only=reads_only,
        role=role,
    )


def row(checks: list[Check], subject: str) -> Check:
    """The only answer about a subject."""
    (found,) = [check for check in checks if check.subject == subject]
    return found
