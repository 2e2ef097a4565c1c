"""How often Python's garbage collector runs: rarely while Dagster is imported, as usual once your code is."""

import atexit
import gc

USUAL = gc.get_threshold()


def collect_rarely() -> None:
    """Look for garbage every 50,000 new objects instead of every 2,000, and not at all as the process ends.

    Importing Dagster makes half a million objects, all of which stay: a third of the CPU of its import is spent in
    looking through them. This can go when Dagster's commands do so themselves.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """Give your code the collector that Python has by default, which skips all that is imported by now."""
    gc.freeze()
    gc.set_threshold(*USUAL)
