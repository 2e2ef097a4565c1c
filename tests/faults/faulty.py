"""A stack to break, and the ledger of its runs."""

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from tests.stack import ENDED, JOB, MINUTE, SERVICES, Deployment, now

ALL = sorted(SERVICES)
FINAL = {"PIPELINE_SUCCESS": "SUCCESS", "PIPELINE_FAILURE": "FAILURE", "PIPELINE_CANCELED": "CANCELED"}


class Faulty(Deployment):
    """A stack with jobs that go wrong, and little memory for runs."""

    def __init__(self) -> None:
        """Give runs little memory, and let many of them run at once."""
        super().__init__()
        self.environment |= {"RUN_MEMORY": "400m", "MAX_CONCURRENT_RUNS": "8"}

    def build(self) -> None:
        """Build the images; add the jobs to the one of user_code."""
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
        """Wait until the engine has restarted these services more often than `before`."""
        self.wait_for(
            "restarts",
            self.restarts,
            lambda restarts: all(restarts[service] > before[service] for service in services),
            timeout,
        )

    def failure(self, run_id: str) -> str:
        """Return the reason of its failure that the run's page shows."""
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
    date: str  # the schedule's tick, if there is one
    parent: str  # the run that it retries, if there is one
    will_retry: bool
    events: list[str]  # its starts and ends, and the steps that succeeded


def minutes(begin: datetime, end: datetime) -> set[str]:
    """Return the full minutes between two times, as the schedule writes them."""
    first = begin.replace(second=0, microsecond=0) + MINUTE
    return {str(first + n * MINUTE) for n in range(int((end - first) / MINUTE) + 1 if end >= first else 0)}


class Ledger:
    """Launches a run every few seconds; at the end, accounts for every run that was launched or due."""

    def __init__(self, stack: Faulty) -> None:
        """Start launching."""
        self.stack = stack
        self.began = now()
        self.launched: list[str] = []
        self.refused = 0
        self.outages: list[tuple[datetime, datetime]] = []
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._launch)
        self.thread.start()

    def _launch(self) -> None:
        while not self.closing.wait(6):
            try:
                self.launched.append(self.stack.launch())
            except Exception:  # any error while Dagit is down: the user knows that nothing was launched
                self.refused += 1

    def close(self) -> None:
        """Stop launching."""
        self.closing.set()
        self.thread.join()

    def outage(self, began: datetime) -> None:
        """Record an outage ending now, during which ticks may be missed, one evaluated just before it included."""
        self.outages.append((began - timedelta(seconds=5), now()))

    def runs(self) -> list[Run]:
        """Return all runs created since the ledger was opened."""
        # A run may have a tag twice: when it fails, it and the daemon may write `will_retry` at the same time.
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
        """List what is still open."""
        runs = self.runs()
        parents = {run.parent for run in runs}
        return [
            *(f"{id_} is not recorded" for id_ in set(self.launched) - {run.id for run in runs}),
            *(f"{date} has no run" for date in due - {run.date for run in runs}),
            *(f"{run.id} is {run.status}" for run in runs if run.status not in ENDED),
            *(f"{run.id} is not retried" for run in runs if run.will_retry and run.id not in parents),
        ]

    def settle(self) -> dict[str, int]:
        """Stop launching; wait until every run has ended; count. AssertionError if the records of a run contradict."""
        self.close()
        # Of the ticks that fall into an outage, Dagster catches up on the last at most.
        missed = {date for begin, end in self.outages for date in minutes(begin, end)}
        due = minutes(self.began, now()) - missed
        self.stack.wait_for("the end of all runs", lambda: self.open_accounts(due), lambda still: not still, 200)
        runs = self.runs()
        by_id = {run.id: run for run in runs}
        find = ("find", "/data", "/opt/dagster/storage", "!", "-type", "d")
        files = set(self.stack.run_in("dagit", *find).decode().split())
        for run in runs:
            ends = [FINAL[event] for event in run.events if event in FINAL]
            assert ends == [run.status], f"not exactly one final state: {run}"
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
        """Check that a successful run, together with the runs that it retries, left its texts, logs and events."""
        family = [run.id]
        while (parent := by_id[family[-1]].parent) in by_id:
            family.append(parent)
        for text in ("sent.txt", "sent_clean.txt"):
            assert any(f"/data/{id_}/{text}" in files for id_ in family), f"{text} of {run} is missing"
        assert any(f"/storage/{run.id}/compute_logs/" in file for file in files), f"the logs of {run} are missing"
        assert run.events.count("PIPELINE_START") == 1, run
        events = {event for id_ in family for event in by_id[id_].events}
        assert {f"STEP_SUCCESS {op}" for op in ("get_string", "normalize_string", "clean_string")} <= events, run

    def wait_until_removed(self) -> None:
        """Wait until the containers of these runs are removed."""
        ids = {run.id for run in self.runs()}
        self.stack.wait_for(
            "the removal of these runs' containers",
            lambda: ids & {container.labels["dagster/run_id"] for container in self.stack.containers("dagster/run_id")},
            lambda left: not left,
            timeout=120,
        )
