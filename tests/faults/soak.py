"""What the soak observes while time passes, and the picture of it."""

import copy
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import groupby

import docker
import requests

from tests.faults.faulty import ALL, now
from tests.stack import Deployment

Sample = dict[str, float]  # what could not be measured is not in it

# The panels of the picture, and the lines in each.
PANELS = {
    "memory of each service, MiB": ALL,
    "connections to Postgres": ["connections"],
    "disk, MiB": ["database", "write-ahead log", "files of runs"],
    "containers, and runs that have not ended": ["containers", "open runs"],
}
COLOURS = ["#6366f1", "#22c55e", "#f59e0b", "#38bdf8", "#94a3b8"]
WIDTH, HEIGHT, LEFT = 620, 90, 50
MIB = 1 << 20


def memory(stack: Deployment) -> Sample:
    """Measure what the processes of each service hold, in MiB, without file cache."""
    sample = {}
    for service in ALL:
        one = stack.engine.api.stats(str(stack.container(service).id), stream=False, one_shot=True)
        if stats := one["memory_stats"].get("stats"):  # or else it does not run
            sample[service] = (stats["active_anon"] + stats["inactive_anon"]) / MIB
    return sample | ({"all services": sum(sample.values())} if len(sample) == len(ALL) else {})


def database(stack: Deployment) -> Sample:
    """Ask Postgres for its connections, sizes and runs, as one connection that is not counted."""
    answer = stack.sql(f"""
        SELECT (SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
        pg_database_size(current_database()) / {MIB}.0, (SELECT sum(size) / {MIB}.0 FROM pg_ls_waldir()),
        (SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED'))""")
    names = ("connections", "database", "write-ahead log", "open runs")
    return dict(zip(names, map(float, answer.split("|")), strict=True))


def files(stack: Deployment) -> Sample:
    """Measure the volumes that runs write to, in MiB."""
    sizes = stack.run_in("dagit", "du", "-sk", "/data", "/opt/dagster/storage").split()[::2]
    return {"files of runs": sum(map(int, sizes)) / 1024}


def containers(stack: Deployment) -> Sample:
    """Count the containers, those that have ended included."""
    return {"containers": len(stack.engine.api.containers(all=True, filters={"label": stack.label}))}


class Observer:
    """Takes a sample every 20 seconds; a measure that fails leaves a gap in the picture."""

    def __init__(self, stack: Deployment) -> None:
        """Begin to observe."""
        self.stack = copy.copy(stack)
        self.stack.engine = docker.from_env()  # not for several threads
        self.began = now()
        self.samples: list[tuple[float, Sample]] = []  # with the minutes since then
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
                # What is measured, or measures, is away; of a container that stops, the engine may say nothing.
                except (AssertionError, docker.errors.APIError, requests.JSONDecodeError) as error:
                    self.gaps.append((now(), f"{measure.__name__}: {error}"))
            self.samples.append((minute, sample))

    def minute(self, moment: datetime) -> float:
        """Return the minutes since the start."""
        return (moment - self.began).total_seconds() / 60

    def close(self) -> None:
        """Observe no more; raise what ended the observation before, if anything did."""
        self.closing.set()
        self.pool.shutdown()
        self.observing.result()

    def unexplained(self) -> list[tuple[datetime, str]]:
        """Return the gaps for which no fault is the reason."""
        return [gap for gap in self.gaps if not any(began <= gap[0] <= ended for began, ended in self.faults)]

    def medians(self) -> dict[str, tuple[float, float]]:
        """Return the median of each line in the second and in the last quarter of the time."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        names = [name for lines in PANELS.values() for name in lines] + ["all services"]
        return {name: (typical(second, name), typical(last, name)) for name in names}

    def picture(self) -> str:
        """Draw the samples as an SVG: panels over time, with a band for each fault until all was healthy again."""
        scale = WIDTH / self.samples[-1][0]
        bands = [(self.minute(began) * scale, self.minute(ended) * scale) for began, ended in self.faults]
        shapes = []
        for row, (title, names) in enumerate(PANELS.items()):
            top = 24 + row * (HEIGHT + 40)
            bottom = top + HEIGHT
            highest = max(sample[name] for _, sample in self.samples for name in names if name in sample)
            coloured = list(zip(names, COLOURS, strict=False))
            keys = [f'<tspan dx="12" fill="{colour}">{name}</tspan>' for name, colour in coloured]
            shapes += [
                f'<text x="{LEFT}" y="{top - 7}">{title} {"".join(keys) if len(keys) > 1 else ""}</text>',
                f'<text x="{LEFT - 6}" y="{top + 11}" text-anchor="end">{highest:.0f}</text>',
                f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
                f'<path d="M{LEFT} {top}V{bottom}H{LEFT + WIDTH}" fill="none" stroke="#334155"/>',
            ]
            for left, right in bands:
                width = max(right - left, 1)
                shapes.append(
                    f'<rect x="{LEFT + left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" fill="#fee2e2"/>'
                )
            for name, colour in coloured:
                for line in unbroken(self.samples, name):
                    points = " ".join(
                        f"{LEFT + minute * scale:.1f},{bottom - value * HEIGHT / highest:.1f}" for minute, value in line
                    )
                    shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        height = 24 + len(PANELS) * (HEIGHT + 40)
        for minute in range(0, int(self.samples[-1][0]) + 1, 15):
            x = LEFT + minute * scale
            shapes.append(f'<text x="{x:.1f}" y="{height - 22}" text-anchor="middle">{minute} min</text>')
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="sans-serif"'
                ' font-size="12">',
                f'<rect width="720" height="{height}" fill="#ffffff"/>',
                *shapes,
                "</svg>\n",
            ]
        )


def typical(samples: list[tuple[float, Sample]], name: str) -> float:
    """Return the median of a line."""
    return statistics.median(sample[name] for _, sample in samples if name in sample)


def unbroken(samples: list[tuple[float, Sample]], name: str) -> Iterator[list[tuple[float, float]]]:
    """Yield the parts of a line between its gaps."""
    for there, part in groupby(samples, lambda at: name in at[1]):
        if there:
            yield [(minute, sample[name]) for minute, sample in part]
