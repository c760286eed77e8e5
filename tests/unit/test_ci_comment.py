"""The rule of one comment, whatever the order in which jobs do their steps."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from decant.ci import comment
from decant.ci.comment import Marker, marker_of, text_of, upsert
from decant.ci.forge import Entry, Job
from decant.errors import CiError, ForgeError, UnclearWriteError


class Order:
    """Lets jobs do one step at a time, in a given order; those that are left over go by their numbers."""

    def __init__(self, jobs: int, steps: Sequence[int]) -> None:
        self.alive = set(range(jobs))
        self.steps = list(steps)
        self.changed = threading.Condition()

    def _next(self) -> int:
        while self.steps and self.steps[0] not in self.alive:
            self.steps.pop(0)
        return self.steps[0] if self.steps else min(self.alive)

    @contextmanager
    def step(self, job: int) -> Iterator[None]:
        with self.changed:
            assert self.changed.wait_for(lambda: self._next() == job, timeout=20)
            yield
            del self.steps[:1]
            self.changed.notify_all()

    def over(self, job: int) -> None:
        with self.changed:
            self.alive.discard(job)
            self.changed.notify_all()


@dataclass
class Comments:
    """The comments of one pull request, which several jobs share."""

    texts: dict[int, str] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass
class AsJob:
    """The comments as one job reaches them."""

    comments: Comments
    order: Order
    job: int

    def entries(self) -> Sequence[Entry]:
        with self.order.step(self.job):
            return [Entry(id=id, text=text, mine=True, url="") for id, text in self.comments.texts.items()]

    def read(self, id: int) -> str:
        with self.order.step(self.job):
            if id not in self.comments.texts:
                raise ForgeError("Not Found", status=404)
            return self.comments.texts[id]

    def create(self, text: str) -> Entry:
        with self.order.step(self.job):
            id = next(self.comments.ids)
            self.comments.texts[id] = text
            return Entry(id=id, text=text, mine=True, url="")

    def edit(self, id: int, text: str) -> None:
        with self.order.step(self.job):
            if id not in self.comments.texts:
                raise ForgeError("Not Found", status=404)
            self.comments.texts[id] = text

    def remove(self, id: int) -> None:
        with self.order.step(self.job):
            if id not in self.comments.texts:
                raise ForgeError("Not Found", status=404)
            del self.comments.texts[id]


def job(run: int) -> Job:
    return Job(order=(run, 1), url="https://example.com/log")


def race(runs: Sequence[int], steps: Sequence[int], before: Sequence[str] = ()) -> list[str]:
    """The comments that are left when each of the runs has commented, their steps in this order."""
    comments = Comments()
    comments.texts = {next(comments.ids): text for text in before}
    order = Order(len(runs), steps)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        text = text_of("p/dev", f"of run {runs[number]}", job(runs[number]))
        try:
            upsert(AsJob(comments, order, number), text, sleep=lambda seconds: None)
        except BaseException as error:
            failed.append(error)
        finally:
            order.over(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failed, steps
    return list(comments.texts.values())


def orders_of_two() -> Iterator[tuple[int, ...]]:
    """All orders of the first steps of two jobs."""
    return itertools.product((0, 1), repeat=7)


def orders_of_three() -> Iterator[tuple[int, ...]]:
    """Some orders of the first steps of three jobs."""
    chance = random.Random(18)
    return (tuple(chance.randrange(3) for _ in range(12)) for _ in range(150))


def texts(runs: Sequence[int]) -> list[str]:
    return [text_of("p/dev", f"of run {run}", job(run)) for run in runs]


def test_two_jobs_that_race_for_the_first_comment_leave_that_of_the_newer_run() -> None:
    for steps in orders_of_two():
        assert race([7, 8], steps) == texts([8]), steps


def test_jobs_that_race_otherwise_leave_one_comment() -> None:
    """Which text stays is not sure: a forge has no edit that fails where somebody else was faster."""
    for steps in orders_of_two():
        [left] = race([7, 8], steps, before=texts([6, 5]))
        assert left in texts([7, 8]), steps
    for steps in orders_of_three():
        [left] = race([9, 7, 8], steps)
        assert left in texts([7, 8, 9]), steps


class Failing:
    """A thread whose comments are made, and whose answers all get lost."""

    def __init__(self, error: Callable[[], ForgeError]) -> None:
        self.error = error
        self.calls: list[str] = []

    def entries(self) -> Sequence[Entry]:
        self.calls.append("entries")
        return [Entry(id=1, text=text_of("p/dev", "old", job(1)), mine=True, url="")] if "edit" in self.calls else []

    def read(self, id: int) -> str:
        return text_of("p/dev", "old", job(1))

    def create(self, text: str) -> Entry:
        self.calls.append("create")
        raise self.error()

    def edit(self, id: int, text: str) -> None:
        raise self.error()

    def remove(self, id: int) -> None:
        raise self.error()


def test_a_refusal_is_not_tried_again() -> None:
    thread = Failing(lambda: ForgeError("no", status=403))
    with pytest.raises(ForgeError, match=r"^no$"):
        upsert(thread, text_of("p/dev", "new", job(2)), sleep=lambda seconds: None)
    assert thread.calls == ["entries", "create"]


def test_an_answer_that_always_gets_lost_ends() -> None:
    thread = Failing(lambda: UnclearWriteError("lost", status=502))
    with pytest.raises(UnclearWriteError, match=r"^lost$"):
        upsert(thread, text_of("p/dev", "new", job(2)), sleep=lambda seconds: None)
    assert thread.calls == ["entries", "create"] * comment.ROUNDS


def test_a_comment_that_others_always_delete_ends() -> None:
    thread = Failing(lambda: ForgeError("gone", status=404))
    thread.calls.append("edit")
    with pytest.raises(
        ForgeError, match=r"^Other jobs write the comment p/dev again and again\.\nRun this job again\.$"
    ):
        upsert(thread, text_of("p/dev", "new", job(2)), sleep=lambda seconds: None)


# ------------------------------------------------------------------------------------------------ the marker


@pytest.mark.parametrize("key", ["decant/production", "p:review url", "p!--><script>", "p/\u00e9\n", "p/a--b"])
def test_a_marker_is_one_line_that_ends_at_its_end(key: str) -> None:
    text = text_of(key, "body", job(3))
    first = text.splitlines()[0]
    assert first.index("-->") == len(first) - 3
    found = marker_of(text)
    assert found
    assert found.order == (3, 1)
    assert str(found) == first


@pytest.mark.parametrize(
    "text", ["", "body", " <!-- decant key=a run=1.1 base= -->", "<!-- decant key=a run=1 base= -->"]
)
def test_other_texts_have_no_marker(text: str) -> None:
    assert marker_of(text) is None


def test_a_marker_is_read_as_it_was_written() -> None:
    marker = Marker("decant/dev", (123456789012, 2), "ab" * 20)
    assert marker_of(f"{marker}\r\n\r\nbody") == marker


def test_a_key_has_a_length() -> None:
    with pytest.raises(CiError, match=r"^KEY is 201 characters long"):
        text_of("k" * 201, "body", job(1))


def test_a_body_has_a_length() -> None:
    with pytest.raises(CiError, match=r"^The text is 64,001 characters long: a comment holds at most 64,000\.$"):
        text_of("k", "b" * 64_001, job(1))
    assert len(text_of("k", "b" * 64_000, job(1))) < comment.LONGEST_TEXT
