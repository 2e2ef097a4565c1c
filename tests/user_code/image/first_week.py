"""Small jobs of the kind that people bring in their first week. Each is named after what it does."""

import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import dagster as dg
import psycopg2

log = dg.get_dagster_logger()


def work(number: int) -> int:
    """Log 50 lines from a process of one's own."""
    for line in range(50):
        log.info("worker %d line %d", number, line)
    return number


@dg.op
def fork() -> None:
    """Log from forked workers."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(work, range(4))


@dg.op
def spawn() -> None:
    """Call a function of this module in spawned workers."""
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(os.path.basename, ["a/b", "c/d"])) == ["b", "d"]
        assert pool.submit(work, 1).result() == 1


@dg.op
def threads() -> None:
    """Log from threads."""
    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@dg.op
def home() -> None:
    """Write a cache and a database in the home directory."""
    Path("~/.cache/x").expanduser().mkdir(parents=True)
    sqlite3.connect(Path("~/x.db").expanduser()).execute("CREATE TABLE t (x)")


@dg.op
def beside_the_code() -> None:
    """Write in the working directory, and in a directory of the code."""
    Path("out.csv").write_text("1")
    Path("pipeline/dbt/target").mkdir(parents=True)


@dg.op
def run_from_tmp() -> None:
    """Execute a program from /tmp."""
    Path("/tmp/x.sh").write_text("#!/bin/sh\necho hi\n")
    Path("/tmp/x.sh").chmod(0o755)
    assert subprocess.run(["/tmp/x.sh"], check=True, capture_output=True).stdout == b"hi\n"


@dg.op
def spill() -> None:
    """Write more to /tmp than the run may have memory."""
    with Path("/tmp/big").open("wb") as file:
        for _ in range(600):
            file.write(b"x" * 1_000_000)


@dg.op
def cycles() -> None:
    """Leave 4 GB of garbage to the collector."""

    class Node:
        me: "Node"
        buffer: bytearray

    for _ in range(40_000):
        node = Node()
        node.me, node.buffer = node, bytearray(100_000)
    assert gc.get_threshold()[0] < 10_000


@dg.op
def count_cores() -> None:
    """See as many cores as the run's CPU limit."""
    assert (os.cpu_count(), multiprocessing.cpu_count()) == (1, 1)


@dg.op
def connect_elsewhere() -> None:
    """Not reach Dagster's database by connecting to no database in particular."""
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect("").close()
        raise AssertionError("connected to a database")


IN_PROCESS: dict[str, object] = {"execution": {"config": {"in_process": {}}}}
OPS = (fork, spawn, threads, home, beside_the_code, run_from_tmp, spill, cycles, count_cores, connect_elsewhere)
jobs = [dg.GraphDefinition(f"{op.name}_job", node_defs=[op]).to_job(config=IN_PROCESS) for op in OPS]
# A process per op, which is spawned.
jobs += [dg.GraphDefinition(f"{op.name}_multiprocess_job", node_defs=[op]).to_job() for op in (fork, count_cores)]


@dg.sensor(job_name="home_job", minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """See the files that runs see, and log."""
    context.log.info("hello from the sensor")
    return dg.SkipReason(f"sees {os.environ.get('MINE')} and {sorted(os.listdir('/data'))}")


@dg.sensor(job_name="home_job", minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def slow(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Take longer than a thread of the daemon may be without a heartbeat."""
    time.sleep(130)
    return dg.SkipReason("slow, but done")


defs = dg.Definitions(jobs=jobs, sensors=[watch, slow])
