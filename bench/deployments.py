"""The two deployments, measured over GraphQL, through the engine, and by the kernel's accounting."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from tests.stack import BASE_IMAGES, ENDED, JOB, Deployment

# A process per op, as docs/how-it-works.md advises.
FORKSERVER = {"forkserver": {"preload_modules": ["pipeline", "dagster_postgres"]}}
MULTIPROCESS = {"execution": {"config": {"multiprocess": {"start_method": FORKSERVER}}}}
OPS = {
    "get_string": {"config": {"data_key": "1"}},
    "normalize_string": {"config": {"norm": "upper"}},
    "clean_string": {"config": {"hyperparams": {}}},
}

RUNS = """
query ($ids: [String]) {
  runsOrError(filter: {runIds: $ids}) { ... on Runs { results { runId status startTime endTime } } }
}
"""
READY = """
{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on RepositoryLocation { repositories { jobs { name description } } }
  } } } }
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
}
"""


@dataclass
class Cgroup:
    """The CPU time of one container, by the kernel's accounting: cgroup v1 or v2 of a local Linux engine."""

    pid: int

    def __post_init__(self) -> None:
        """Find the file with the CPU time."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                self.file = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
                return
            if not controllers:
                self.file = Path(f"/sys/fs/cgroup{path}/cpu.stat")

    def seconds(self) -> float:
        """Return the CPU-seconds since the container started. OSError once it has ended."""
        text = self.file.read_text()
        return int(text.split()[1]) / 1e6 if self.file.name == "cpu.stat" else int(text) / 1e9


def engine_seconds() -> dict[int, float]:
    """Return the CPU-seconds of each process of the engine, its ended children included."""
    seconds = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            if name.startswith(("dockerd", "containerd")):
                ticks = sum(int(value) for value in rest.split()[11:15])
                seconds[int(stat.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def engine_used(before: Mapping[int, float]) -> float:
    """Return the CPU-seconds that the engine's processes used since then; those of ended shims are lost."""
    return sum(now - before[pid] for pid, now in engine_seconds().items() if pid in before)


@dataclass
class Run:
    """One run, as recorded by Dagster, the engine and the kernel. Times are in seconds."""

    total: float  # from the launch to SUCCESS
    phases: dict[str, float]  # the same, by phase
    own_cpu: float  # the run's container
    all_cpu: float  # the same, with the services and the engine


