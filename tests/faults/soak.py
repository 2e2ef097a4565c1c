"""What the soak measures over time, and the picture of it."""

import copy
import math
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import docker
import requests
from matplotlib.figure import Figure

from tests.faults.faulty import ALL
from tests.stack import Deployment, now

Sample = dict[str, float]  # without what could not be measured

# The panels of the picture, and the lines in each.
PANELS = {
    "memory of each service, MiB": ALL,
    "connections to Postgres": ["connections"],
    "disk, MiB": ["database", "write-ahead log", "files of runs"],
    "containers, and runs that have not ended": ["containers", "open runs"],
}
COLOURS = ["#6366f1", "#22c55e", "#f59e0b", "#38bdf8", "#94a3b8"]
MIB = 1 << 20


def memory(stack: Deployment) -> Sample:
    """Return the memory of each service's processes in MiB, without file cache."""
    sample = {}
    for service in ALL:
        one = stack.engine.api.stats(str(stack.container(service).id), stream=False, one_shot=True)
        if stats := one["memory_stats"].get("stats"):  # there are none while it is stopped
            sample[service] = (stats["active_anon"] + stats["inactive_anon"]) / MIB
    return sample | ({"all services": sum(sample.values())} if len(sample) == len(ALL) else {})


def database(stack: Deployment) -> Sample:
    """Return the connections, sizes and runs in Postgres, over a connection that is not counted."""
    answer = stack.sql(f"""
        SELECT (SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
        pg_database_size(current_database()) / {MIB}.0, (SELECT sum(size) / {MIB}.0 FROM pg_ls_waldir()),
        (SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED'))""")
    names = ("connections", "database", "write-ahead log", "open runs")
    return dict(zip(names, map(float, answer.split("|")), strict=True))


def files(stack: Deployment) -> Sample:
    """Return the size of the volumes that runs write to, in MiB."""
    sizes = stack.run_in("dagit", "du", "-sk", "/data", "/opt/dagster/storage").split()[::2]
    return {"files of runs": sum(map(int, sizes)) / 1024}


def containers(stack: Deployment) -> Sample:
    """Count the containers, stopped ones included."""
    return {"containers": len(stack.engine.api.containers(all=True, filters={"label": stack.label}))}


class Observer:
    """Takes a sample every 20 seconds; a measurement that fails leaves a gap in the picture."""

    def __init__(self, stack: Deployment) -> None:
        """Start observing."""
        self.stack = copy.copy(stack)
        self.stack.engine = docker.from_env()  # one client for each thread
        self.began = now()
        self.samples: list[tuple[float, Sample]] = []  # with the minutes since the start
        self.gaps: list[tuple[datetime, str]] = []
        self.faults: list[tuple[datetime, datetime]] = []
        self.closing = threading.Event()
        self.pool = ThreadPoolExecutor(1)
        self.observing = self.pool.submit(self._observe)

    def _observe(self) -> None:
        due = time.monotonic()
        while not self.closing.wait(max(0, due - time.monotonic())):
            due = max(due + 20, time.monotonic())
            minute, sample = self.minute(now()), Sample()
            for measure in (memory, database, files, containers):
                try:
                    sample |= measure(self.stack)
                # A service is down, or the engine says nothing of a container that is stopping.
                except (AssertionError, docker.errors.APIError, requests.JSONDecodeError) as error:
                    self.gaps.append((now(), f"{measure.__name__}: {error}"))
            self.samples.append((minute, sample))

    def minute(self, moment: datetime) -> float:
        """Return the minutes since the start."""
        return (moment - self.began).total_seconds() / 60

    def close(self) -> None:
        """Stop observing; raise the error that ended the observation early, if any."""
        self.closing.set()
        self.pool.shutdown()
        self.observing.result()

    def unexplained(self) -> list[tuple[datetime, str]]:
        """Return the gaps that no fault explains."""
        return [gap for gap in self.gaps if not any(began <= gap[0] <= ended for began, ended in self.faults)]

    def medians(self) -> dict[str, tuple[float, float]]:
        """Return the median of each line in the second and in the last quarter."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        names = [name for lines in PANELS.values() for name in lines] + ["all services"]
        return {name: (typical(second, name), typical(last, name)) for name in names}

    def picture(self) -> Figure:
        """Draw the samples, with a band for each fault until all services were healthy again."""
        return picture(self.samples, [(self.minute(began), self.minute(ended)) for began, ended in self.faults])


def picture(samples: list[tuple[float, Sample]], bands: list[tuple[float, float]]) -> Figure:
    """Draw samples over the minutes, a panel below the other; a missing value interrupts its line."""
    figure = Figure(figsize=(8, 1.6 * len(PANELS)), layout="constrained")
    minutes = [minute for minute, _ in samples]
    panels = figure.subplots(len(PANELS), sharex=True)
    for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            axes.plot(minutes, [sample.get(name, math.nan) for _, sample in samples], color=colour, label=name)
        for began, ended in bands:
            axes.axvspan(began, ended, color="#fee2e2")
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names), frameon=False, fontsize="small")
    axes.set_xlim(0, minutes[-1])
    axes.set_xlabel("minutes")
    return figure


def typical(samples: list[tuple[float, Sample]], name: str) -> float:
    """Return the median of a line."""
    return statistics.median(sample[name] for _, sample in samples if name in sample)
