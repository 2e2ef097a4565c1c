"""The tables."""

import os

import dagster as dg
import duckdb
import pandas as pd

from pipeline.resources import Files

days = dg.DailyPartitionsDefinition(start_date="2026-01-01")


@dg.asset(partitions_def=days)
def orders(context: dg.AssetExecutionContext, files: Files) -> dg.MaterializeResult[None]:
    """Make a day's file a table: one row an order, amounts in cents."""
    day = context.partition_key
    rows = pd.read_csv(files.path("inbox", f"{day}.csv")).drop_duplicates("order_id")
    rows["cents"] = (rows.pop("amount") * 100).round().astype("int64")
    table = files.path("orders", f"{day}.parquet")
    partial = table.with_suffix(".partial")
    with duckdb.connect() as database:  # in memory: a database in a file has one writer at a time, runs are several
        database.register("rows", rows)
        database.sql("SELECT * FROM rows").write_parquet(str(partial))
    partial.rename(table)
    return dg.MaterializeResult(metadata={"dagster/row_count": len(rows), "path": dg.MetadataValue.path(str(table))})


# As soon as days of orders are new and no more are on their way; not every day since the start need have some.
when_orders_are_new = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())


@dg.asset(deps=[orders], automation_condition=when_orders_are_new)
def revenue(context: dg.AssetExecutionContext, files: Files) -> dg.MaterializeResult[None]:
    """Add up the orders of each customer."""
    tables = str(files.path("orders", "*.parquet"))
    with duckdb.connect() as database:
        database.execute(
            "SELECT customer, sum(cents) / 100 AS revenue FROM read_parquet(?) GROUP BY ALL ORDER BY ALL", [tables]
        )
        rows = database.df()
    rows.to_csv(files.path("revenue.csv"), index=False)
    context.log.info("Revenue of %d customers, in %s", len(rows), os.getenv("CURRENCY", "EUR"))
    return dg.MaterializeResult(metadata={"total": float(rows["revenue"].sum())})