class Measured(Deployment):
    """The stack of this project, started from a copy of the checkout, and measured."""

    name = "ours"
    wait: tuple[str, ...] = ("--wait",)  # for the health checks

    def __init__(self, directory: Path) -> None:
        """Use a fixed project name, and remove what an interrupted bench may have left under it."""
        super().__init__(directory, f"bench-{self.name}")
        self.remove()

    def start(self) -> float:
        """Start without volumes; return the seconds until everything is ready, by the same test for both."""
        started = time.monotonic()
        self.compose("up", "--detach", *self.wait)
        self.wait_for("healthy daemons and the job", self.ready, lambda seen: seen[0], timeout=180)
        return time.monotonic() - started

    def ready(self) -> tuple[bool, str]:
        """Return whether every daemon has sent a heartbeat and the job is loaded, and the job's description."""
        try:
            data = self.ask(READY)
        except OSError:
            return False, ""
        entries = data["workspaceOrError"].get("locationEntries", [])
        locations = [entry["locationOrLoadError"] or {} for entry in entries]
        jobs = [job for place in locations for repo in place.get("repositories", []) for job in repo["jobs"]]
        descriptions = [job["description"] or "" for job in jobs if job["name"] == JOB]
        daemons = [one for one in data["instance"]["daemonHealth"]["allDaemonStatuses"] if one["required"]]
        healthy = bool(daemons) and all(one["healthy"] for one in daemons)
        return healthy and bool(descriptions), "".join(descriptions)

    def launch_one(self, executor: Mapping[str, Any] | None = None) -> str:
        """Launch the job with a config that both deployments accept; return the run's id."""
        return self.launch({"ops": OPS, **(executor or {})})

    def ended(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Wait until the runs have ended; return their records. AssertionError if one has not succeeded."""
        runs = self.wait_for(
            f"the end of {len(run_ids)} runs",
            lambda: self.query(RUNS, ids=run_ids)["results"],
            lambda runs: len(runs) == len(run_ids) and all(run["status"] in ENDED for run in runs),
            timeout=600,
            interval=1,
        )
        failed = [run["runId"] for run in runs if run["status"] != "SUCCESS"]
        assert not failed, f"{self.name}: {len(failed)} of {len(runs)} runs failed; {self.events(failed[0])[-8:]}"
        return list(runs)

    def measured_run(self, executor: Mapping[str, Any] | None = None) -> Run:
        """Launch the job and watch its container; do not query Dagit before the container has ended."""
        services, engine = self.service_seconds(), engine_seconds()
        launched = time.time()
        run_id = self.launch_one(executor)
        filters = {"event": ["start", "die"], "label": f"dagster/run_id={run_id}"}
        # Events from before this call are replayed; the client raises if none comes for 60 s.
        events = self.engine.events(since=int(launched), filters=filters, decode=True)
        start = next(events)
        own = 0.0
        with contextlib.suppress(OSError):  # the end
            cgroup = Cgroup(self.engine.api.inspect_container(start["id"])["State"]["Pid"])
            while True:
                own = cgroup.seconds()
                time.sleep(0.02)
        next(events)
        events.close()
        (record,) = self.ended([run_id])
        times = {one["__typename"]: int(one["timestamp"]) / 1000 for one in reversed(self.events(run_id))}
        edges = [
            launched,
            times["RunStartingEvent"],
            start["timeNano"] / 1e9,
            times["RunStartEvent"],
            record["endTime"],
        ]
        names = ("queued", "container", "imports", "ops")
        services_cpu = sum(self.service_seconds()) - sum(services)
        return Run(
            total=record["endTime"] - launched,
            phases=dict(zip(names, (end - begin for begin, end in itertools.pairwise(edges)), strict=True)),
            own_cpu=own,
            all_cpu=own + services_cpu + engine_used(engine),
        )

    def services(self) -> Iterator[str]:
        """Yield the ids of the running containers of its services."""
        filters = {"label": [self.label, "com.docker.compose.oneoff=False"]}
        for container in self.engine.api.containers(filters=filters):
            yield container["Id"]

    def service_seconds(self) -> list[float]:
        """Return the CPU-seconds of each service's container, its health checks included."""
        pids = (self.engine.api.inspect_container(one)["State"]["Pid"] for one in self.services())
        return [Cgroup(pid).seconds() for pid in pids]

    def idle_share(self, window: float) -> float:
        """Return the percentage of a core that its services and the engine use, over a window in seconds."""
        services, engine, since = self.service_seconds(), engine_seconds(), time.monotonic()
        time.sleep(window)
        used = sum(self.service_seconds()) - sum(services) + engine_used(engine)
        return 100 * used / (time.monotonic() - since)

    def memory(self) -> float:
        """Return the memory of its services in MiB, counted as by `docker stats`: without reclaimable file cache."""
        total = 0
        for one in self.services():
            memory = self.engine.api.stats(one, stream=False, one_shot=True)["memory_stats"]
            total += memory["usage"] - memory["stats"].get(
                "total_inactive_file", memory["stats"].get("inactive_file", 0)
            )
        return total / 2**20

    def image_size(self, image: str) -> float:
        """Return the size of one of its images in MB, above the base image."""
        names = (f"{self.project}-{image}", BASE_IMAGES[0])
        above, below = (self.engine.images.get(name).attrs["Size"] for name in names)
        return float(above - below) / 1e6


class Baseline(Measured):
    """Dagster's documented deployment, from the same copy."""

    name = "baseline"
    file = "bench/baseline/docker-compose.yml"
    launchers = ("dagster-daemon",)
    wait = ()  # it has a health check for Postgres alone

    def down(self) -> None:
        """Remove the containers of its runs too, which Compose does not know."""
        self.compose("stop", *self.launchers)
        filters: dict[str, Any] = {"ancestor": f"{self.project}-user_code", "label": "dagster/run_id"}
        with contextlib.suppress(docker.errors.ImageNotFound):
            for run in self.engine.containers.list(all=True, filters=filters):
                run.remove(force=True)
        super().down()
