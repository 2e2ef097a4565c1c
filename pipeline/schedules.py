"""When the job runs by itself."""

import dagster as dg

from pipeline.jobs import clean_string_job


@dg.schedule(
    job=clean_string_job,
    cron_schedule="* * * * *",  # every minute
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Run once a minute; the run key makes sure that one tick never makes two runs."""
    date = context.scheduled_execution_time.strftime("%Y-%m-%d %H:%M:%S")
    return dg.RunRequest(run_key=date, tags={"date": date})
