"""What a rollout reports: progress for people, and the receipt and result that become outputs of the stack."""

from __future__ import annotations

import sys
from typing import NotRequired, TypedDict

from decant.rollout.certificate import SiteCertificate


class MachineData(TypedDict):
    """A machine in the result."""

    name: str
    address: str


class ProbeSummary(TypedDict):
    """What the prober saw while the release went live. The times are in milliseconds; without a good answer, absent.

    `longest_gap_ms` is the longest time without a good answer.
    """

    requests: int
    failed: int
    longest_gap_ms: NotRequired[int]
    p50_ms: NotRequired[float]
    p99_ms: NotRequired[float]


# `from` is a keyword, hence the other notation. `seconds` has the duration of each step, and of all of them as `all`.
_Course = TypedDict("_Course", {"from": str | None, "to": str, "seconds": dict[str, float]})


class Receipt(ProbeSummary, _Course):
    """How a release went live."""


class RolloutResult(TypedDict):
    """The JSON that the `rollout` step prints.

    `url` begins with https where the site's certificate was verified. `certificate` is None where no machine and no
    load balancer of the stack gets one. `saved_certificate` is a secret: the certificate with its key, for a machine
    in this one's place.
    """

    url: str
    certificate: SiteCertificate | None
    saved_certificate: str | None
    release: str
    machines: list[MachineData]
    receipt: Receipt


def log(text: str) -> None:
    """Print progress to standard error; standard output is for the result."""
    print(text, file=sys.stderr)


def format_receipt(receipt: Receipt) -> str:
    """Return a receipt as one line of text."""
    seconds = f"{receipt['seconds']['all']:.1f} s"
    if "p99_ms" not in receipt:
        return f"{receipt['to']} is live after {seconds}"
    return (
        f"{receipt['from']} -> {receipt['to']} in {seconds}: {receipt['requests']} requests asked meanwhile,"
        f" {receipt['failed']} failed, longest gap {receipt['longest_gap_ms']} ms, p50 {receipt['p50_ms']} ms,"
        f" p99 {receipt['p99_ms']} ms"
    )
