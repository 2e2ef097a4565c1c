"""What launches runs by itself, and what happens when one fails."""

from collections.abc import Iterator

import dagster as dg

from pipeline.jobs import import_orders
from pipeline.resources import Files

RUNNING = dg.DefaultSensorStatus.RUNNING


@dg.sensor(job=import_orders, minimum_interval_seconds=10, default_status=RUNNING)
def inbox(files: Files) -> Iterator[dg.RunRequest]:
    """Import each file that is new in the inbox, and again when it changes."""
    for path in sorted(files.path("inbox", "*").parent.glob("*.csv")):
        yield dg.RunRequest(run_key=f"{path.name} {path.stat().st_mtime_ns}", partition_key=path.stem)


@dg.run_failure_sensor(minimum_interval_seconds=10, default_status=RUNNING)
def alert(context: dg.RunFailureSensorContext, files: Files) -> None:
    """Say which run failed, and why: here in a file, where yours may send a message."""
    run = context.dagster_run
    with files.path("alerts.txt").open("a") as alerts:
        alerts.write(f"{run.job_name} {run.run_id}: {context.failure_event.message}\n")


automation = dg.AutomationConditionSensorDefinition(
    "automation", target=dg.AssetSelection.all(), default_status=RUNNING, minimum_interval_seconds=10
)
