"""The least a run can be: Dagster and the pipeline imported, the job executed in this process, events in Postgres."""

import dagster as dg

from pipeline import clean_string_job

with dg.DagsterInstance.get() as instance:
    assert clean_string_job.execute_in_process(instance=instance).success
