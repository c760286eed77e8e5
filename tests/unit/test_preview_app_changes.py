"""The differences between two releases."""

from __future__ import annotations

import pytest

from decant.preview.app_changes import AppChanges, Change, Names, Package, app_changes, upcoming
from tests.support.preview_data import LIVE, NEXT, OLD, preview, record, release


def test_nothing_changes() -> None:
    assert app_changes(record(), preview()) == AppChanges()


def test_files_and_names_are_added_changed_and_removed() -> None:
    old, new = {"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"}
    names = Names(added=("d",), changed=("b",), removed=("a",))
    assert len(names) == 3
    assert app_changes(
        record(release(files=old, variables=old, secrets=old), settings=old),
        preview(release(NEXT, files=new, variables=new, secrets=new), settings=new),
    ) == AppChanges(files=names, variables=names, secrets=names, settings=names)


def test_packages_change() -> None:
    old = {"flask": "3.1.0", "click": "8.2", "gone": "1", "same": "1"}
    new = {"flask": "3.1.10", "click": "8.1", "new": ">=2", "same": "1"}
    found = app_changes(record(release(packages=old)), preview(release(NEXT, packages=new)))
    assert found is not None
    assert found.packages == (
        Package(name="click", old="8.2", new="8.1"),
        Package(name="flask", old="3.1.0", new="3.1.10"),
        Package(name="gone", old="1"),
        Package(name="new", new=">=2"),
    )
    assert [p.older for p in found.packages] == [True, False, False, False]


def test_how_it_is_served_changes() -> None:
    new = {"gunicorn": "2", "install": "1", "install_project": "1", "mystery": "1"}
    found = app_changes(record(), preview(release(NEXT, serving=new, entry="shop:app", python="3.12")))
    assert found == AppChanges(
        serving=(
            "gunicorn's options",
            "how packages are installed",
            "mystery",
            "Decant's own files that serve the app",
        ),
        entry=Change(old="wsgi:app", new="shop:app"),
        python=Change(old="3.13", new="3.12"),
    )


def test_a_release_command_is_new() -> None:
    found = app_changes(record(), preview(release(NEXT, release_command="flask db upgrade")))
    assert found == AppChanges(release_command=Change(old=None, new="flask db upgrade"))


@pytest.mark.parametrize("key", ["", "another"])
def test_without_the_same_key_only_names_are_compared(key: str) -> None:
    new = release(NEXT, secrets={"TOKEN": "2", "NEW": "1"}, variables={"DEBUG": "2"}, serving={})
    found = app_changes(record(), preview(new, key=key, settings={"decant:cloud": "2"}))
    assert found == AppChanges(secrets=Names(added=("NEW",)), values_known=False)


def test_what_is_not_recorded_cannot_be_compared() -> None:
    assert app_changes(None, preview()) is None
    assert app_changes({**record(), "live": None}, preview()) is None
    assert app_changes(record(), preview(pinned="0123456789ab")) is None


def test_a_pin_is_compared_with_what_was_recorded() -> None:
    known = record(before=release(OLD, files={"old.py": "1"}))
    waiting = preview(release(NEXT, files={"new.py": "1"}), pinned=OLD)
    assert upcoming(known, waiting) == known["before"]
    assert upcoming(known, {**waiting, "pinned": LIVE}) == known["live"]
    assert upcoming(None, waiting) is None
    found = app_changes(known, waiting)
    assert found is not None
    assert found.files == Names(added=("old.py",), removed=("requirements.txt", "wsgi.py"))
