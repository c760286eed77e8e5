"""A state that does not fit the account: what is gone leaves it, and leaves no trace in what depended on it."""

from __future__ import annotations

from decant.cli.account import _remove


def test_what_is_gone_leaves_the_state_and_what_depended_on_it_stays() -> None:
    step = {
        "urn": "step",
        "dependencies": ["tag", "droplet"],
        "propertyDependencies": {"connection": ["droplet", "key"], "stdin": None},
        "deletedWith": "droplet",
    }
    other = {"urn": "other", "dependencies": ["tag"], "deletedWith": "tag"}
    deployment = {"resources": [{"urn": "droplet"}, {"urn": "tag"}, step, other]}
    _remove(deployment, {"droplet"})
    assert deployment["resources"] == [
        {"urn": "tag", "dependencies": [], "propertyDependencies": {}},
        {
            "urn": "step",
            "dependencies": ["tag"],
            "propertyDependencies": {"connection": ["key"], "stdin": []},
        },
        {"urn": "other", "dependencies": ["tag"], "propertyDependencies": {}, "deletedWith": "tag"},
    ]


def test_a_state_without_resources_stays_empty() -> None:
    deployment: dict[str, object] = {}
    _remove(deployment, {"droplet"})
    assert deployment == {"resources": []}
