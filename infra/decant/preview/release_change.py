"""What happens to the release: which one goes live, whether its command runs, and what a rollback would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from decant.deploy.contents import Preview, Record
from decant.preview.app_changes import upcoming
from decant.preview.events import Step
from decant.preview.section import Section
from decant.preview.text import code, command, count

SHORT = 9
"""Characters of a commit that are shown."""


@dataclass(frozen=True, kw_only=True)
class ReleaseChange:
    """The release that is live, the next one, and what is known of the machines that get it."""

    live: str | None
    """None for a stack without a release."""
    next: str
    """Empty where its id is not known yet."""
    pinned: bool
    """Whether `decant:release` names it."""
    live_commit: str | None
    next_commit: str | None
    command: str | None
    """The next release's release command."""
    command_known: bool
    """Whether it is known. It is not for a pinned release that was not recorded."""
    was_live: bool
    """Whether a machine knows the next release as one that was live before."""
    rolls_out: bool
    """Whether the step runs that puts the release live."""
    new_machines: bool
    """Whether a machine gets its first release."""
    size: str
    """How much the next release holds, such as 66 files, 12 packages; empty where that is not known."""

    @property
    def changes(self) -> bool:
        """Whether another release goes live."""
        return self.live is None or self.next != self.live

    @property
    def command_runs(self) -> bool:
        """Whether the release command runs: once for a release, on a machine that has not had it live."""
        return bool(self.command) and self.rolls_out and not self.was_live

    def verdict(self) -> str:
        """The first thing to say, without what the release holds."""
        if self.live is None:
            return "The first release goes live."
        if not self.changes:
            return ""
        if self.pinned:
            return f"The stack goes back to release {code(self.next)}."
        return "A new release goes live."

    def section(self, stack: str) -> Section:
        """From which release to which, and from which commit to which."""
        name = code(self.next) if self.next else "one whose id is not known yet"
        following = name + self._at(self.next_commit)
        if self.live is None:
            lines = [f"{name[0].upper()}{name[1:]}{self._at(self.next_commit)}: {self.size or 'the first'}."]
        elif self.changes:
            lines = [f"{code(self.live)}{self._at(self.live_commit)} → {following}."]
        elif self.rolls_out:
            lines = [f"{code(self.live)}{self._at(self.live_commit)} stays. It is checked again on all machines."]
        else:
            lines = [f"{code(self.live)}{self._at(self.live_commit)} stays."]
        if self.pinned:
            leave = code(f"pulumi config rm decant:release --stack {stack}")
            lines.append(
                f"{code('decant:release')} holds the stack on it: changes of the app folder wait until {leave}."
            )
        return Section(title="Release", lines=(" ".join(lines),))

    @staticmethod
    def _at(commit: str | None) -> str:
        if not commit:
            return ""
        known, changed, _ = commit.partition("+")
        return f" (commit {code(known[:SHORT])}{' with changes that are not committed' if changed else ''})"

    def command_section(self) -> Iterator[Section]:
        """Whether the release command runs; nothing where there is none, or nothing is rolled out."""
        if not self.rolls_out:
            return
        if not self.command_known:
            text = (
                "It is not known whether this release has one. It does not run again where the release was live before."
            )
            yield Section(title="Release command", lines=(text,))
        elif self.command and self.command_runs:
            text = f"{command(self.command)} runs once, before the release gets visitors."
            if self.live is not None and self.changes:
                text += f" {code(self.live)} is live meanwhile, and must work with the data as the command leaves it."
            elif self.live is not None:
                text = f"{command(self.command)} runs again, on a new machine: none is left that has run it."
            yield Section(title="Release command", lines=(text,))
        elif self.command and self.changes:
            text = f"{command(self.command)} does not run, because the release was live before."
            yield Section(title="Release command", lines=(text,))

    def rollback(self, stack: str, *, more: bool) -> Iterator[str]:
        """How to undo this, in sentences. `more`: other things than the release change, too."""
        up = code(f"make up STACK={stack}")
        if self.live is None:
            yield f"There is no release to go back to yet; {code(f'make destroy STACK={stack}')} removes what is made."
        elif self.changes and self.new_machines:
            yield (
                f"No {code('make rollback')} to {code(self.live)}: a new machine does not have it."
                f" Revert the commit, then {up}."
            )
        elif self.changes:
            rollback = code(f"make rollback STACK={stack}")
            yield (f"{rollback} puts {code(self.live)} live again, with its code, packages, variables and secrets.")
            if self.command_runs:
                yield "It does not undo what the release command does to the data."
            if more:
                yield f"It does not undo the other changes: for these, revert the commit, then {up}."
        elif more:
            yield f"Revert the commit, then {up}. A rollback changes the release alone."


def release_change(
    record: Record | None, live: str | None, preview: Preview | None, steps: Iterable[Step]
) -> ReleaseChange | None:
    """What happens to the release. None where the program ended before it knew the next one."""
    if preview is None:
        return None
    known = upcoming(record, preview)
    following = preview["pinned"] or preview["contents"]["release"]
    steps = tuple(steps)
    staged = [step for step in steps if step.type == "command:remote:Command" and step.name.endswith("-stage")]
    survivors = [step for step in staged if step.op in ("same", "update")]
    recent = record["history"] if record else [live] if live else []
    live_contents = record["live"] if record else None
    return ReleaseChange(
        live=live,
        next=following,
        pinned=preview["pinned"] is not None,
        live_commit=live_contents["commit"] if live_contents else None,
        next_commit=known["commit"] if known else None,
        command=known["release_command"] if known else None,
        command_known=known is not None,
        was_live=following in recent and bool(survivors),
        rolls_out=any(
            step.type == "command:local:Command" and step.name == "rollout" and step.op not in ("same", "delete")
            for step in steps
        ),
        size=f"{count(len(known['files']), 'file')}, {count(len(known['packages']), 'package')}" if known else "",
        new_machines=any(step.op in ("create", "create-replacement", "replace") for step in staged),
    )
