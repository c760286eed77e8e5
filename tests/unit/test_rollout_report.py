"""What a rollout prints."""

from __future__ import annotations

import pytest

from decant.rollout.report import Receipt, format_receipt, log
from tests.support.fake_fleet import NEW, OLD


def test_a_receipt_is_one_line() -> None:
    receipt: Receipt = {
        "requests": 42, "failed": 1, "longest_gap_ms": 130, "p50_ms": 4.5, "p99_ms": 19.0,
        "from": OLD, "to": NEW, "seconds": {"switch": 1.25, "all": 3.14},
    }  # fmt: skip
    assert format_receipt(receipt) == (
        f"{OLD} -> {NEW} in 3.1 s: 42 requests asked meanwhile, 1 failed, longest gap 130 ms, p50 4.5 ms, p99 19.0 ms"
    )


def test_a_receipt_without_a_good_answer_names_no_times() -> None:
    receipt: Receipt = {"requests": 0, "failed": 0, "from": None, "to": NEW, "seconds": {"all": 3.14}}
    assert format_receipt(receipt) == f"{NEW} is live after 3.1 s"


def test_progress_leaves_standard_output_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    log("switch ...")
    assert capsys.readouterr() == ("", "switch ...\n")
