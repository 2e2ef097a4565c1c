"""What is launched as a whole."""

import dagster as dg
import pandas as pd

from pipeline.assets import orders
from pipeline.resources import Files

import_orders = dg.define_asset_job("import_orders", selection=dg.AssetSelection.assets(orders))


@dg.op(out=dg.DynamicOut(str))
def list_inbox(files: Files) -> list[dg.DynamicOutput[str]]:
    """Name each day's file."""
    names = sorted(path.stem for path in files.path("inbox").glob("*.csv"))
    return [dg.DynamicOutput(name, mapping_key=name.replace("-", "_")) for name in names]


@dg.op
def count(files: Files, day: str) -> int:
    """Count a day's orders."""
    return len(pd.read_csv(files.path("inbox", f"{day}.csv")))


@dg.op
def add_up(context: dg.OpExecutionContext, files: Files, counts: list[int]) -> None:
    """Write how many orders there are."""
    files.path("orders.txt").write_text(f"{sum(counts)} orders on {len(counts)} days")
    context.log.info("%d orders", sum(counts))


@dg.job
def count_orders() -> None:
    """Count the orders of each day, in a step of its own."""
    add_up(list_inbox().map(count).collect())
