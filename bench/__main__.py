"""`python -m bench`: measure, print the table, write every sample and the picture, remove everything."""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence

from bench.report import picture, results, table
from bench.rows import LAUNCH, ROWS, Bench, Line, progress
from tests.stack import ROOT

# The short bench fails only when something is wrong, so its target is generous.
QUICK_TARGET = 0.6


def rows(names: str) -> list[str]:
    """Return the named rows, in the order in which they are measured."""
    if unknown := set(names.split(",")) - set(ROWS):
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names.split(",")]


def verdict(lines: Sequence[Line]) -> int:
    """Return 1, and print why, if a launch misses the target of the short bench."""
    slow = [line for line in lines if line.what == LAUNCH and line.result > QUICK_TARGET]
    for line in slow:
        progress(f"{line.what}: {line.result:.2f} of the baseline, above {QUICK_TARGET}")
    return int(bool(slow))


def main() -> int:
    """Return 1 if a launch misses the target of the short bench."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=rows, default=list(ROWS), help="some of: " + ", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="take few samples, and fail if a launch is slow")
    arguments = parser.parse_args()
    # Clean up on Ctrl-C and on `kill`. Started in the background, a shell would have Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    started = time.monotonic()
    lines: list[Line] = []
    try:
        with Bench(quick=arguments.quick, ticking="schedule" in arguments.rows) as bench:
            for name in arguments.rows:
                lines += ROWS[name](bench)
    except KeyboardInterrupt:
        progress("interrupted; everything is removed")
        return 130
    minutes = (time.monotonic() - started) / 60
    print(table(lines))
    print(f"\n{os.cpu_count()} cores, {platform.system()} {platform.release()}, {minutes:.0f} minutes")
    file = ROOT / "bench/results/latest.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results(lines), indent=1) + "\n")
    progress(f"written: {file.relative_to(ROOT)}")
    if "launch" in arguments.rows and not arguments.quick:
        picture(bench.runs).savefig(ROOT / "docs/images/launch.svg")
        progress("written: docs/images/launch.svg")
    return verdict(lines) if arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
