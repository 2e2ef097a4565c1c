"""A stack on which everything goes wrong, and the ledger of its runs."""

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from dagster_graphql import DagsterGraphQLClient

from tests.stack import ENDED, JOB, SERVICES, Deployment

MINUTE = timedelta(minutes=1)
ALL = sorted(SERVICES)
FINAL = {"PIPELINE_SUCCESS": "SUCCESS", "PIPELINE_FAILURE": "FAILURE", "PIPELINE_CANCELED": "CANCELED"}


def now() -> datetime:
    """Return the time as the database writes it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Faulty(Deployment):
    """A copy of the project, with jobs that go wrong and little memory for runs."""

    def __init__(self) -> None:
        """Give runs little memory, and room for many of them."""
        super().__init__()
        self.environment |= {"RUN_MEMORY": "400m", "MAX_CONCURRENT_RUNS": "8"}

    def build(self) -> None:
        """Build the images; add the jobs to that of user_code."""
        super().build()
        image = f"{self.project}-user_code"
        path = str(Path(__file__).parent / "image")
        self.engine.images.build(path=path, tag=image, buildargs={"IMAGE": image}, rm=True)

    def signal(self, service: str, name: str) -> None:
        """Send a signal to the service's process: the child of the container's init."""
        command = ["sh", "-c", f"kill -{name} $(cat /proc/1/task/1/children)"]
        self.container(service).exec_run(command)  # its exit code is lost with the container

    def restarts(self) -> dict[str, int]:
        """Return how often the engine restarted each service."""
        return {service: self.container(service).attrs["RestartCount"] for service in ALL}

    def wait_until_restarted(self, services: Iterable[str], before: dict[str, int], timeout: float = 75) -> None:
        """Wait until the engine has restarted these services, which it had restarted so often before."""
        self.wait_for(
            "restarts",
            self.restarts,
            lambda restarts: all(restarts[service] > before[service] for service in services),
            timeout,
        )

    def wait_until_healthy(self, timeout: float = 90) -> None:
        """Wait until all services are healthy."""
        self.wait_for(
            "healthy services",
            lambda: {service: self.health(service) for service in ALL},
            lambda health: set(health.values()) == {"healthy"},
            timeout,
        )

    def failure(self, run_id: str) -> str:
        """Return what the run's page says of its failure."""
        return "\n".join(e["message"] for e in self.events(run_id) if e["eventType"] == "RUN_FAILURE")

    def seconds(self, run_id: str) -> float:
        """Return the seconds from the start of the run's container to the run's end."""
        started = datetime.fromisoformat(self.run_containers[run_id].attrs["State"]["StartedAt"][:19] + "+00:00")
        ended = float(self.sql(f"SELECT end_time FROM runs WHERE run_id = '{run_id}'"))
        return ended - started.timestamp()


class Run(NamedTuple):
    """A row of the ledger."""

    id: str
    job: str
    status: str
    date: str  # of the schedule's tick, if there is one
    parent: str  # the run that it takes up again, if there is one
    will_retry: bool
    events: list[str]  # its starts and ends, and the steps that succeeded


def minutes(begin: datetime, end: datetime) -> set[str]:
    """Return the full minutes after one time and up to another, as the schedule writes them."""
    first = begin.replace(second=0, microsecond=0) + MINUTE
    return {str(first + n * MINUTE) for n in range(int((end - first) / MINUTE) + 1 if end >= first else 0)}


