"""The rows of the table: what is measured, how, and the target."""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from bench.deployments import MULTIPROCESS, Baseline, Measured, Run
from tests.stack import copy_checkout

LAUNCH = "launch to SUCCESS"
# The queries of Dagit for its list of runs with the counts on the tabs, and for the page of a run.
RUNS_PAGE = """
{
  runsFeedOrError(limit: 30, view: ROOTS) { ... on RunsFeedConnection { cursor hasMore results {
    id runStatus creationTime startTime endTime jobName tags { key value }
    ... on Run { runId canTerminate hasReExecutePermission pipelineSnapshotId repositoryOrigin { id } }
  } } }
  queued: runsFeedCountOrError(filter: {statuses: [QUEUED]}, view: RUNS) { ... on RunsFeedCount { count } }
  inProgress: runsFeedCountOrError(filter: {statuses: [STARTED, STARTING, SUSPENDED, CANCELING]}, view: RUNS) {
    ... on RunsFeedCount { count }
  }
}
"""
RUN_PAGE = """
query ($id: ID!) {
  runOrError(runId: $id) { ... on Run {
    runId status jobName tags { key value } startTime endTime updateTime runConfigYaml
    stepStats { stepKey status startTime endTime } assets { id }
    executionPlan { steps { key inputs { dependsOn { key } } } }
  } }
  logsForRun(runId: $id, limit: 1000) { ... on EventConnection { hasMore events {
    __typename ... on MessageEvent { runId message timestamp level stepKey eventType }
  } } }
}
"""


def progress(message: str) -> None:
    """Print on stderr what has just been measured."""
    print(f"{datetime.now():%H:%M:%S} {message}", file=sys.stderr, flush=True)


@dataclass
class Line:
    """One line of the table. With a baseline the target is a ratio, without one it is in the line's unit."""

    what: str
    unit: str
    target: float
    ours: list[float]
    baseline: list[float] = field(default_factory=list)
    quantile: float = 0.5

    def typical(self, samples: list[float]) -> float:
        """Return the quantile that the line compares: the median, unless it says otherwise."""
        if self.quantile == 0.5:
            return statistics.median(samples)
        return sorted(samples)[min(int(self.quantile * len(samples)), len(samples) - 1)]

    @property
    def result(self) -> float:
        """What is compared with the target."""
        typical = self.typical(self.ours)
        return typical / self.typical(self.baseline) if self.baseline else typical

    @property
    def met(self) -> bool:
        """Whether the result meets the target."""
        return self.result <= self.target


@dataclass
class Alone:
    """What is measured while nothing else runs on the engine."""

    up: float
    idle_cpu: float
    idle_memory: float


class Bench:
    """Both deployments, and what several rows share. Everything is removed at the end."""

    def __init__(self, *, quick: bool, ticking: bool) -> None:
        """Take enough samples for a table or, if `quick`, for a verdict; with `ticking`, the schedule runs too."""
        self.quick = quick
        self.ticking = ticking
        self.ticking_since = datetime.now(UTC)

    def __enter__(self) -> Self:
        """Copy the checkout, because the bench edits it, and build both deployments from the copy."""
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            copy_checkout(self.directory)
            self.ours, self.baseline = Measured(self.directory), Baseline(self.directory)
            for one in self.both:
                progress(f"build {one.name}")
                stack.callback(one.remove)
                one.build()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        progress("remove everything")
        self.stack.close()

    @property
    def both(self) -> tuple[Measured, Measured]:
        """Our deployment, then the baseline."""
        return self.ours, self.baseline

    def gap(self) -> None:
        """Wait for a random time, so that launches do not fall into step with ticks; avoid the schedule's runs."""
        time.sleep(random.uniform(0, 5))
        if self.ticking and not 7 <= (second := time.time() % 60) < 44:
            time.sleep((67 - second) % 60)

    @cached_property
    def alone(self) -> dict[str, list[Alone]]:
        """Start each deployment alone, without volumes, and measure it while idle."""
        samples: dict[str, list[Alone]] = {"ours": [], "baseline": []}
        for _ in range(1 if self.quick else 2):
            for one in self.both:
                up = one.start()
                if one is self.ours:
                    one.switch_schedule("every_minute", on=False)
                time.sleep(15)
                share = one.idle_share(15 if self.quick else 45)
                samples[one.name].append(Alone(up, share, one.memory()))
                one.down()
                progress(f"alone: {one.name}, {samples[one.name][-1]}")
        return samples

    @cached_property
    def started(self) -> bool:
        """Start both deployments side by side, and run the job once in each to warm the caches."""
        for one in self.both:
            one.start()
        for one in self.both:
            one.ended([one.launch_one()])
        self.ours.switch_schedule("every_minute", on=self.ticking)
        self.ticking_since = datetime.now(UTC)
        progress("both are up")
        return True

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """Measure single runs of both deployments in turn."""
        assert self.started
        samples: dict[str, list[Run]] = {"ours": [], "baseline": []}
        for number in range(3 if self.quick else 12):
            for one in self.both:
                self.gap()
                run = one.measured_run()
                samples[one.name].append(run)
                parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.phases.items())
                progress(f"run {number + 1}: {one.name} {run.total:.1f} s ({parts}), {run.all_cpu:.1f} s of CPU")
        return samples

    def floor(self) -> float:
        """Return the seconds that `docker run` of the imports and the job takes, without queue, launcher or CLI."""
        project = self.ours.project
        options = ["--network", f"{project}_runs", "--volume", f"{project}_secret:/secret:ro"]
        options += ["--volume", f"{self.directory}/dagster.yaml:/opt/dagster/dagster.yaml:ro"]
        options += ["--volume", f"{self.directory}/bench/floor.py:/opt/dagster/floor.py:ro"]
        for variable in ("PGSERVICEFILE=/secret/pg_service.conf",):
            options += ["--env", variable]
        options += ["--env", "MAX_CONCURRENT_RUNS=1", "--env", "DAGSTER_HOME=/opt/dagster", "--env", "DATA_PATH=/tmp"]
        command = ["docker", "run", "--rm", *options, f"{project}-user_code", "python", "floor.py"]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the floor failed: {done.stderr[-4000:]}")
        return time.monotonic() - started


