"""The `rollout` step, which runs where `pulumi` runs: `python -m decant.rollout RELEASE < plan.json`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from decant.errors import HttpsError, MachineError, NotInRotationError, RolloutError, UnsettledError
from decant.rollout.attempt import Attempt
from decant.rollout.certificate import ending_soon
from decant.rollout.plan import Plan
from decant.rollout.report import format_receipt, log


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step and return its exit status. The result is one line of JSON, a `RolloutResult`."""
    parser = argparse.ArgumentParser(
        prog="python -m decant.rollout",
        description="Put a staged release live on all machines of a plan, or leave the old one on all of them.",
        epilog="The plan is JSON on standard input: url, balancer (managed, external or null), batch (how many machines"
        " switch at a time) and machines (name, tag, address, port, user, host_key, private_key, setting of each)."
        " The result is one line of JSON.",
    )
    parser.add_argument("release", help="release id: 12 hexadecimal digits")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # a process that a shell starts in the background ignores SIGINT
        signal.signal(number, _interrupted)
    release = options.release
    attempt = Attempt(Plan.from_dict(release, json.load(sys.stdin)))
    try:
        result = attempt.run()
    except NotInRotationError as error:
        log(
            f"release {release} is live and confirmed on all machines, but visitors do not reach all: {error}\n"
            "Then run pulumi up again: it asks once more."
        )
        return 1
    except HttpsError as error:
        log(f"release {release} is live and confirmed, but HTTPS does not work: {error}")
        return 1
    except UnsettledError as error:
        log(
            f"release {release} is live, but not confirmed everywhere: {error}\n"
            "A machine without its confirm goes back to the old release by itself. Run pulumi up again to settle it."
        )
        return 1
    except (RolloutError, MachineError) as error:
        log(f"release {release} is not live: {error}\nWhat was served before is served still.")
        return 1
    except KeyboardInterrupt:
        served = "it is live" if attempt.confirmed else "what was served before is served still"
        log(f"release {release}: interrupted; {served}")
        return 130
    log(format_receipt(result["receipt"]))
    if problem := ending_soon(result["certificate"]):
        log(problem.text)
        if problem.fails:
            return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
