"""The least a run can do: import Dagster and the pipeline, execute the job in this process, events in Postgres."""

import dagster as dg

from pipeline import clean_string_job

with dg.DagsterInstance.get() as instance:
    assert clean_string_job.execute_in_process(instance=instance).success
