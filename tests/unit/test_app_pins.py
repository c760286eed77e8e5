"""Pins that are known not to work."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from decant.app.pins import check_gunicorn, clashes, in_its_place

WHERE = "line 4 of requirements.txt"


@pytest.mark.parametrize(
    "text", ["gunicorn==19.4.5", "gunicorn<20", "gunicorn>=19,<20", "gunicorn==17.5", "gunicorn==19.9.0"]
)
def test_a_gunicorn_older_than_20_is_named(text: str) -> None:
    assert list(check_gunicorn(Requirement(text), WHERE, "3.13")) == [
        (
            f"{WHERE} asks for {Requirement(text)}; Decant serves with gunicorn 20 or newer",
            f"write gunicorn>=23 in {WHERE}",
        )
    ]


@pytest.mark.parametrize(
    "text",
    ["gunicorn", "gunicorn==20.0.4", "gunicorn==20.1.0", "gunicorn>=19", "gunicorn~=20.0", "gunicorn==23.*",
     "gunicorn==27.0.1", "gunicorn<=20.0.4", "gunicorn>99"],
)  # fmt: skip
def test_every_gunicorn_from_20_on_is_taken(text: str) -> None:
    assert list(check_gunicorn(Requirement(text), WHERE, "3.13")) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [("gunicorn==19.9.0", "gunicorn==23.0.0"), ("gunicorn[tornado,gevent]<20", "gunicorn[gevent,tornado]==23.0.0")],
)
def test_the_gunicorn_in_its_place_keeps_the_extras(text: str, line: str) -> None:
    assert in_its_place(Requirement(text)) == line


def test_a_gunicorn_that_needs_a_newer_python_is_named() -> None:
    found = list(check_gunicorn(Requirement("gunicorn==27.0.1"), WHERE, "3.9"))
    assert found == [
        (
            f"{WHERE} asks for gunicorn==27.0.1, which needs Python 3.10 or newer; the app runs on 3.9",
            f"write gunicorn==23.0.0 in {WHERE}",
        )
    ]
    assert list(check_gunicorn(Requirement("gunicorn==24.0.0"), WHERE, "3.9.2")) != []
    for text, python in (("gunicorn==27.0.1", "3.10"), ("gunicorn==23.0.0", "3.8"), ("gunicorn", "3.8"),
                         ("gunicorn>=20", "3.9"), ("gunicorn==20.1.0", "3.8")):  # fmt: skip
        assert list(check_gunicorn(Requirement(text), WHERE, python)) == []


@pytest.mark.parametrize(
    ("packages", "added"),
    [
        (["Flask==2.0.3"], ["werkzeug<3"]),
        (["Flask==2.2.3"], ["werkzeug<3"]),
        (["Flask==2.2.4"], []),
        (["Flask==2.0.3", "Werkzeug==2.0.3"], []),
        (["Flask==2.0.3", "werkzeug>=2"], ["werkzeug<3"]),
        (["Flask==2.0.3", "werkzeug<3"], []),
        (["Flask>=2.0"], []),
        (["Flask==3.0.3"], []),
        (["Flask==1.1.4"], ["markupsafe<2.1"]),
        (["Flask==1.1.4", "MarkupSafe==2.0.1"], []),
        (["Flask==1.1.2"], ["werkzeug<2.1", "jinja2<3.1", "itsdangerous<2.1", "markupsafe<2.1"]),
        (["Flask==0.12.2", "Jinja2==2.10", "Werkzeug==0.14.1", "itsdangerous==0.24", "MarkupSafe==1.0"], []),
        (["gunicorn"], []),
    ],
)  # fmt: skip
def test_a_flask_that_todays_packages_break_is_named_with_the_line_to_add(
    packages: list[str], added: list[str]
) -> None:
    found = list(clashes([Requirement(text) for text in packages]))
    assert [line for _, line in found] == added


def test_the_sentence_says_which_versions_do_not_fit() -> None:
    assert list(clashes([Requirement("Flask==2.0.3")])) == [
        ("Flask==2.0.3 does not work with werkzeug 3, and nothing limits that", "werkzeug<3")
    ]