def up(bench: Bench) -> list[Line]:
    """Measure `docker compose up` without volumes, with built images, until everything is healthy."""
    samples = {name: [one.up for one in alone] for name, alone in bench.alone.items()}
    return [Line("`up` with built images to all healthy", "s", 1 / 2, samples["ours"], samples["baseline"])]


def idle_cpu(bench: Bench) -> list[Line]:
    """Measure the CPU of all services and the engine while nothing runs."""
    samples = {name: [one.idle_cpu for one in alone] for name, alone in bench.alone.items()}
    return [Line("idle CPU, healthchecks included", "% of a core", 1, samples["ours"], samples["baseline"])]


def idle_memory(bench: Bench) -> list[Line]:
    """Measure the memory of all services while nothing runs."""
    samples = {name: [one.idle_memory for one in alone] for name, alone in bench.alone.items()}
    return [Line("idle memory", "MiB", 1, samples["ours"], samples["baseline"])]


def launch(bench: Bench) -> list[Line]:
    """Measure one run at a time, from the launch over GraphQL to SUCCESS."""
    samples = {name: [one.total for one in runs] for name, runs in bench.runs.items()}
    return [Line(LAUNCH, "s", 0.33, samples["ours"], samples["baseline"])]


def floor(bench: Bench) -> list[Line]:
    """Compare the same with the least time that a run in a container of its own can take."""
    ours = [one.total for one in bench.runs["ours"]]
    floors = []
    for _ in ours:
        bench.gap()
        floors.append(bench.floor())
        progress(f"floor: {floors[-1]:.1f} s")
    return [Line(f"{LAUNCH}, against the floor", "s", 1.4, ours, floors)]


def cpu(bench: Bench) -> list[Line]:
    """Measure the CPU-seconds of the same runs."""
    own = {name: [one.own_cpu for one in runs] for name, runs in bench.runs.items()}
    everything = {name: [one.all_cpu for one in runs] for name, runs in bench.runs.items()}
    return [
        Line("CPU of a run, its container", "s", 0.25, own["ours"], own["baseline"]),
        Line("CPU of a run, all together", "s", 0.30, everything["ours"], everything["baseline"]),
    ]


def multiprocess(bench: Bench) -> list[Line]:
    """Measure one run at a time with a process per op."""
    assert bench.started
    samples: dict[str, list[float]] = {"ours": [], "baseline": []}
    for _ in range(2 if bench.quick else 4):
        for one in bench.both:
            bench.gap()
            config = MULTIPROCESS if one is bench.ours else None  # its default: each process imports everything
            samples[one.name].append(one.measured_run(config).total)
            progress(f"multiprocess: {one.name} {samples[one.name][-1]:.1f} s")
    return [Line(f"{LAUNCH}, a process per op", "s", 1 / 2, samples["ours"], samples["baseline"])]


def throughput(bench: Bench) -> list[Line]:
    """Measure 20 runs launched at once, until the last has ended."""
    assert bench.started
    samples: dict[str, list[float]] = {}
    for one in bench.both:
        started = time.time()
        runs = one.ended([one.launch_one() for _ in range(20)])
        samples[one.name] = [max(run["endTime"] for run in runs) - started]
        progress(f"20 at once: {one.name} {samples[one.name][0]:.0f} s")
    return [Line("20 runs at once until all have ended", "s", 0.35, samples["ours"], samples["baseline"])]


