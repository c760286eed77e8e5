"""`make bench`: measure, show, and keep the figures in bench/README.md and bench/results.json."""

from __future__ import annotations

import argparse
import sys

from bench import deploy, load, report, serving
from bench.lab import BenchError, Progress, RehearsalError, computer, install_peers, lab
from rehearsal.runner import finish

PARTS = {"deploy": deploy.measure, "load": load.measure, "serving": serving.measure}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), help="one part alone; the others' figures stay as they are")
    parser.add_argument("--quick", action="store_true", help="each thing once: a trial, whose figures are not kept")
    words = parser.parse_args()
    say = Progress()
    try:
        if words.only != "serving":
            install_peers(say)
        with lab(say) as place:
            results = {} if words.quick else report.read()  # now that no other run can write them
            for part in [words.only] if words.only else PARTS:
                results[part] = {"on": computer(), **PARTS[part](place, quick=words.quick)}
                if not words.quick:
                    report.keep(results)
                    say(f"bench/README.md and bench/results.json hold the figures of {part} now")
        print(report.tables(results))
    except (BenchError, RehearsalError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the machines are gone.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    finish(main())
