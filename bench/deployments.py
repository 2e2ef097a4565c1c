"""The two deployments: started, asked over GraphQL, watched through the engine, and removed."""

import contextlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

import docker

# A process per op, as docs/how-it-works.md advises.
FORKSERVER = {"forkserver": {"preload_modules": ["pipeline", "dagster_postgres"]}}
MULTIPROCESS: dict[str, object] = {"multiprocess": {"start_method": FORKSERVER}}
OPS = {
    "get_string": {"config": {"data_key": "1"}},
    "normalize_string": {"config": {"norm": "upper"}},
    "clean_string": {"config": {"hyperparams": {}}},
}

LAUNCH = """
mutation ($config: RunConfigData) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "pipeline", repositoryName: "__repository__", jobName: "clean_string_job"}
    runConfigData: $config
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUNS = """
query ($ids: [String]) {
  runsOrError(filter: {runIds: $ids}) { ... on Runs { results { runId status startTime endTime } } }
}
"""
EVENTS = """
query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  __typename ... on MessageEvent { timestamp message }
} } } }
"""
READY = """
{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on RepositoryLocation { repositories { jobs { name description } } }
  } } } }
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
}
"""
SCHEDULE = '{repositoryLocationName: "pipeline", repositoryName: "__repository__", scheduleName: "every_minute"}'


@dataclass
class Cgroup:
    """The CPU time of one container, by the kernel's own account; on cgroup v1 or v2 of a local Linux engine."""

    pid: int

    def __post_init__(self) -> None:
        """Find the file with the account."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                self.file = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
                return
            if not controllers:
                self.file = Path(f"/sys/fs/cgroup{path}/cpu.stat")

    def seconds(self) -> float:
        """CPU-seconds since the container started. FileNotFoundError, or OSError, once it has ended."""
        text = self.file.read_text()
        return int(text.split()[1]) / 1e6 if self.file.name == "cpu.stat" else int(text) / 1e9


def engine_seconds() -> dict[int, float]:
    """CPU-seconds of each process of the engine, with those of the children that it has waited for."""
    seconds = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended in between
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            if name.startswith(("dockerd", "containerd")):
                ticks = sum(int(value) for value in rest.split()[11:15])
                seconds[int(stat.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def engine_used(before: Mapping[int, float]) -> float:
    """CPU-seconds since then of the engine's processes that lived all the time; an ended shim's is lost."""
    return sum(now - before[pid] for pid, now in engine_seconds().items() if pid in before)


@dataclass
class Run:
    """One run, as Dagster, the engine and the kernel recorded it. Times in seconds."""

    total: float  # from the launch to SUCCESS
    phases: dict[str, float]  # the same, in parts
    own_cpu: float  # the run's container
    all_cpu: float  # that, the services and the engine


@dataclass
class Deployment:
    """One of the two, under a Compose project of its own, made from a copy of the repository."""

    name: str
    directory: Path
    file: str
    client: docker.DockerClient
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""

    @property
    def project(self) -> str:
        """Its Compose project."""
        return f"bench-{self.name}"

    def compose(self, *args: str, stdin: str | None = None) -> str:
        """Run `docker compose`; RuntimeError with what it printed if it fails."""
        # Port 0 is any free one. Settings of the caller's shell stay out.
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME") or key.startswith("DOCKER_")}
        command = ["docker", "compose", "--project-name", self.project, "--file", self.file, *args]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={**kept, "DAGIT_PORT": "0", **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def up(self) -> float:
        """Start from nothing; return the seconds until everything is ready, seen from outside in the same way."""
        started = time.monotonic()
        self.compose("up", "--detach", *(["--wait"] if self.name == "ours" else []))
        self.url = f"http://{self.compose('port', 'dagit', '3000').strip()}/graphql"
        self.wait_until("all daemons are healthy and the job is there", lambda: self.ready()[0])
        return time.monotonic() - started

    def down(self) -> None:
        """Remove its containers, those of its runs too, its network and its volumes."""
        image = f"{self.project}-user_code"
        with contextlib.suppress(docker.errors.ImageNotFound):
            for run in self.client.containers.list(all=True, filters={"ancestor": image, "label": "dagster/run_id"}):
                with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):  # it removes itself
                    run.remove(force=True)
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "3")

    def remove(self) -> None:
        """Remove everything, its images too, those without a name that an edit replaced included."""
        self.down()
        for image in self.client.images.list(filters={"label": f"com.docker.compose.project={self.project}"}):
            self.client.images.remove(str(image.id), force=True)

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Ask Dagit. RuntimeError if the answer has errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        with urlopen(Request(self.url, body, {"Content-Type": "application/json"}), timeout=60) as response:
            answer = json.load(response)
        if answer.get("errors"):
            raise RuntimeError(f"{self.name}: {answer['errors']}")
        data: dict[str, Any] = answer["data"]
        return data

    def ready(self) -> tuple[bool, str]:
        """Whether every daemon has sent a heartbeat and the job is loaded, and the job's description."""
        try:
            data = self.graphql(READY)
        except OSError:
            return False, ""
        entries = data["workspaceOrError"].get("locationEntries", [])
        locations = [entry["locationOrLoadError"] or {} for entry in entries]
        jobs = [job for place in locations for repo in place.get("repositories", []) for job in repo["jobs"]]
        descriptions = [job["description"] or "" for job in jobs if job["name"] == "clean_string_job"]
        daemons = [one for one in data["instance"]["daemonHealth"]["allDaemonStatuses"] if one["required"]]
        healthy = bool(daemons) and all(one["healthy"] for one in daemons)
        return healthy and bool(descriptions), "".join(descriptions)

    def wait_until(
        self, what: str, condition: Callable[[], bool], timeout: float = 180, interval: float = 0.25
    ) -> None:
        """Poll; TimeoutError with the services' last log lines."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = self.compose("logs", "--tail", "15")
                raise TimeoutError(f"{self.name}: not within {timeout:.0f} s: {what}\n{logs}")
            time.sleep(interval)

    def schedule(self, *, on: bool) -> None:
        """Switch the schedule of the pipeline on or off."""
        if on:
            self.graphql(f"mutation {{ startSchedule(scheduleSelector: {SCHEDULE}) {{ __typename }} }}")
            return
        state = "... on Schedule { scheduleState { id } }"
        found = self.graphql(f"{{ scheduleOrError(scheduleSelector: {SCHEDULE}) {{ {state} }} }}")
        schedule_id = found["scheduleOrError"]["scheduleState"]["id"]
        self.graphql("mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }", id=schedule_id)

    def launch(self, executor: Mapping[str, object] | None = None) -> str:
        """Launch the job; return the run's id."""
        config: dict[str, object] = {"ops": OPS}
        if executor:
            config["execution"] = {"config": executor}
        answer = self.graphql(LAUNCH, config=config)["launchRun"]
        if "run" not in answer:
            raise RuntimeError(f"{self.name} refused the run: {answer}")
        run_id: str = answer["run"]["runId"]
        return run_id

    def ended(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Wait until the runs have ended; return their records. RuntimeError if one has not succeeded."""
        final = ("SUCCESS", "FAILURE", "CANCELED")
        runs: list[dict[str, Any]] = []

        def all_ended() -> bool:
            runs[:] = self.graphql(RUNS, ids=run_ids)["runsOrError"]["results"]
            return len(runs) == len(run_ids) and all(run["status"] in final for run in runs)

        self.wait_until(f"{len(run_ids)} runs end", all_ended, timeout=600, interval=1)
        if failed := [run["runId"] for run in runs if run["status"] != "SUCCESS"]:
            raise RuntimeError(
                f"{self.name}: {len(failed)} of {len(runs)} runs failed; {self.messages(failed[0])[-8:]}"
            )
        return runs

    def messages(self, run_id: str) -> list[tuple[float, str, str]]:
        """Time, type and message of the run's events."""
        events = self.graphql(EVENTS, id=run_id)["logsForRun"]["events"]
        return [(int(event["timestamp"]) / 1000, event["__typename"], event["message"]) for event in events]

    def measured_run(self, executor: Mapping[str, object] | None = None) -> Run:
        """Launch the job and watch its container, without asking Dagit anything before that has ended."""
        services, engine = self.service_seconds(), engine_seconds()
        launched = time.time()
        run_id = self.launch(executor)
        filters = {"event": ["start", "die"], "label": f"dagster/run_id={run_id}"}
        # Events from before this call are replayed; none for 60 s is an error of the client.
        events = self.client.events(since=int(launched), filters=filters, decode=True)
        start = next(events)
        own = 0.0
        with contextlib.suppress(OSError):  # the end
            cgroup = Cgroup(self.client.api.inspect_container(start["id"])["State"]["Pid"])
            while True:
                own = cgroup.seconds()
                time.sleep(0.02)
        next(events)
        events.close()
        (record,) = self.ended([run_id])
        times = {kind: when for when, kind, _ in reversed(self.messages(run_id))}
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
        """Ids of the running containers of its services."""
        filters = {"label": [f"com.docker.compose.project={self.project}", "com.docker.compose.oneoff=False"]}
        for container in self.client.api.containers(filters=filters):
            yield container["Id"]

    def service_seconds(self) -> list[float]:
        """CPU-seconds of each service's container, its healthchecks included."""
        pids = (self.client.api.inspect_container(one)["State"]["Pid"] for one in self.services())
        return [Cgroup(pid).seconds() for pid in pids]

    def idle_share(self, window: float) -> float:
        """Percent of a core that its services and the engine take, over so many seconds."""
        services, engine, since = self.service_seconds(), engine_seconds(), time.monotonic()
        time.sleep(window)
        used = sum(self.service_seconds()) - sum(services) + engine_used(engine)
        return 100 * used / (time.monotonic() - since)

    def memory(self) -> float:
        """MiB that its services hold, counted as `docker stats` does: without reclaimable file cache."""
        total = 0
        for one in self.services():
            memory = self.client.api.stats(one, stream=False, one_shot=True)["memory_stats"]
            total += memory["usage"] - memory["stats"].get(
                "total_inactive_file", memory["stats"].get("inactive_file", 0)
            )
        return total / 2**20

    def image_size(self, image: str, base: str) -> float:
        """MB of one of its images above the base image."""
        above, below = (self.client.images.get(name).attrs["Size"] for name in (f"{self.project}-{image}", base))
        return float(above - below) / 1e6

    def __enter__(self) -> Self:
        """Remove what an interrupted bench may have left."""
        self.remove()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        self.remove()
