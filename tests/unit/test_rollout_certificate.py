"""The certificate for people: how long it is valid, which records are missing, when to worry."""

from __future__ import annotations

from typing import Any

import pytest

from decant.rollout.certificate import describe, ending_soon, records, remaining
from tests.support.fake_fleet import NO_CERTIFICATE

DAY = 86400.0
ADDRESS = "203.0.113.7"


def status(**changes: Any) -> Any:
    """A certificate of 90 days that begins on 1970-01-01, changed."""
    live = {"state": "live", "names": ["example.com"], "missing": [], "not_before": 0.0, "not_after": 90 * DAY}
    return {**NO_CERTIFICATE, **live, **changes}


@pytest.mark.parametrize(("day", "left"), [(0, 1.0), (45, 0.5), (60, 1 / 3), (90, 0.0), (120, 0.0)])
def test_the_part_that_is_left(day: float, left: float) -> None:
    assert remaining(status(), day * DAY) == pytest.approx(left)


def test_without_a_certificate_nothing_is_left() -> None:
    assert remaining(status(not_before=None, not_after=None), 0) == 0.0


@pytest.mark.parametrize(("day", "fails"), [(60.5, False), (74.9, False), (75.1, True), (91, True)])
def test_below_a_third_is_a_warning_and_below_a_sixth_a_failure(day: float, fails: bool) -> None:
    found = ending_soon(status(reason="port 80 is closed"), day * DAY)
    assert found
    assert found.fails is fails
    assert found.text.startswith("the release is live, but its certificate" if fails else "warning: the certificate")
    assert found.text.endswith("and was not renewed: port 80 is closed")
    assert "until 1970-04-01" in found.text


@pytest.mark.parametrize(
    ("lifetime", "days_left", "left", "told"),
    [
        # AWS renews certificates of 198 days with 45 days left. A third of the lifetime, 66 days, is too early.
        (198, 40, 41, None), (198, 40, 39, False), (198, 40, 21, False), (198, 40, 19, True),
        (90, None, 31, None), (90, None, 29, False), (90, None, 16, False), (90, None, 14, True),
        # A shorter lifetime than the cloud's own has the usual rule.
        (90, 40, 31, None), (90, 40, 29, False), (90, 40, 14, True),
    ],
)  # fmt: skip
def test_a_load_balancers_certificate_is_told_when_its_cloud_should_have_renewed_it(
    lifetime: float, days_left: float | None, left: float, told: bool | None
) -> None:
    renewal = {"names": ["example.com"], "days_left": days_left, "help": "look at the record"}
    found = ending_soon(status(not_after=lifetime * DAY, renewal=renewal), (lifetime - left) * DAY)
    assert (found.fails if found else None) is told
    if found:
        assert found.text.endswith("and was not renewed: look at the record")
        assert f"valid for {left} days" in found.text


@pytest.mark.parametrize(
    "quiet",
    [status(), None, {**NO_CERTIFICATE, "state": "off"}, status(not_after=6 * DAY, not_before=5.9 * DAY - 6 * DAY)],
)
def test_a_certificate_that_lives_long_enough_is_not_mentioned(quiet: Any) -> None:
    assert ending_soon(quiet, 1 * DAY) is None


def test_the_records_of_an_address_and_of_a_balancer() -> None:
    names = ["example.com", "www.example.com"]
    assert records(names, ADDRESS) == [f"example.com      A  {ADDRESS}", f"www.example.com  A  {ADDRESS}"]
    assert records(["example.com"], "2001:db8::7") == ["example.com  AAAA  2001:db8::7"]
    assert records(["www.example.com"], "lb.example") == ["www.example.com  CNAME  lb.example"]


def test_a_live_certificate_in_one_line() -> None:
    assert describe(status(renewed=20 * DAY), ADDRESS, 28 * DAY) == [
        "for example.com, valid for 62 days, until 1970-04-01, renewed 1970-01-21"
    ]


def test_a_renewal_that_failed_is_told_with_its_reason() -> None:
    lines = describe(status(reason="the authority is away"), ADDRESS, 28 * DAY)
    assert lines[1:] == ["the authority is away"]


def test_a_name_that_leads_elsewhere_is_told_with_the_records_to_set() -> None:
    waiting: Any = {**NO_CERTIFICATE, "cause": "no-record", "reason": "example.com leads to no address"}
    assert describe(waiting, ADDRESS) == [
        "not yet; the site is served over http",
        "example.com leads to no address",
        "set these records where the name is registered:",
        f"example.com  A  {ADDRESS}",
        "the machine goes on by itself, also after this command",
    ]


def test_https_that_is_off_is_told_in_a_word() -> None:
    assert describe(status(state="off"), ADDRESS) == ["off"]
