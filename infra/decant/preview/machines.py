"""What happens to each machine of a cloud, how long visitors notice it, and which data goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decant.clouds.base import DRAIN_SECONDS
from decant.clouds.changes import CloudChanges, known
from decant.preview.changes import CHANGED, DELETED, MADE, REPLACED, Change
from decant.preview.events import State
from decant.preview.prose import listed

NOTHING = "Visitors notice nothing."
DISK_GOES = (
    "{name}: what the app has written to its disk is deleted with it, $DATA_DIR and the paths of"
    " decant:persistent included. Copy it first."
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """How visitors reach the machines before and after the run."""

    machines: tuple[Change, ...]
    balancers: tuple[Change, ...]
    addresses: tuple[Change, ...]

    @property
    def is_new(self) -> bool:
        """Whether no machine serves before the run."""
        return not any(machine.before for machine in self.machines)

    @property
    def ends(self) -> bool:
        """Whether no machine is left after the run."""
        return not any(machine.after for machine in self.machines)

    @property
    def was_balanced(self) -> bool:
        """Whether a load balancer distributes requests before the run."""
        return any(balancer.before for balancer in self.balancers)

    @property
    def is_balanced(self) -> bool:
        """Whether one does so after the run."""
        return any(balancer.after for balancer in self.balancers)

    @property
    def stays_balanced(self) -> bool:
        """Whether requests go through a load balancer before and after the run."""
        return self.was_balanced and self.is_balanced

    @property
    def others_serve(self) -> bool:
        """Whether more than one machine gets requests before the run. Then there is a load balancer."""
        return sum(1 for machine in self.machines if machine.before) > 1

    @property
    def keeps_address(self) -> bool:
        """Whether the address that leads to a machine alone is the same one after the run."""
        return any(address.what not in (MADE, REPLACED, DELETED) for address in self.addresses)


def site_of(changes: Sequence[Change], cloud: CloudChanges) -> Site:
    """The machines of a preview, and what leads to them."""
    of_kind = {
        kind: tuple(change for change in changes if change.kind == kind)
        for kind in (cloud.machine, cloud.balancer, cloud.address)
    }
    return Site(machines=of_kind[cloud.machine], balancers=of_kind[cloud.balancer], addresses=of_kind[cloud.address])


def machine_sentences(site: Site, cloud: CloudChanges) -> Iterator[str]:
    """One text for each machine that is made, changed, replaced or deleted."""
    for machine in site.machines:
        if machine.what == MADE:
            yield f"{machine.name} is made{_size(machine.after, cloud)}. {_made(site)}"
        elif machine.what == DELETED:
            yield f"{machine.name} is deleted. {_deleted(site)}"
        elif machine.what == REPLACED:
            yield f"{machine.name} is replaced by a new machine{_reason(machine, cloud)}. {_replaced(machine, site)}"
        elif machine.what == CHANGED:
            yield from _changed(machine, site, cloud)
        if machine.left_over:
            yield (
                f"An old machine in the place of {machine.name}, which an earlier run could not delete, is deleted."
                f" {NOTHING}"
            )


def data_at_risk(site: Site, cloud: CloudChanges) -> Iterator[str]:
    """What the app has written, and loses."""
    for machine in site.machines:
        if machine.what in (DELETED, REPLACED):
            yield DISK_GOES.format(name=machine.name)
        elif machine.left_over:
            yield (
                f"{machine.name}: what is still on the disk of the machine that it has replaced is deleted, $DATA_DIR"
                " included. Copy it first."
            )
        elif cloud.cuts_power and set(machine.changed) & cloud.stopping:
            yield (
                f"{machine.name}: its power is cut, and what the app has not yet written to the disk is lost. Stop the"
                " app first: docs/fleets.md#another-size-for-a-droplet-alone"
            )


def _made(site: Site) -> str:
    if site.is_new:
        return "The site is new."
    if site.stays_balanced:
        return f"It gets requests from the load balancer once it serves the release. {NOTHING}"
    return "It gets requests once it serves the release."


def _deleted(site: Site) -> str:
    if site.ends:
        return "No machine is left: the site is gone."
    if site.stays_balanced:
        return f"It leaves the load balancer and answers the requests that it has first. {NOTHING}"
    return "Another machine serves before."


def _replaced(machine: Change, site: Site) -> str:
    if machine.deleted_first:
        if site.others_serve and not _all_go_first(site):
            return f"The old one leaves the load balancer and is deleted first; the others serve meanwhile. {NOTHING}"
        return "The old one is deleted first: the site is away for the minutes until the new one serves."
    if site.stays_balanced:
        return f"The new one gets requests from the load balancer before the old one leaves it. {NOTHING}"
    if not site.was_balanced and not site.is_balanced and site.keeps_address:
        return (
            "The new one serves the release before the site's address moves to it. Visitors notice some seconds without"
            " an answer."
        )
    return "The new one serves the release before the old one is deleted."


def _all_go_first(site: Site) -> bool:
    """Whether every machine that serves is deleted before its replacement is made."""
    return all(machine.deleted_first for machine in site.machines if machine.before)


def _changed(machine: Change, site: Site, cloud: CloudChanges) -> Iterator[str]:
    """A change in place: it switches the machine off, or not, or nobody here knows."""
    stopping = sorted(set(machine.changed) & cloud.stopping)
    unknown = sorted(set(machine.changed) - cloud.stopping - cloud.running)
    if stopping:
        before, after = (_plain_size(state, cloud) for state in (machine.before, machine.after))
        what = f"goes from {before} to {after}" if cloud.size in stopping else f"gets another {listed(stopping)}"
        away = (
            f"{cloud.title} stops it for that. Requests that it has, and those until the load balancer notices"
            f" ({DRAIN_SECONDS} seconds at most), fail. It keeps its disk."
            if site.others_serve
            else f"{cloud.stop}. It keeps its disk and its address."
        )
        yield f"{machine.name} {what}. {away}"
    if unknown:
        yield (
            f"{machine.name}: {listed(unknown)} changes in place. {cloud.title} may restart the machine for that: the"
            " site would be away for about a minute."
        )
    elif machine.changed and not stopping:
        yield f"{machine.name}: {listed(machine.changed)} changes while it runs. {NOTHING}"


def _reason(machine: Change, cloud: CloudChanges) -> str:
    """Why it is replaced, in brackets; empty where somebody asked for it."""
    before, after = (_plain_size(state, cloud) for state in (machine.before, machine.after))
    if cloud.size in machine.causes:
        return f" ({before} before, {after} afterwards)"
    return f" (because of another {listed(machine.causes)})" if machine.causes else ""


def _size(state: State | None, cloud: CloudChanges) -> str:
    size = _plain_size(state, cloud)
    return f" ({size})" if size else ""


def _plain_size(state: State | None, cloud: CloudChanges) -> str:
    return known(state.inputs.get(cloud.size)) if state else ""
