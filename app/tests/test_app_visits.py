"""The visit counter: shared by processes, and never in the way of the page."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

MakeApp = Callable[..., Flask]
PROCESSES, THREADS, VISITS = 3, 4, 50
FULL_DISK = Path("/dev/full")


def visits(client: FlaskClient) -> int | None:
    answer = client.get("/request").json
    assert answer is not None
    number: int | None = answer["visits"]
    return number


def test_two_applications_share_one_count(make_app: MakeApp) -> None:
    one, two = make_app().test_client(), make_app().test_client()
    assert [visits(client) for client in (one, two, two, one)] == [1, 2, 3, 4]


def test_count_survives_a_new_release(make_app: MakeApp) -> None:
    assert visits(make_app(DECANT_RELEASE="r1").test_client()) == 1
    assert visits(make_app(DECANT_RELEASE="r2").test_client()) == 2


def _count_in_threads(path: Path) -> list[int]:
    from hello.visits import VisitCounter

    counter = VisitCounter(path)
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda _: counter.count(), range(THREADS * VISITS)))


def test_no_visit_of_many_processes_is_lost_or_counted_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        numbers = [number for part in pool.map(_count_in_threads, [tmp_path / "visits"] * PROCESSES) for number in part]
    assert sorted(numbers) == list(range(1, PROCESSES * THREADS * VISITS + 1))


def test_an_unwritable_data_folder_costs_only_the_count(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A file where a folder should be: that stops root too, for whom permission bits do not count.
    (tmp_path / "file").touch()
    client = make_app(DATA_DIR=tmp_path / "file" / "data").test_client()
    answer = client.get("/request")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["visits"] is None
    assert answer.json["problem"] == "The data folder cannot be written: Not a directory."
    assert str(tmp_path) in caplog.text
    assert "Set DATA_DIR" in caplog.text

    page = client.get("/")
    assert page.status_code == 200
    assert "Not counted. The data folder cannot be written" in page.text
    assert str(tmp_path) not in page.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_only_the_count(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "visits").symlink_to(FULL_DISK)
    answer = make_app(DATA_DIR=tmp_path).test_client().get("/request")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["problem"] == "The data folder cannot be written: No space left on device."
