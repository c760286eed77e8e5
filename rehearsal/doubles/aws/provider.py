"""How the AWS provider puts AWS's answers to its user: it tries again where AWS asks for that, and wraps errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TypeVar

from rehearsal.accounts.base import CloudError
from rehearsal.errors import StepFailedError

Answer = TypeVar("Answer")

RETRIED = {"RequestLimitExceeded", "Throttling"}
ATTEMPTS = 25  # the provider's default of aws:maxRetries
PAUSE = 0.1  # seconds; the provider waits longer each time


def refused(text: str) -> StepFailedError:
    """Return the error that the user of the provider sees."""
    return StepFailedError(text)


def ask(doing: str, operation: str, call: Callable[[], Answer], late: str = "") -> Answer:
    """Make a call of AWS's API, again and again while there are too many calls, or with the error code `late`.

    Raises:
        StepFailedError: AWS refuses the call; the text is the provider's.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except CloudError as error:
            if error.code not in {*RETRIED, late} or attempt == ATTEMPTS - 1:
                raise refused(
                    f"{doing}: operation error {operation}, https response error StatusCode: {error.status},"
                    f" RequestID: {uuid.uuid4()}, api error {error.code}: {error.message}"
                ) from None
        time.sleep(PAUSE)
    raise AssertionError("the last attempt returns or raises")
