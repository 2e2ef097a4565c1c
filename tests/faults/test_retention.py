"""The clean-up, on a stack: it deletes what is old from Postgres and the volumes, and nothing else."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack import ENDED, JOB, Deployment, deployed

TICKS = """
    INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp, tick_body)
    SELECT job_origin_id, selector_id, status, type, timestamp - interval '{before}' - n * interval '{apart}', tick_body
    FROM (SELECT * FROM job_ticks ORDER BY id LIMIT 1) AS tick, generate_series({runs}, 1, -1) AS n"""
RUN_TABLES = (
    "SELECT table_name FROM information_schema.columns WHERE (table_schema, column_name) = ('public', 'run_id')"
)
OLD = "update_timestamp < localtimestamp - interval '30 days'"


class Retention(Deployment):
    """A stack with a history to clean up."""

    template: str

    def up(self) -> None:
        """Start, and launch a run to copy."""
        super().up()
        self.template = self.launch()
        assert self.finish(self.template) == "SUCCESS"
        self.wait_for("the first tick", lambda: self.sql("SELECT id FROM job_ticks"), timeout=90)

    def fill(self, runs: int, before: str, apart: str) -> None:
        """Insert copies of the rows of that run, and of a tick."""
        self.copy_run(self.template, runs, before=before, apart=apart)
        self.sql(TICKS.format(runs=runs, before=before, apart=apart))

    def runs(self, where: str = "true") -> set[str]:
        """Return the copies in the database that match a condition."""
        query = f"""
            SELECT run_id FROM runs WHERE pipeline_name = '{JOB}' AND run_id <> '{self.template}' AND {where}
            AND run_id NOT IN (SELECT run_id FROM run_tags WHERE key = 'date')"""
        return set(self.sql(query).split())

    def files(self) -> set[str]:
        """Return all files on the volumes."""
        return set(self.shell("find /data /storage -type f").splitlines())

    def directories(self) -> set[str]:
        """Return the names of all directories on the volumes."""
        paths = self.shell("find /data /storage -mindepth 1 -maxdepth 1").splitlines()
        return {path.rpartition("/")[2] for path in paths}

    def clean_up(self, **config: object) -> str:
        """Launch the clean-up; return its run's id."""
        return self.launch({"ops": {"delete_old_runs": {"config": config}}}, job="retention_job")

    def cleaned_up(self, **config: object) -> dict[str, Any]:
        """Clean up; return the counts that Dagit shows."""
        run_id = self.clean_up(**config)
        self.wait_for("the end of the clean-up", lambda: self.status(run_id), ENDED.__contains__, timeout=300)
        assert self.finish(run_id) == "SUCCESS"
        query = """
            query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events {
                ... on ExecutionStepOutputEvent { metadataEntries {
                    label ... on IntMetadataEntry { intValue } ... on BoolMetadataEntry { boolValue }
                } }
            } } } } }"""
        events = self.query(query, id=run_id)["eventConnection"]["events"]
        (entries,) = [event["metadataEntries"] for event in events if event]
        return {entry["label"]: entry.get("intValue", entry.get("boolValue")) for entry in entries}

    def bytes(self) -> int:
        """Return the size of the database."""
        return int(self.sql("SELECT pg_database_size(current_database())"))

    def orphan_rows(self) -> dict[str, int]:
        """Return how many rows of each table belong to a run that does not exist."""
        tables = self.sql(RUN_TABLES).split()
        assert {"runs", "run_tags", "event_logs", "pending_steps"} <= set(tables)
        count = "SELECT count(*) FROM {} WHERE run_id IS NOT NULL AND run_id NOT IN (SELECT run_id FROM runs)"
        found = {table: int(self.sql(count.format(table))) for table in tables}
        found["asset_event_tags"] = int(
            self.sql("SELECT count(*) FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)")
        )
        return {table: rows for table, rows in found.items() if rows}


@pytest.fixture(scope="module")
def stack(docker_engine: None) -> Iterator[Retention]:
    """Yield a stack of its own."""
    stack = Retention()
    with deployed(stack):
        yield stack


@pytest.mark.timeout(300)
def test_old_runs_are_deleted_even_after_a_kill(stack: Retention) -> None:
    old, young = 300, 20
    stack.fill(old, "30 days", "1 hour")
    stack.fill(young, "28 days", "1 hour")
    copy = "for run; do cp -a /data/$0 /data/$run; cp -a /storage/$0 /storage/$run; done".replace("$0", stack.template)
    stack.shell(copy, *stack.runs())
    orphan, foreign = "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "not-a-run"
    stack.shell(
        'for d; do mkdir /data/$d; echo x >/data/$d/x; touch -d "40 days ago" /data/$d/x; done', orphan, foreign
    )
    stay = stack.runs(f"NOT {OLD}")
    assert (len(stack.runs(OLD)), len(stay)) == (old, young)
    files = stack.files()

    dry = stack.cleaned_up(dry_run=True)
    events = int(stack.sql(f"SELECT count(*) FROM event_logs WHERE run_id = '{stack.template}'"))
    of_a_run = sum(stack.template in file for file in files)
    assert of_a_run == 6
    expected = {"runs": old, "events": old * events, "orphans": 1, "files": old * of_a_run + 1}
    assert dry | expected == dry
    assert (len(stack.runs(OLD)), stack.runs(f"NOT {OLD}")) == (old, stay)
    assert files <= stack.files()

    killed = stack.clean_up()
    stack.wait_for("half a clean-up", lambda: len(stack.runs(OLD)), lambda left: left < old * 3 // 4)
    (container,) = stack.containers(f"dagster/run_id={killed}")
    container.kill("SIGKILL")
    left = stack.runs(OLD)
    assert 0 < len(left) < old
    assert stack.orphan_rows() == {}
    assert stack.finish(killed) == "FAILURE"
    stack.wait_for("its retry", lambda: stack.runs(OLD), lambda left: not left, timeout=120)

    assert stack.cleaned_up()["runs"] == 0
    assert (stack.runs(OLD), stack.runs(f"NOT {OLD}")) == (set(), stay)
    assert stack.orphan_rows() == {}
    assert stack.sql(f"SELECT count(*) FROM job_ticks WHERE {OLD.replace('update_', '')}") == "0"
    known = set(stack.sql("SELECT run_id FROM runs").split())
    assert stack.directories() - known == {foreign}
    kept = {file for file in files if any(run_id in file for run_id in {*stay, stack.template})}
    assert len(kept) == (young + 1) * of_a_run
    assert kept <= stack.files()


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(("runs", "stride"), [(48, 10), (1440, 1)], ids=str)
def test_the_size_of_postgres_stays_bounded(runs: int, stride: int, stack: Retention) -> None:
    # A day takes seconds here, so autovacuum runs every second instead of every minute.
    stack.sql("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    stack.sql("SELECT pg_reload_conf()")
    before = stack.runs()
    empty = stack.bytes()
    size: dict[int, int] = {}
    for day in range(stride, 91, stride):  # the 90th is today; what is 30 days old on a day in the past is older today
        today = 90 - day
        stack.fill(runs * stride, f"{today} days", f"{1440 / runs} minutes")
        began = time.monotonic()
        count = stack.cleaned_up(days=30 + today)
        size[day] = stack.bytes() - empty
        print(f"day {day}: {count}, {size[day] / 1e6:+.0f} MB, {time.monotonic() - began:.1f} s")
        assert stack.orphan_rows() == {}
    assert len(stack.runs() - before) == pytest.approx(30 * runs, abs=runs)
    assert size[90] < 1.5 * size[45], size  # unbounded, it would be twice as much
