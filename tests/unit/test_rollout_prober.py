"""The prober: it asks until the block ends, and sums up what it saw."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from decant.rollout.http_probe import ProbeResult
from decant.rollout.prober import Prober
from decant.rollout.report import ProbeSummary
from tests.support.fake_fleet import OLD, Site


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it did not come to that")


def is_running() -> bool:
    return any(thread.name == "prober" for thread in threading.enumerate())


def test_the_prober_survives_a_broken_answer(site: Site) -> None:
    prober = Prober(url=site.url, interval=0.001)
    site.fault = "cut short"
    with prober.running():
        wait_for(lambda: len(prober.results) >= 3 or not is_running())
    assert prober.summary()["failed"] >= 3


def test_the_prober_asks_until_the_block_ends(site: Site) -> None:
    prober = Prober(url=site.url + "/x", interval=0.001)
    with prober.running():
        assert is_running()
        wait_for(lambda: len(prober.results) >= 5)
    assert not is_running()
    assert {result.status for result in prober.results} == {200}
    assert set(site.paths) == {"/x"}
    assert prober.summary()["requests"] == len(prober.results)


def test_the_prober_stops_when_the_block_fails(site: Site) -> None:
    with contextlib.suppress(KeyError), Prober(url=site.url, interval=0.001).running():
        assert is_running()
        raise KeyError
    assert not is_running()


def test_short_outages_are_seen() -> None:
    """A release that goes live with a gap of a quarter of a second must not count as one without a failure."""
    assert Prober(url="").interval <= 0.1


# ------------------------------------------------------------------------------------------------ the summary


def test_without_a_health_path_an_answer_below_500_is_no_failure() -> None:
    answers = [answer(status, 0.1 * at) for at, status in enumerate((200, 302, 404, 500, 0))]
    assert Prober(url="", needs_200=False, results=answers).summary()["failed"] == 2
    assert Prober(url="", results=answers).summary()["failed"] == 4


def answer(status: int, at: float, seconds: float = 0.01) -> ProbeResult:
    return ProbeResult(status=status, release=OLD, machine="", why="", at=at, seconds=seconds)


def summary(*answers: ProbeResult) -> ProbeSummary:
    return Prober(url="", results=list(answers)).summary()


def test_the_summary_of_a_quiet_release() -> None:
    made = summary(*[answer(200, i * 0.1, 0.010 + 0.001 * (i % 10)) for i in range(100)])
    assert made == {"requests": 100, "failed": 0, "longest_gap_ms": 101, "p50_ms": 14.5, "p99_ms": 19.0}


def test_the_summary_counts_failures_and_the_time_without_a_good_answer() -> None:
    made = summary(
        answer(200, 0.0), answer(0, 0.1), answer(502, 0.2), answer(404, 0.3), answer(200, 0.5, 0.2), answer(200, 0.8)
    )
    assert (made["requests"], made["failed"], made["longest_gap_ms"]) == (6, 3, 690)


def test_the_summary_shows_one_slow_answer() -> None:
    made = summary(*[answer(200, float(i)) for i in range(50)], answer(200, 50.0, 3.0))
    assert (made["p50_ms"], made["p99_ms"], made["longest_gap_ms"]) == (10.0, 3000.0, 3990)


def test_the_99th_percentile_is_not_the_slowest_of_many() -> None:
    made = summary(*[answer(200, float(i), 0.2 if i >= 195 else 0.01) for i in range(200)])
    assert made["p99_ms"] == 200.0
    made = summary(*[answer(200, float(i), 0.2 if i >= 199 else 0.01) for i in range(200)])
    assert made["p99_ms"] == 10.0


def test_the_summary_without_good_answers_has_no_times() -> None:
    assert summary() == {"requests": 0, "failed": 0}
    assert summary(answer(0, 0.0), answer(502, 0.1)) == {"requests": 2, "failed": 2}


def test_the_summary_of_a_single_answer() -> None:
    assert summary(answer(200, 0.0)) == {
        "requests": 1, "failed": 0, "longest_gap_ms": 0, "p50_ms": 10.0, "p99_ms": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1], ids=["at the end", "at the beginning"])
def test_an_outage_at_either_end_counts(turn: int) -> None:
    statuses = [200, 200, 0, 0, 0, 0][::turn]
    made = summary(*[answer(status, float(i)) for i, status in enumerate(statuses)])
    assert made["longest_gap_ms"] >= 3000
