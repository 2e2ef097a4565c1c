"""Everything Dagster loads, assembled."""

import dagster as dg

from pipeline.io_managers import TextIOManagerFactory
from pipeline.jobs import clean_string_job
from pipeline.resources import Connection
from pipeline.schedules import every_minute

defs = dg.Definitions(
    jobs=[clean_string_job],
    schedules=[every_minute],
    resources={"connection": Connection(), "text_io_manager": TextIOManagerFactory()},
)
