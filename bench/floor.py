"""The least a run can do: import Dagster and the pipeline, execute the job in this process, events in Postgres."""

from deployable_dagster import startup

startup.collect_rarely()  # as in Dagster's own commands

import dagster as dg  # noqa: E402

from pipeline import clean_string_job  # noqa: E402

with dg.DagsterInstance.get() as instance:
    assert clean_string_job.execute_in_process(instance=instance).success
