"""What is old goes, with all it left; what is young, unfinished or referred to stays."""

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deployable_dagster import retention
from upath import UPath

from pipeline import clean_string_job

DAY = 86_400
LOCAL = type(UPath("/").fs)
SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED

# Loaded by Dagster's command line, which makes real backfills and schedules of it.
DEFINITIONS = """
import dagster as dg
@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a"]))
def of_a_backfill():
    pass
job = dg.define_asset_job("job", [of_a_backfill])
schedule = dg.ScheduleDefinition(job=job, cron_schedule="@daily", name="schedule")
defs = dg.Definitions(assets=[of_a_backfill], jobs=[job], schedules=[schedule])
"""
INSTANCE = """
run_coordinator: { module: dagster, class: QueuedRunCoordinator }
telemetry: { enabled: false }
"""


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def partitioned() -> None:
    """Have two partitions."""


@dg.op
def observe(context: dg.OpExecutionContext) -> None:
    """Observe an asset that others make."""
    context.log_event(dg.AssetObservation("observed", tags={"dagster/data_version": "1"}))


@dg.job
def observing() -> None:
    """Observe."""
    observe()


@dg.asset_check(asset=partitioned)
def sound() -> dg.AssetCheckResult:
    """Pass."""
    return dg.AssetCheckResult(passed=True)


