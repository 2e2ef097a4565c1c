"""When the job is launched automatically."""

import dagster as dg

from pipeline.jobs import clean_string_job


@dg.schedule(
    job=clean_string_job,
    cron_schedule="* * * * *",  # every minute
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Launch one run a minute; the run key ensures that a tick never launches two."""
    date = context.scheduled_execution_time.strftime("%Y-%m-%d %H:%M:%S")
    return dg.RunRequest(run_key=date, tags={"date": date})
