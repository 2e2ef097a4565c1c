"""The graph, the job that runs it, and how its ops are executed."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipeline.ops import (
    CleanStringConfig,
    GetStringConfig,
    NormalizeStringConfig,
    clean_string,
    get_string,
    normalize_string,
)


@dg.graph
def clean_string_graph() -> None:
    """Pick a sentence, change its letter case, clean out its punctuation."""
    clean_string(normalize_string(get_string()))


# Dagster's own default is a process per op, which costs more than these ops do.
@dg.configured(
    dg.multi_or_in_process_executor,
    config_schema=dg.Field(
        dg.Selector({"in_process": dg.Permissive(), "multiprocess": dg.Permissive()}),
        default_value={"in_process": {}},
    ),
)
def in_process_by_default(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Execute the ops in the run's own process; `execution: {config: {multiprocess: {}}}` gives each op its own."""
    if "multiprocess" not in config:
        return config
    # Each op's process is forked from one that has imported everything, instead of importing it again.
    start_method = {"forkserver": {"preload_modules": ["pipeline", "dagster_postgres"]}}
    return {"multiprocess": {"start_method": start_method, **config["multiprocess"]}}


clean_string_job = clean_string_graph.to_job(
    name="clean_string_job",
    executor_def=in_process_by_default,
    # What the Launchpad opens with, and what a run gets that brings no config of its own.
    config=dg.RunConfig(
        ops={
            "get_string": GetStringConfig(data_key="1"),
            "normalize_string": NormalizeStringConfig(norm="upper"),
            "clean_string": CleanStringConfig(),
        }
    ),
)
