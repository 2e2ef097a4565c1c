"""The same graph, in a job with Dagster's default executor: a process per op."""

import dagster as dg

from pipeline.io_managers import TextIOManagerFactory
from pipeline.jobs import clean_string_graph
from pipeline.resources import Connection

defs = dg.Definitions(
    jobs=[clean_string_graph.to_job(name="clean_string_job")],
    resources={"connection": Connection(), "text_io_manager": TextIOManagerFactory()},
)