def schedule(bench: Bench) -> list[Line]:
    """Measure from the full minute to the run's start, over 15 ticks; those during other rows count too."""
    assert bench.started
    ticks = 3 if bench.quick else 15
    query = "query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs { results { %s } } } }"
    tags = [{"key": "dagster/schedule_name", "value": "every_minute"}]
    seen: dict[str, float] = {}
    while len(seen) < ticks:
        time.sleep(10)
        for run in bench.ours.query(query % "startTime tags { key value }", tags=tags)["results"]:
            date = next(tag["value"] for tag in run["tags"] if tag["key"] == "date")
            due = datetime.strptime(date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            if due > bench.ticking_since and run["startTime"] and date not in seen:
                seen[date] = run["startTime"] - due.timestamp()
                progress(f"tick {len(seen)} of {ticks}: {seen[date]:.1f} s")
        if (datetime.now(UTC) - bench.ticking_since).total_seconds() > 60 * (ticks + 10):
            raise TimeoutError(f"only {len(seen)} of {ticks} ticks have run since {bench.ticking_since}")
    bench.ours.switch_schedule("every_minute", on=False)
    bench.ticking = False
    return [Line(f"schedule: minute to STARTED, p95 of {ticks}", "s", 4, list(seen.values()), quantile=0.95)]


def shows(deployment: Measured, text: str) -> bool:
    """Return whether Dagit shows this text in the job's description."""
    return text in deployment.ready()[1]


def edit(bench: Bench) -> list[Line]:
    """Measure from a changed file in `pipeline/` to the change in Dagit: build, replace, reload."""
    assert bench.started
    samples = []
    file = bench.directory / "pipeline/jobs.py"
    for number in range(1 if bench.quick else 3):
        marker = f"edit {number}"
        source = file.read_text()
        file.write_text(source.replace('"""Pick a sentence', f'"""{marker}: pick a sentence', 1))
        started = time.monotonic()
        bench.ours.compose("up", "--build", "--detach", "user_code")
        bench.ours.wait_for("the edit in Dagit", partial(shows, bench.ours, marker), timeout=180)
        samples.append(time.monotonic() - started)
        file.write_text(source)
        progress(f"edit: {samples[-1]:.1f} s")
    return [Line("edit in `pipeline/` to live in Dagit", "s", 15, samples)]


def image_size(bench: Bench) -> list[Line]:
    """Measure what each image adds to its base."""
    lines = []
    for image, name in (("user_code", "user code"), ("dagster", "host")):
        ours, baseline = ([one.image_size(image)] for one in bench.both)
        lines.append(Line(f"image above its base: {name}", "MB", 0.6, ours, baseline))
    return lines


def fill(deployment: Measured, template: str, runs: int) -> str:
    """Insert copies of a run into the database; return what it then holds."""
    deployment.copy_run(template, runs)
    # What autovacuum does by itself within minutes, and the checkpointer.
    for statement in ("VACUUM ANALYZE runs, run_tags, event_logs", "CHECKPOINT"):
        deployment.sql(statement)
    counts = "(SELECT count(*) FROM runs) || ' runs', (SELECT count(*) FROM event_logs) || ' events'"
    held = deployment.sql(f"SELECT {counts}, pg_size_pretty(pg_database_size(current_database()))")
    return held.replace("|", ", ")


def history(bench: Bench) -> list[Line]:
    """Compare launches and pages with 100,000 runs in the database to those with 50, which fill a page of Dagit."""
    assert bench.started
    ours, runs = bench.ours, 1000 if bench.quick else 100_000
    template = ours.launch_one()
    ours.ended([template])
    few: dict[str, list[float]] = {"launch": [], "runs": [], "run": []}
    many: dict[str, list[float]] = {"launch": [], "runs": [], "run": []}
    for count, timings in ((50, few), (runs, many)):
        started = time.monotonic()
        counted = fill(ours, template, count)
        progress(f"history: filled in {time.monotonic() - started:.0f} s, {counted}")
        for _ in range(2 if bench.quick else 6):
            bench.gap()
            timings["launch"].append(ours.measured_run().total)
        for _ in range(20):
            for page, query in (("runs", RUNS_PAGE), ("run", RUN_PAGE)):
                begun = time.monotonic()
                ours.ask(query, **({"id": template} if page == "run" else {}))
                timings[page].append(time.monotonic() - begun)
        medians = ", ".join(f"{name} {statistics.median(values):.3f} s" for name, values in timings.items())
        progress(f"history of {count:,}: {medians}")
    names = {"launch": LAUNCH, "runs": "Dagit's page of runs", "run": "Dagit's page of a run"}
    return [Line(f"{runs:,} runs / 50: {what}", "s", 1.3, many[key], few[key]) for key, what in names.items()]


# In the order of measuring: first the rows that need the engine to themselves, last the one that fills the database.
ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    row.__name__: row
    for row in (
        *(image_size, up, idle_cpu, idle_memory),
        *(launch, floor, cpu, multiprocess, schedule, throughput, edit, history),
    )
}
