"""The command behind `make bench`: measures, shows the figures, and keeps them in README.md and results.json."""

from __future__ import annotations

import argparse
import sys

from bench import deploy, load, report, serving
from bench.environment import BenchError, install_peers, prepared, this_computer
from rehearsal.errors import RehearsalError
from rehearsal.progress import Progress
from rehearsal.runner import finish

PARTS = {"deploy": deploy.measure, "load": load.measure, "serving": serving.measure}


def main() -> int:
    """Run the parts that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), help="this part alone; the figures of the others stay")
    parser.add_argument("--quick", action="store_true", help="each thing once: a trial, whose figures are not kept")
    options = parser.parse_args()
    say = Progress().say
    try:
        if options.only != "serving":
            install_peers(say)
        with prepared(say) as environment:
            results = {} if options.quick else report.read()  # read here, where no other run can write them
            for part in [options.only] if options.only else PARTS:
                results[part] = {"on": this_computer(), **PARTS[part](environment, quick=options.quick)}
                if not options.quick:
                    report.write(results)
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
