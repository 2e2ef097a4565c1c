"""pipeline/schedules.py: one tick, one run, named after its minute."""

from datetime import UTC, datetime

import dagster as dg

from pipeline.definitions import defs
from pipeline.schedules import every_minute


def tick(time: datetime) -> dg.RunRequest:
    """Return what the schedule asks for at `time`."""
    context = dg.build_schedule_context(scheduled_execution_time=time, repository_def=defs.get_repository_def())
    (request,) = every_minute.evaluate_tick(context).run_requests or []
    return request


def test_it_runs_the_job_every_minute_from_the_start() -> None:
    assert (every_minute.cron_schedule, every_minute.execution_timezone) == ("* * * * *", "UTC")
    assert every_minute.default_status is dg.DefaultScheduleStatus.RUNNING
    assert every_minute.job_name == "clean_string_job"


def test_a_tick_carries_its_time_as_tag_and_run_key() -> None:
    request = tick(datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
    assert request.tags["date"] == "2026-02-03 04:05:00"
    assert request.run_key == tick(datetime(2026, 2, 3, 4, 5, tzinfo=UTC)).run_key
    assert request.run_key != tick(datetime(2026, 2, 3, 4, 6, tzinfo=UTC)).run_key
