"""The graph, and the job that runs it."""

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


clean_string_job = clean_string_graph.to_job(
    name="clean_string_job",
    # The Launchpad opens with this config, and a run uses it for everything that its own config leaves out.
    config=dg.RunConfig(
        ops={
            "get_string": GetStringConfig(data_key="1"),
            "normalize_string": NormalizeStringConfig(norm="upper"),
            "clean_string": CleanStringConfig(),
        },
        # All ops share the run's process. `multiprocess: {}` gives each its own, which costs more than these ops do.
        execution={"config": {"in_process": {}}},
    ),
)
