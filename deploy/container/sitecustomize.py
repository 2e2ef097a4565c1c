"""Python imports this as it starts, in both Dagster images; your own commands and their workers are left alone."""

import sys

if sys.argv[0].rpartition("/")[2].startswith(("dagster", "start-dagit")):  # dagster and dagster-daemon too
    from deployable_dagster import startup

    startup.collect_rarely()