class Ledger:
    """Launches a run every few seconds; at the end, accounts for every run that was launched or due."""

    def __init__(self, stack: Faulty) -> None:
        """Begin to launch."""
        self.stack = stack
        self.began = now()
        self.launched: list[str] = []
        self.refused = 0
        self.outages: list[tuple[datetime, datetime]] = []
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._launch)
        self.thread.start()

    def _launch(self) -> None:
        dagit = DagsterGraphQLClient("127.0.0.1", port_number=self.stack.port)  # not for several threads
        while not self.closing.wait(6):
            try:
                self.launched.append(dagit.submit_job_execution(JOB))
            except Exception:  # whatever Dagit's absence makes of it: the user knows that nothing was launched
                self.refused += 1

    def close(self) -> None:
        """Launch no more."""
        self.closing.set()
        self.thread.join()

    def outage(self, began: datetime) -> None:
        """Note that there is an end to a fault for which ticks may be missed, one just before it half way included."""
        self.outages.append((began - timedelta(seconds=5), now()))

    def runs(self) -> list[Run]:
        """Return all runs made since the ledger was opened."""
        # A tag may be there twice: a run that fails and the daemon may both write `will_retry` at the same time.
        tag = "(SELECT max(value) FROM run_tags t WHERE t.run_id = r.run_id AND key = '{}')"
        columns = ", ".join(tag.format(key) for key in ("date", "dagster/parent_run_id", "dagster/will_retry"))
        events = f"""
            SELECT string_agg(concat_ws(' ', dagster_event_type, step_key), ',') FROM event_logs e
            WHERE e.run_id = r.run_id AND dagster_event_type IN {("PIPELINE_START", "STEP_SUCCESS", *FINAL)}"""
        rows = self.stack.sql(f"""
            SELECT run_id, pipeline_name, status, {columns}, ({events})
            FROM runs r WHERE create_timestamp >= '{self.began}'""")
        split = (row.split("|") for row in rows.splitlines())
        return [
            Run(id_, job, status, date, parent, retry == "true", events.split(","))
            for id_, job, status, date, parent, retry, events in split
        ]

    def open_accounts(self, due: set[str]) -> list[str]:
        """List what is not settled yet."""
        runs = self.runs()
        parents = {run.parent for run in runs}
        return [
            *(f"{id_} is not recorded" for id_ in set(self.launched) - {run.id for run in runs}),
            *(f"{date} has no run" for date in due - {run.date for run in runs}),
            *(f"{run.id} is {run.status}" for run in runs if run.status not in ENDED),
            *(f"{run.id} is not retried" for run in runs if run.will_retry and run.id not in parents),
        ]

    def settle(self) -> dict[str, int]:
        """Launch no more; wait until everything has ended, and count. AssertionError if a run is not as it must be."""
        self.close()
        # Of the ticks that fall into an outage, Dagster makes up for the last at most.
        missed = {date for begin, end in self.outages for date in minutes(begin, end)}
        due = minutes(self.began, now()) - missed
        self.stack.wait_for("the end of all runs", lambda: self.open_accounts(due), lambda still: not still, 200)
        runs = self.runs()
        by_id = {run.id: run for run in runs}
        find = ("find", "/data", "/opt/dagster/storage", "!", "-type", "d")
        files = set(self.stack.run_in("dagit", *find).decode().split())
        for run in runs:
            ends = [FINAL[event] for event in run.events if event in FINAL]
            assert ends == [run.status], f"not one final state: {run}"
            if run.status == "SUCCESS" and run.job == JOB:
                self.check_success(run, by_id, files)
        ticks = [run.date for run in runs if run.date and not run.parent]
        retries = [run.parent for run in runs if run.parent]
        return {
            "runs": len(runs),
            "launched": len(self.launched),
            "ticks": len(ticks),
            "refused": self.refused,
            "retried": len(retries),
            "failed": sum(run.status != "SUCCESS" for run in runs if run.id not in retries),
            "missed": len(missed - {run.date for run in runs}),
            "lost": len((set(self.launched) | due) - by_id.keys() - set(ticks)),
            "doubled": len(ticks) - len(set(ticks)) + len(retries) - len(set(retries)),
        }

    def check_success(self, run: Run, by_id: dict[str, Run], files: set[str]) -> None:
        """Check that a run which succeeded, with those it takes up again, left its texts, its logs and its events."""
        family = [run.id]
        while (parent := by_id[family[-1]].parent) in by_id:
            family.append(parent)
        for text in ("sent.txt", "sent_clean.txt"):
            assert any(f"/data/{id_}/{text}" in files for id_ in family), f"{text} of {run} is gone"
        assert any(f"/storage/{run.id}/compute_logs/" in file for file in files), f"the logs of {run} are gone"
        assert run.events.count("PIPELINE_START") == 1, run
        events = {event for id_ in family for event in by_id[id_].events}
        assert {f"STEP_SUCCESS {op}" for op in ("get_string", "normalize_string", "clean_string")} <= events, run

    def removed(self) -> None:
        """Wait until the containers of these runs are removed."""
        ids = {run.id for run in self.runs()}
        self.stack.wait_for(
            "the removal of these runs' containers",
            lambda: ids & {container.labels["dagster/run_id"] for container in self.stack.containers("dagster/run_id")},
            lambda left: not left,
            timeout=120,
        )
