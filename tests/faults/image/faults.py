"""The pipeline, and jobs that fail in every way a process can."""

import os
import signal
import sys
import time

import dagster as dg

from pipeline import definitions

if os.getenv("DAGSTER_RUN_JOB_NAME") == "broken":
    import a_package_that_is_missing  # noqa: F401


@dg.op
def run_out_of_memory() -> None:
    """Use more memory than the limit."""
    print("about to take all memory", file=sys.stderr, flush=True)
    time.sleep(2)  # until what was printed has left the container
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 24)))


@dg.op
def vanish() -> None:
    """Exit the process with 0."""
    os._exit(0)


@dg.op
def never_end() -> None:
    """Wait."""
    time.sleep(3600)


@dg.op
def never_listen() -> None:
    """Wait, and ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)


def job(name: str, op: dg.OpDefinition) -> dg.JobDefinition:
    """Make a job of one op, in the run's own process."""
    return dg.GraphDefinition(name=name, node_defs=[op]).to_job(executor_def=dg.in_process_executor)


defs = dg.Definitions.merge(
    definitions.defs,
    dg.Definitions(
        jobs=[
            job("out_of_memory", run_out_of_memory),
            job("vanished", vanish),
            job("endless", never_end),
            job("deaf", never_listen),
            job("stillborn", never_end),
            job("stuck", never_end),
            job("broken", never_end),
        ]
    ),
)
