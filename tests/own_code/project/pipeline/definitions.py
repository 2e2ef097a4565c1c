"""Everything Dagster loads, assembled."""

import dagster as dg

from pipeline.assets import orders, revenue
from pipeline.checks import orders_are_sound
from pipeline.jobs import count_orders, import_orders
from pipeline.resources import Files
from pipeline.sensors import alert, automation, inbox

defs = dg.Definitions(
    assets=[orders, revenue],
    asset_checks=[orders_are_sound],
    jobs=[import_orders, count_orders],
    sensors=[inbox, alert, automation],
    resources={"files": Files()},
    executor=dg.in_process_executor,  # all steps of a run share one process, which starts faster
)
