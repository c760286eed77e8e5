"""What happens to the hosts of the user's own, which no step makes or deletes.

A host is known by its steps: `NAME-ready`, whose trigger is its identity, and `NAME-cleanup`, which removes Decant from
it when it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decant.preview.changes import DELETED, MADE, REPLACED, Change
from decant.preview.events import State
from decant.preview.machines import NOTHING

CLEANUP = "-cleanup"
READY = "-ready"


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host. Its identity is the fingerprint of its host key; empty where it is not known."""

    name: str
    what: str
    before: str
    after: str


def hosts_of(changes: Sequence[Change]) -> list[Host]:
    """The hosts of a preview; none where the cloud makes its machines."""
    ready = {change.name.removesuffix(READY): change for change in changes if change.name.endswith(READY)}
    hosts = []
    for cleanup in changes:
        if not cleanup.name.endswith(CLEANUP):
            continue
        name = cleanup.name.removesuffix(CLEANUP)
        steps = ready.get(name)
        before, after = (_identity(steps.before), _identity(steps.after)) if steps else ("", "")
        # The steps of a host are made, and its cleanup is there, after a run that failed.
        what = MADE if steps and steps.what == MADE else cleanup.what
        hosts.append(Host(name=name, what=what, before=before, after=after))
    return hosts


def host_sentences(hosts: Sequence[Host]) -> Iterator[str]:
    """One text for each host that is added, removed, renamed, or another machine than before."""
    is_new, renamed = all(host.what == MADE for host in hosts), _renamed(hosts)
    for host in hosts:
        if host.name in renamed:
            yield f"{host.name} is set up as {renamed[host.name]}, and then removed. The site is gone from it."
        elif host.name in renamed.values():
            continue
        elif host.what == MADE:
            yield f"{host.name} is set up. {'The site is new.' if is_new else NOTHING}"
        elif host.what == DELETED:
            yield f"{host.name} leaves the stack: Decant is removed from it. {_visitors(host, hosts)}"
        elif host.before != host.after:
            yield (
                f"{host.name} shows another host key, so it is taken for another machine: everything is set up on it"
                " again. If it is a new machine, visitors see nothing on it until then."
            )


def data_on_hosts(hosts: Sequence[Host]) -> Iterator[str]:
    """What the app has written, and loses."""
    renamed = _renamed(hosts)
    for host in hosts:
        if host.name in renamed:
            yield (
                f"{host.name} and {renamed[host.name]} are one machine (the same host key). At the end of the run,"
                f" the removal of {host.name} deletes Decant, the release and $DATA_DIR from it, and the site is gone."
                f" Keep the name: set decant:hosts[...].name to {host.name}."
            )
        elif host.what in (DELETED, REPLACED):
            yield (
                f"{host.name}: what the app has written to its disk is deleted, $DATA_DIR and the paths of"
                " decant:persistent included. Copy it first."
            )


def _renamed(hosts: Sequence[Host]) -> dict[str, str]:
    """The names of hosts that leave under one name and come under another, which follows."""
    made = {host.after: host.name for host in hosts if host.what == MADE and host.after}
    return {host.name: made[host.before] for host in hosts if host.what == DELETED and host.before in made}


def _visitors(host: Host, hosts: Sequence[Host]) -> str:
    if all(other.what == DELETED for other in hosts):
        return "No host is left: the site is gone."
    return (
        "With a load balancer of yours before it, it leaves the rotation first, and visitors notice nothing. A name"
        " that leads to it has to lead elsewhere before."
    )


def _identity(state: State | None) -> str:
    triggers = state.inputs.get("triggers") if state else None
    return str(triggers[0]) if isinstance(triggers, list) and triggers else ""
