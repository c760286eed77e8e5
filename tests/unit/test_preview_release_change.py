"""What is said of the release, its command and the way back."""

from __future__ import annotations

from typing import Any

import pytest

from decant.deploy.contents import Preview, Record
from decant.preview.events import Step
from decant.preview.release_change import ReleaseChange, release_change
from tests.support.preview_data import LIVE, NEXT, OLD, preview, record, release, rolled_out

MIGRATE = {"release_command": "flask db upgrade"}
NONE = object()


def changed(
    contents: Any = None, *steps: Step, live: str | None = LIVE, known: Any = NONE, **more: Any
) -> ReleaseChange:
    recorded: Record | None = record() if known is NONE else known
    asked: Preview = preview(contents or release(NEXT), **more)
    found = release_change(recorded, live, asked, steps or rolled_out())
    assert found is not None
    return found


def texts(change: ReleaseChange, *, more: bool = False) -> tuple[str, str, str]:
    """What is said of the release, of its command, and of the way back."""
    command = " ".join(line for section in change.command_section() for line in section.lines)
    return change.section("dev").lines[0], command, " ".join(change.rollback("dev", more=more))


BACK = f"`make rollback STACK=dev` puts `{LIVE}` live again, with its code, packages, variables and secrets."


def test_nothing_is_known_of_a_program_that_failed() -> None:
    assert release_change(record(), LIVE, None, ()) is None


def test_a_new_release() -> None:
    change = changed()
    assert change.verdict() == "A new release goes live."
    assert texts(change) == (f"`{LIVE}` → `{NEXT}`.", "", BACK)


def test_commits_are_named_shortly() -> None:
    known = record(release(commit="0123456789" * 4))
    change = changed(release(NEXT, commit="abcdefabcd" * 4 + "+changes"), known=known)
    assert texts(change)[0] == (
        f"`{LIVE}` (commit `012345678`) → `{NEXT}` (commit `abcdefabc` with changes that are not committed)."
    )


def test_the_release_command_of_a_new_release_runs_once() -> None:
    change = changed(release(NEXT, **MIGRATE))
    assert texts(change)[1:] == (
        f"`flask db upgrade` runs once, before the release gets visitors. `{LIVE}` is live meanwhile, and must work"
        " with the data as the command leaves it.",
        f"{BACK} It does not undo what the release command does to the data.",
    )


def test_values_in_a_release_command_are_not_shown() -> None:
    change = changed(release(NEXT, release_command="TOKEN=canary tool --key=canary https://me:canary@example.com up"))
    assert texts(change)[1].startswith("`TOKEN=... tool --key=... https://...@example.com up` runs once")


def test_the_first_release() -> None:
    change = changed(release(NEXT, **MIGRATE), *rolled_out("create", op="create"), live=None, known=None)
    assert change.verdict() == "The first release goes live."
    assert texts(change, more=True) == (
        f"`{NEXT}`: 2 files, 1 package.",
        "`flask db upgrade` runs once, before the release gets visitors.",
        "There is no release to go back to yet; `make destroy STACK=dev` removes what is made.",
    )


def test_the_first_release_with_secrets_has_no_id_yet() -> None:
    change = changed(release(""), *rolled_out("create", op="create"), live=None, known=None)
    assert texts(change)[0] == "One whose id is not known yet: 2 files, 1 package."


def test_the_release_stays_and_nothing_runs() -> None:
    change = changed(release(**MIGRATE), *rolled_out("same", op="same"), known=record(release(**MIGRATE)))
    assert change.verdict() == ""
    assert texts(change) == (f"`{LIVE}` stays.", "", "")


def test_the_release_stays_while_others_things_change() -> None:
    change = changed(release(**MIGRATE), *rolled_out("same", "create"), known=record(release(**MIGRATE)))
    assert texts(change, more=True) == (
        f"`{LIVE}` stays. It is checked again on all machines.",
        "",
        "Revert the commit, then `make up STACK=dev`. A rollback changes the release alone.",
    )


@pytest.mark.parametrize("op", ["create-replacement", "replace", "create"])
def test_the_release_command_runs_on_a_machine_that_has_no_predecessor(op: str) -> None:
    """No machine is left that has confirmed the release, so the rollout runs its command."""
    change = changed(release(**MIGRATE), *rolled_out(op))
    assert texts(change)[1] == "`flask db upgrade` runs again, on a new machine: none is left that has run it."
    assert not changed(release(**MIGRATE), *rolled_out(op, "same")).command_runs


def test_a_new_machine_cannot_go_back() -> None:
    change = changed(release(NEXT), *rolled_out("create-replacement", "replace", "delete-replaced"))
    assert texts(change) == (
        f"`{LIVE}` → `{NEXT}`.",
        "",
        f"No `make rollback` to `{LIVE}`: a new machine does not have it. Revert the commit, then `make up STACK=dev`.",
    )


def test_other_changes_are_not_undone_by_a_rollback() -> None:
    text = texts(changed(), more=True)[2]
    assert text == f"{BACK} It does not undo the other changes: for these, revert the commit, then `make up STACK=dev`."


def test_a_rollback_runs_no_release_command() -> None:
    known = record(before=release(OLD, **MIGRATE))
    change = changed(release(NEXT), known=known, pinned=OLD)
    assert change.verdict() == f"The stack goes back to release `{OLD}`."
    assert texts(change) == (
        f"`{LIVE}` → `{OLD}`. `decant:release` holds the stack on it: changes of"
        " the app folder wait until `pulumi config rm decant:release --stack dev`.",
        "`flask db upgrade` does not run, because the release was live before.",
        BACK,
    )


def test_a_revert_that_makes_an_old_release_again_runs_no_release_command() -> None:
    change = changed(release(OLD, **MIGRATE))
    assert texts(change)[1] == "`flask db upgrade` does not run, because the release was live before."


def test_a_pinned_release_that_nobody_recorded() -> None:
    change = changed(release(NEXT), pinned="0123456789ab")
    assert texts(change)[:2] == (
        f"`{LIVE}` → `0123456789ab`. `decant:release` holds the stack on it:"
        " changes of the app folder wait until `pulumi config rm decant:release --stack dev`.",
        "It is not known whether this release has one. It does not run again where the release was live before.",
    )


def test_a_stack_without_a_record_knows_the_live_release() -> None:
    change = changed(release(LIVE), *rolled_out("same", op="same"), known=None)
    assert (change.live, change.changes, change.was_live) == (LIVE, False, True)


def test_only_the_rollout_step_itself_counts() -> None:
    change = changed(release(NEXT), *rolled_out("update", op="same"))
    assert not change.rolls_out
