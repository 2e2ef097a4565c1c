"""The nightly clean-up: a job that deletes old runs with everything they left. Every code location gets it."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import dagster as dg
from pydantic import Field
from upath import UPath

BATCH = 100  # runs per query
RUN_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED]
ONGOING = ("REQUESTED", "CANCELING", "FAILING")  # backfills


class CleanUp:
    """Deletes (or, in a dry run, counts) what ended before a given time: each run's files first, its row last.

    If it is killed, the run it was deleting is still listed, and the next clean-up deletes the rest of it.
    """

    def __init__(self, context: dg.OpExecutionContext, before: datetime, *, dry_run: bool) -> None:
        """Prepare to clean up the instance of `context` and DATA_PATH."""
        self.instance, self.log = context.instance, context.log
        self.before, self.dry_run = before, dry_run
        storage = Path(self.instance.storage_directory())
        self.shards = storage.parent / "history" / "runs"  # SQLite keeps each run's events in a file of its own
        self.places = [UPath(storage), UPath(os.getenv("DATA_PATH") or "data").absolute()]
        self.count = Counter(runs=0, events=0, orphans=0, files=0, bytes=0, failed=0)

    def delete_runs(self) -> None:
        """Delete finished runs, oldest first, except those that newer data still refers to."""
        old = dg.RunsFilter(statuses=FINISHED, updated_before=self.before)
        current = self.current_runs()
        kept = None  # the last run that stays: the next batch begins after it
        seen: set[int] = set()
        while records := self.instance.get_run_records(old, limit=BATCH, ascending=True, cursor=kept):
            if seen.issuperset(record.storage_id for record in records):
                raise dg.Failure(f"The row of run {records[0].dagster_run.run_id!r} was tampered with: it stays")
            seen.update(record.storage_id for record in records)
            runs = [record.dagster_run for record in records]
            stay = current | self.in_use(runs)
            for run in runs:
                if run.run_id in stay or not self.delete_run(run.run_id) or self.dry_run:
                    kept = run.run_id
            self.log.info(f"{self}, up to {records[-1].update_timestamp:%Y-%m-%d %H:%M}")

    def current_runs(self) -> set[str]:
        """Return the runs that made the latest materialization or observation of an asset or partition."""
        kinds = (
            (dg.DagsterEventType.ASSET_MATERIALIZATION, self.instance.fetch_materializations),
            (dg.DagsterEventType.ASSET_OBSERVATION, self.instance.fetch_observations),
        )
        runs: set[str] = set()
        for key in self.instance.get_asset_keys():
            for kind, fetch in kinds:
                runs.update(record.run_id for record in fetch(key, limit=1).records)
                partitions = iter(self.instance.get_latest_storage_id_by_partition(key, kind).values())
                while batch := list(islice(partitions, BATCH)):
                    found = fetch(dg.AssetRecordsFilter(key, storage_ids=batch), limit=BATCH)
                    runs.update(record.run_id for record in found.records)
        return runs

    def has_current_check(self, run_id: str) -> bool:
        """Return whether the run made the latest evaluation of an asset check."""
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for entry in self.instance.all_logs(run_id, of_type=kind):
            evaluation = entry.get_dagster_event().asset_check_evaluation_data
            latest = self.instance.get_latest_asset_check_evaluation_record(evaluation.asset_check_key)
            if latest is None or latest.run_id == run_id:
                return True
        return False

    def in_use(self, runs: list[dg.DagsterRun]) -> set[str]:
        """Return the runs needed by a newer or unfinished retry, or by a backfill in progress."""
        root = {run.run_id: run.root_run_id or run.run_id for run in runs}
        tags = {"dagster/root_run_id": list(set(root.values()))}
        living = (dg.RunsFilter(tags=tags, statuses=UNFINISHED), dg.RunsFilter(tags=tags, updated_after=self.before))
        roots = {run.root_run_id for each in living for run in self.instance.get_runs(each)}
        backfill = {run.run_id: run.tags.get("dagster/backfill") for run in runs}
        found = [self.instance.get_backfill(each) for each in set(backfill.values()) if each]
        ongoing = {each.backfill_id for each in found if each and each.status.value in ONGOING}
        return {run_id for run_id in root if root[run_id] in roots or backfill[run_id] in ongoing}

    def delete_run(self, run_id: str) -> bool:
        """Delete a run and return True; or log why it stays, and return False."""
        if self.has_current_check(run_id):
            return False
        # Dagster makes no other ids; as a path, "" or "." would be the directory of all runs.
        places = self.places if RUN_ID.fullmatch(run_id) else []
        if not all(self.delete_files(place / run_id) for place in places):
            return False
        self.count.update(runs=1, events=sum(1 for _ in self.events(run_id)))
        if not self.dry_run:
            # `instance.delete_run` does the same in the other order: if it were killed in between, events would stay.
            self.instance.event_log_storage.delete_events(run_id)
            self.instance.run_storage.delete_run(run_id)
        return True

    def events(self, run_id: str) -> Iterator[object]:
        """Yield the run's events."""
        cursor, more = None, True
        while more:
            connection = self.instance.get_records_for_run(run_id, cursor, limit=1000)
            yield from connection.records
            cursor, more = connection.cursor, connection.has_more

    def delete_files(self, directory: UPath) -> bool:
        """Delete a directory, if it exists, and return True; or log why it stays, and return False."""
        try:
            files = directory.fs.find(directory.path, detail=True).values()
            if not self.dry_run and directory.exists():
                directory.fs.rm(directory.path, recursive=True)
        except FileNotFoundError:
            return False  # another clean-up is deleting it
        except (OSError, RecursionError):  # one directory must not prevent the others from being deleted, every night
            self.log.exception(f"{directory} could not be deleted")
            self.count["failed"] += 1
            return False
        self.count.update(files=len(files), bytes=sum(file["size"] or 0 for file in files))
        return True

    def delete_orphans(self) -> None:
        """Delete old directories that are named after a run which does not exist."""
        for place in self.places:
            for name in self.unknown(path.name for path in (place.iterdir() if place.exists() else ())):
                with suppress(FileNotFoundError):  # another clean-up deleted it
                    if modified(place / name) < self.before and self.delete_files(place / name):
                        self.count["orphans"] += 1
        for name in () if self.dry_run else self.unknown(shard.stem for shard in self.shards.glob("*.db")):
            for shard in self.shards.glob(f"{name}.db*"):
                shard.unlink(missing_ok=True)

    def unknown(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the names that look like a run id but belong to no run."""
        run_ids = filter(RUN_ID.fullmatch, names)
        while batch := list(islice(run_ids, BATCH)):
            known = {run.run_id for run in self.instance.get_runs(dg.RunsFilter(run_ids=batch))}
            yield from (run_id for run_id in batch if run_id not in known)

    def delete_ticks(self) -> None:
        """Delete the old ticks of every schedule and sensor; they are not counted."""
        for state in () if self.dry_run else self.instance.all_instigator_state():
            self.instance.purge_ticks(state.instigator_origin_id, state.selector_id, self.before.timestamp())

    def __str__(self) -> str:
        """Return the counts as a sentence."""
        what = "Would delete" if self.dry_run else "Deleted"
        return f"{what} " + ", ".join(f"{number:,} {name}" for name, number in self.count.items() if name != "failed")


def modified(path: UPath) -> datetime:
    """Return when the newest file of a directory was written, or, if it is empty, the directory itself."""
    times: list[datetime] = [path.fs.modified(file) for file in path.fs.find(path.path) or [path.path]]
    return max(times)


class RetentionConfig(dg.Config):
    """How many days to keep (default: RETENTION_DAYS; 0 keeps everything), and whether only to count."""

    days: int | None = Field(default=None, ge=0)
    dry_run: bool = False


@dg.op(out=dg.Out(dg.Nothing))
def delete_old_runs(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
    """Delete old runs with their events and files, old ticks, and old directories without a run."""
    days = int(os.getenv("RETENTION_DAYS") or "30") if config.days is None else config.days
    if days == 0:
        context.log.info("Everything is kept: RETENTION_DAYS is 0")
        return
    clean_up = CleanUp(context, datetime.now(UTC) - timedelta(days=days), dry_run=config.dry_run)
    context.log.info(f"Deleting what ended before {clean_up.before:%Y-%m-%d %H:%M} UTC, {days} days ago")
    clean_up.delete_runs()
    clean_up.delete_orphans()
    clean_up.delete_ticks()
    context.log.info(str(clean_up))
    if clean_up.count["failed"]:
        raise dg.Failure("Some directories could not be deleted; see the log", metadata={**clean_up.count})
    context.add_output_metadata({"dry_run": config.dry_run, "days": days, **clean_up.count})


# With an executor of its own, it works whatever executor your definitions name for all jobs.
@dg.job(config={"ops": {"delete_old_runs": {"config": {"dry_run": False}}}}, executor_def=dg.in_process_executor)
def retention_job() -> None:
    """Delete everything older than RETENTION_DAYS."""
    delete_old_runs()


every_night = dg.ScheduleDefinition(
    name="every_night",
    job=retention_job,
    cron_schedule="40 3 * * *",  # every night at 3:40
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

defs = dg.Definitions(jobs=[retention_job], schedules=[every_night])
