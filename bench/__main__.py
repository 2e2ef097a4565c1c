"""`python -m bench`: measure, print the table, write the figures and the picture, remove everything."""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence

from bench.report import picture, results, table
from bench.rows import LAUNCH, REPOSITORY, ROWS, Bench, Line, progress

# A generous limit for the short bench, so that it fails only when something is wrong.
QUICK_REACH = 0.6


def rows(names: str) -> list[str]:
    """Return the named rows, in the order in which they are measured."""
    if unknown := set(names.split(",")) - set(ROWS):
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names.split(",")]


def verdict(lines: Sequence[Line]) -> int:
    """Return 1, and say why, if a launch is slower than the short bench allows."""
    slow = [line for line in lines if line.what == LAUNCH and line.result > QUICK_REACH]
    for line in slow:
        progress(f"{line.what}: {line.result:.2f} of the reference's, above {QUICK_REACH}")
    return int(bool(slow))


def main() -> int:
    """Return 1 if the short bench finds a launch slower than its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=rows, default=list(ROWS), help="some of: " + ", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="few samples, and fail if a launch is slow")
    arguments = parser.parse_args()
    # Ctrl-C and `kill` alike end in the clean-up, in the background too, where a shell has Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    started = time.monotonic()
    lines: list[Line] = []
    try:
        with Bench(quick=arguments.quick, ticking="schedule" in arguments.rows) as bench:
            for name in arguments.rows:
                lines += ROWS[name](bench)
    except KeyboardInterrupt:
        progress("interrupted; all that was started is removed")
        return 130
    minutes = (time.monotonic() - started) / 60
    print(table(lines))
    print(f"\n{os.cpu_count()} cores, {platform.system()} {platform.release()}, {minutes:.0f} minutes")
    files = {REPOSITORY / "bench/results/latest.json": json.dumps(results(lines), indent=1) + "\n"}
    if "launch" in arguments.rows and not arguments.quick:
        files[REPOSITORY / "docs/images/launch.svg"] = picture(bench.runs)
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        progress(f"written: {file.relative_to(REPOSITORY)}")
    return verdict(lines) if arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
