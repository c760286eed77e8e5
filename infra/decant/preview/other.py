"""What no other part of the summary tells: providers, keys, networks, and whatever a fork of the program adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from decant.clouds.changes import CloudChanges
from decant.preview.changes import CHANGED, DELETED, MADE, REPLACED, SAME, Change
from decant.preview.prose import listed

PROVIDER = "pulumi:providers:"
COMPONENTS = ("decant:", "pulumi:pulumi:")
COMMANDS = "command:"
STEPS = re.compile(
    r"-(ready|own-key|files|provision|base|updates|check-space|room|upload|stage|drain|leave|cleanup)$|^rollout$"
)
"""The names of steps. What they do is told of the release, or of their machine."""
PRIVATE_KEY = "tls:index/privateKey:PrivateKey"
PROVISION = "-provision"
LISTED = 8
"""How many new things are named; a new stack has dozens. What is deleted is named in full."""
BY_THE_SDK = {"version", "pluginDownloadURL", "__internal"}
"""Inputs of a provider that are no settings of it."""


def protected_sentences(changes: Sequence[Change]) -> Iterator[str]:
    """What the engine refuses to delete."""
    for change in changes:
        if change.before and change.before.protected and change.what in (REPLACED, DELETED):
            yield (
                f"{change.title} would be {change.what}, but is protected: make up fails. To let it go: pulumi state"
                " unprotect URN"
            )


def provision_sentences(changes: Sequence[Change], told: frozenset[str]) -> Iterator[str]:
    """Machines that stay, and whose packages or settings are changed. `told` are the machines that do not stay."""
    names = [
        change.name.removesuffix(PROVISION)
        for change in changes
        if change.name.endswith(PROVISION) and change.what == CHANGED
    ]
    staying = [name for name in names if name not in told]
    if staying:
        yield (
            f"{listed(staying)}: nginx, packages and settings of the system are brought up to date. nginx drops no"
            " connection for it. Visitors notice nothing."
        )


def other_sentences(changes: Sequence[Change], cloud: CloudChanges) -> Iterator[str]:
    """Providers, then one text for each thing that is done: what is made, replaced, deleted; each change in place."""
    yield from _providers(changes)
    rest = [change for change in changes if change.what != SAME and not _is_told(change, changes, cloud)]
    for what, words in ((MADE, "Made"), (REPLACED, "Made anew"), (DELETED, "Deleted")):
        titles = [change.title for change in rest if change.what == what]
        if titles:
            more = titles[LISTED:] if what == MADE else []
            shown = [*titles[: len(titles) - len(more)], *([f"{len(more)} more"] if more else [])]
            yield f"{words}: {listed(shown)}."
    for change in rest:
        if change.what == CHANGED:
            what = listed(change.changed) if change.changed else "what it depends on"
            yield f"Changed in place: {change.title} ({what})."


def _providers(changes: Sequence[Change]) -> Iterator[str]:
    """Other settings of providers, and other versions of them."""
    versions: dict[str, tuple[set[str], set[str]]] = {}
    for change in changes:
        if not change.kind.startswith(PROVIDER):
            continue
        package = change.kind.removeprefix(PROVIDER)
        old, new = ((state.inputs if state else {}) for state in (change.before, change.after))
        for inputs, found in zip((old, new), versions.setdefault(package, (set(), set())), strict=True):
            found.update({str(inputs["version"])} if inputs.get("version") else ())
        settings = sorted(name for name in {*old, *new} - BY_THE_SDK if old.get(name) != new.get(name))
        if change.before and change.after and settings:
            yield f"Provider {package}: another {listed(_setting(name, old, new) for name in settings)}."
    for package, (before, after) in versions.items():
        if before and after and before != after:
            yield f"Provider {package}: version {listed(sorted(after))}, before {listed(sorted(before))}."


def _setting(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A provider's setting; with its value where that is no secret and tells where everything is made."""
    return f"{name} ({new.get(name)}, before {old.get(name)})" if name == "region" else name


def _is_told(change: Change, changes: Sequence[Change], cloud: CloudChanges) -> bool:
    """Whether another part of the summary tells what happens to it."""
    if change.kind.startswith((PROVIDER, *COMPONENTS)) or change.kind in (cloud.machine, cloud.address):
        return True
    if change.kind.startswith(COMMANDS) and STEPS.search(change.name):
        return True
    if change.kind in (PRIVATE_KEY, *cloud.of_one_machine):
        machine = re.sub("-(address|host-key)$", "", change.name)
        if any(other.kind == cloud.machine and other.name == machine and other.what != SAME for other in changes):
            return True
    states = [state for state in (change.before, change.after) if state]
    for tells in (cloud.record, cloud.certificate):
        if any(tells(change.kind, change.name, state.inputs) for state in states):
            return True
    opens = any(cloud.openings(change.kind, change.name, state.inputs) for state in states)
    return opens and change.what == CHANGED and set(change.changed) <= cloud.opening_inputs