class Home:
    """An instance on SQLite with runs of any age, and where their files are."""

    def __init__(self, directory: Path, instance: dg.DagsterInstance) -> None:
        """Keep all in a directory."""
        self.directory, self.instance = directory, instance
        self.data, self.storage = directory / "data", Path(instance.storage_directory())
        self.schedules = directory / "home" / "schedules" / "schedules.db"
        self.clean_ups: set[str] = set()

    def dagster(self, *command: str) -> None:
        """Run Dagster's command line on this instance and DEFINITIONS. Runs that it launches stay queued."""
        (self.directory / "home/dagster.yaml").write_text(INSTANCE)
        (self.directory / "definitions.py").write_text(DEFINITIONS)
        environment = os.environ | {"DAGSTER_HOME": str(self.directory / "home")}
        command = (sys.executable, "-m", "dagster", *command, "--python-file", "definitions.py")
        subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, check=True)

    def tick(self, days: float) -> None:
        """Insert a tick of the schedule, `days` ago."""
        (state,) = self.instance.all_instigator_state()
        sql = """
            INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp)
            VALUES (?, ?, 'SUCCESS', 'SCHEDULE', datetime('now', ?))"""
        with closing(sqlite3.connect(self.schedules)) as connection, connection:
            connection.execute(sql, (state.instigator_origin_id, state.selector_id, f"-{days * DAY} seconds"))

    def ticks(self) -> list[int]:
        """Return how many days ago the ticks were."""
        sql = "SELECT CAST(round(julianday('now') - julianday(timestamp)) AS INTEGER) FROM job_ticks ORDER BY 1"
        with closing(sqlite3.connect(self.schedules)) as connection:
            return [days for (days,) in connection.execute(sql)]

    def age(self, run_id: str, days: float, status: dg.DagsterRunStatus = SUCCESS) -> str:
        """Make a run come to a status `days` ago; return its id."""
        with closing(sqlite3.connect(self.directory / "home" / "history" / "runs.db")) as connection, connection:
            sql = "UPDATE runs SET update_timestamp = datetime(update_timestamp, ?), status = ? WHERE run_id = ?"
            assert connection.execute(sql, (f"-{days * DAY} seconds", status.value, run_id)).rowcount == 1
        return run_id

    def run(self, days: float, status: dg.DagsterRunStatus = SUCCESS, **more: Any) -> str:
        """Make a run that came to a status `days` ago and left 3 files of 4 bytes; return its id."""
        run_id = self.instance.create_run_for_job(clean_string_job, **more).run_id
        self.instance.report_engine_event("one", run_id=run_id, job_name="clean_string_job")
        self.files(run_id)
        return self.age(run_id, days, status)

    def files(self, name: str, days: float = 0) -> None:
        """Make 3 files of 4 bytes, written `days` ago, under a name."""
        for file in ("data/{}/sent.txt", "home/storage/{}/op/sent_norm", "home/storage/{}/compute_logs/x.out"):
            path = self.directory / file.format(name)
            path.parent.mkdir(parents=True)
            path.write_text("text")
            os.utime(path, (time.time() - days * DAY,) * 2)

    def clean_up(self, **config: object) -> dict[str, Any]:
        """Run the job; return what it reports. RuntimeError if it fails."""
        result = retention.retention_job.execute_in_process(
            {"ops": {"delete_old_runs": {"config": config}}}, self.instance, raise_on_error=False
        )
        self.clean_ups.add(result.run_id)
        if not result.success:
            (failure,) = result.get_step_failure_events()
            raise RuntimeError(str(failure.step_failure_data.error))
        (output,) = [event for event in result.all_events if event.is_successful_output]
        return {key: value.value for key, value in output.step_output_data.metadata.items()}

    def left(self, *, shards: bool = True) -> set[str]:
        """Return every run of which there is a row or a file; or, without `shards`, not SQLite's own, now empty."""
        history = self.directory / "home" / "history" / "runs"
        with closing(sqlite3.connect(history / "index.db")) as connection:
            events = {run_id for (run_id,) in connection.execute("SELECT run_id FROM event_logs")}
        names = {path.stem for place in (self.data, self.storage) for path in place.glob("*")}
        if shards:
            names |= {path.name.partition(".")[0] for path in history.glob("*-*.db*")}
        return ({run.run_id for run in self.instance.get_runs()} | events | names) - self.clean_ups


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Yield a home that is new for each test."""
    monkeypatch.setenv("DATA_PATH", str(tmp_path / "data"))
    monkeypatch.delenv("RETENTION_DAYS", raising=False)
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield Home(tmp_path, instance)


def test_the_old_go_with_all_they_left_and_the_young_stay(home: Home) -> None:
    young = {home.run(29.9), home.run(0, FAILURE)}
    home.run(30.1), home.run(40, FAILURE), home.run(400, dg.DagsterRunStatus.CANCELED)
    count = home.clean_up()
    expected = {"runs": 3, "events": 3, "orphans": 0, "files": 9, "bytes": 36, "failed": 0}
    assert count == expected | {"days": 30, "dry_run": False}
    assert home.left() == young
    assert home.clean_up()["runs"] == 0


def test_a_dry_run_counts_the_same_and_deletes_nothing(home: Home) -> None:
    home.run(1), home.run(31), home.run(32)
    home.files(str(uuid.uuid4()), days=40)
    before = home.left()
    dry = home.clean_up(dry_run=True)
    assert home.left() == before
    assert dry == home.clean_up() | {"dry_run": True}
    assert (dry["runs"], dry["orphans"], dry["files"]) == (2, 2, 9)


@pytest.mark.parametrize(
    ("variable", "config", "left"),
    [
        (None, {}, 2),
        ("", {}, 2),
        ("7", {}, 1),
        ("400", {}, 3),
        ("0", {}, 3),
        ("7", {"days": 400}, 3),
        ("7", {"days": 0}, 3),
        ("0", {"days": 7}, 1),
    ],
)
def test_how_old_is_the_setting_unless_the_config_says(
    variable: str | None, config: dict[str, Any], left: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("RETENTION_DAYS", variable)
    home.run(1), home.run(20), home.run(60)
    home.clean_up(**config)
    assert len(home.left()) == left


@pytest.mark.parametrize("days", [-1, "many", 1.5])
def test_days_are_a_whole_number(days: object, home: Home) -> None:
    with pytest.raises((dg.DagsterError, RuntimeError), match="days"):
        home.clean_up(days=days)


def test_what_has_not_ended_stays(home: Home) -> None:
    # A queued run must have come through Dagit.
    statuses = set(retention.UNFINISHED) - {dg.DagsterRunStatus.QUEUED}
    runs = {home.run(400, status) for status in statuses}
    assert len(runs) == 6
    home.clean_up()
    assert home.left() == runs


@pytest.mark.parametrize(("days", "status", "stays"), [(40, STARTED, True), (1, FAILURE, True), (40, SUCCESS, False)])
def test_a_run_stays_as_long_as_those_taken_up_from_it(
    days: float, status: dg.DagsterRunStatus, stays: bool, home: Home
) -> None:
    root = home.run(50, FAILURE)
    tags = {"dagster/root_run_id": root, "dagster/parent_run_id": root}
    child = home.run(45, FAILURE, root_run_id=root, parent_run_id=root, tags=tags)
    tags["dagster/parent_run_id"] = child
    grandchild = home.run(days, status, root_run_id=root, parent_run_id=child, tags=tags)
    home.run(50, FAILURE)
    home.clean_up()
    assert home.left() == ({root, child, grandchild} if stays else set())


def test_what_an_asset_is_now_stays(home: Home) -> None:
    older, latest = (clean_string_job.execute_in_process(instance=home.instance).run_id for _ in range(2))
    home.age(older, 60), home.age(latest, 50)
    home.clean_up()
    assert home.left() == {latest}
    assert (home.data / latest / "sent.txt").exists()


def test_what_each_partition_of_an_asset_is_now_stays(home: Home) -> None:
    runs = [
        dg.materialize([partitioned], instance=home.instance, partition_key=key).run_id for key in ("a", "a", "b", "b")
    ]
    for run_id in runs:
        home.age(run_id, 60)
    home.clean_up()
    assert home.left() - {"partitioned"} == {runs[1], runs[3]}


def test_the_latest_observation_of_an_asset_and_its_latest_check_stay(home: Home) -> None:
    observed = [observing.execute_in_process(instance=home.instance).run_id for _ in range(2)]
    checked = [dg.materialize([partitioned, sound], instance=home.instance, partition_key="a").run_id for _ in range(2)]
    newest = dg.materialize([partitioned], instance=home.instance, partition_key="a").run_id
    for run_id in (*observed, *checked, newest):
        home.age(run_id, 60)
    home.clean_up()
    assert home.left() - {"partitioned"} == {observed[1], checked[1], newest}
    assert home.instance.get_latest_data_version_record(dg.AssetKey("observed")) is not None


def test_a_backfill_keeps_its_runs_until_it_has_ended(home: Home) -> None:
    home.dagster("job", "backfill", "--job", "job", "--all", "--noprompt")
    (run,) = home.instance.get_runs()
    home.age(run.run_id, 60)
    backfill: Any
    (backfill,) = home.instance.get_backfills()
    status = type(backfill.status)
    for ongoing in retention.ONGOING:
        home.instance.update_backfill(backfill.with_status(status(ongoing)))
        assert home.clean_up()["runs"] == 0
    home.instance.update_backfill(backfill.with_status(status.COMPLETED_SUCCESS))
    assert home.clean_up()["runs"] == 1


def test_old_directories_of_runs_that_there_are_not_go(home: Home) -> None:
    known = home.run(1)
    for directory in (home.data / known, home.storage / known):
        os.utime(directory, (0, 0))
    young, old = str(uuid.uuid4()), str(uuid.uuid4())
    home.files(young, days=29)
    home.files(old, days=31)
    empty = home.data / str(uuid.uuid4())
    empty.mkdir()
    os.utime(empty, (0, 0))
    assert home.clean_up()["orphans"] == 3
    assert home.left() == {known, young}


def test_a_directory_that_is_not_named_as_a_run_is_never_touched(home: Home) -> None:
    names = {"texts", "267e3a5b", f"{uuid.uuid4()}.bak", f"run-{uuid.uuid4()}", "..data", str(uuid.uuid4()).upper()}
    for name in names:
        home.files(name, days=1000)
        for place in (home.data, home.storage):
            os.utime(place / name, (0, 0))
    home.clean_up(days=1)
    assert {path.name for path in home.data.iterdir()} == names
    assert sum(path.is_file() for path in home.storage.rglob("*")) == 2 * len(names) + 3  # the clean-up's own log


def test_a_link_is_not_followed(home: Home) -> None:
    run_id = home.run(60)
    (home.directory / "precious").write_text("mine")
    (home.data / run_id / "link").symlink_to(home.directory)
    home.clean_up()
    assert home.left() == set()
    assert (home.directory / "precious").read_text() == "mine"


def test_what_cannot_be_deleted_is_named_and_keeps_nothing_else(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = home.run(70)
    young = home.run(1)
    home.run(60)
    delete = LOCAL.rm

    def fail(self: object, path: str, *args: Any, **more: Any) -> None:
        if stuck in path:
            raise PermissionError(path)
        delete(self, path, *args, **more)

    monkeypatch.setattr(LOCAL, "rm", fail)
    with pytest.raises(RuntimeError, match="could not be deleted"):
        home.clean_up()
    assert home.left() == {stuck, young}
    monkeypatch.undo()
    monkeypatch.setenv("DATA_PATH", str(home.data))
    home.clean_up()
    assert home.left() == {young}


def test_a_directory_too_deep_to_walk_keeps_nothing_else(home: Home) -> None:
    deep, other = home.run(70), home.run(60)
    path = os.open(home.data / deep, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=path)
        path, above = os.open("d", os.O_RDONLY, dir_fd=path), path
        os.close(above)
    os.close(path)
    try:
        with pytest.raises(RuntimeError, match="could not be deleted"):
            home.clean_up()
        assert home.left() == {deep}
        assert other not in home.left()
    finally:
        subprocess.run(["rm", "-rf", str(home.data / deep)], check=True)


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/../.."])
def test_an_id_that_is_not_of_a_run_deletes_no_directory(run_id: str, home: Home) -> None:
    young, old = home.run(1), home.run(60)
    with closing(sqlite3.connect(home.directory / "home/history/runs.db")) as connection, connection:
        sql = "UPDATE runs SET run_id = ?, run_body = replace(run_body, run_id, ?) WHERE run_id = ?"
        connection.execute(sql, (run_id, run_id, old))
    with suppress(RuntimeError):
        home.clean_up()
    assert (home.data / young / "sent.txt").exists()
    assert (home.storage / young).exists()


def test_a_row_that_cannot_be_deleted_ends_the_clean_up_with_its_name(home: Home) -> None:
    old = home.run(60)
    with closing(sqlite3.connect(home.directory / "home/history/runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET run_id = 'another' WHERE run_id = ?", (old,))
    with pytest.raises(RuntimeError, match=f"{old}' was tampered with"):
        home.clean_up()


def test_what_another_clean_up_is_deleting_is_left_to_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = home.run(60)
    home.run(60)
    delete = LOCAL.rm

    def vanish(self: object, path: str, *args: Any, **more: Any) -> None:
        delete(self, path, *args, **more)
        if busy in path:
            raise FileNotFoundError(path)

    monkeypatch.setattr(LOCAL, "rm", vanish)
    assert home.clean_up()["runs"] == 1
    assert home.left() == {busy}


@pytest.mark.parametrize("after", range(8))
def test_killed_anywhere_it_loses_nothing_and_the_next_time_finishes(
    after: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    young = home.run(1)
    old = {home.run(60), home.run(50)}
    steps = count()

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if next(steps) == after:
                raise KeyboardInterrupt
            return method(*args, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(LOCAL, "rm", dying(LOCAL.rm))
        patch.setattr(home.instance.run_storage, "delete_run", dying(home.instance.run_storage.delete_run))
        patch.setattr(
            home.instance.event_log_storage, "delete_events", dying(home.instance.event_log_storage.delete_events)
        )
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            home.clean_up()
    known = {run.run_id for run in home.instance.get_runs()}
    assert young in home.left(shards=False) <= known, "something is left of a run without its row"
    assert old & home.left(), "it was not killed before it was done"
    home.clean_up()
    assert home.left() == {young}


def test_more_runs_than_a_batch_with_some_that_stay(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    runs = [home.run(60 - n, STARTED if n in (0, 3, 4, 7) else SUCCESS) for n in range(9)]
    root = home.run(45, FAILURE)
    child = home.run(1, root_run_id=root, parent_run_id=root, tags={"dagster/root_run_id": root})
    for _ in range(3):
        home.files(str(uuid.uuid4()), days=60)
    dry = home.clean_up(dry_run=True)
    assert (dry["runs"], dry["orphans"]) == (5, 6)
    assert home.clean_up() == dry | {"dry_run": False}
    assert home.left() == {runs[n] for n in (0, 3, 4, 7)} | {root, child}


def test_the_texts_may_be_anywhere_that_fsspec_knows(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PATH", "memory://bucket/prefix")
    place = UPath("memory://bucket/prefix")
    old, young, orphan = home.run(60), home.run(1), str(uuid.uuid4())
    for name in (old, young, orphan, "texts"):
        (place / name).mkdir(parents=True)
        (place / name / "sent.txt").write_text("text")
    assert home.clean_up()["files"] == 3
    assert {path.name for path in place.iterdir()} == {young, orphan, "texts"}
    monkeypatch.setattr(retention, "modified", lambda _: datetime.fromtimestamp(0, UTC))
    assert home.clean_up()["orphans"] == 1
    assert {path.name for path in place.iterdir()} == {young, "texts"}


def test_old_ticks_go(home: Home) -> None:
    home.dagster("schedule", "start", "schedule")
    for days in (400, 31, 29, 0):
        home.tick(days)
    home.clean_up(dry_run=True)
    assert home.ticks() == [0, 29, 31, 400]
    home.clean_up()
    assert home.ticks() == [0, 29]


def test_it_runs_every_night_by_itself() -> None:
    assert retention.every_night.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (retention.every_night.cron_schedule, retention.every_night.execution_timezone) == ("40 3 * * *", "UTC")
    assert retention.every_night.job_name == "retention_job"
