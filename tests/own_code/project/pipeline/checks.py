"""What must hold of the tables."""

import dagster as dg
import duckdb

from pipeline.assets import orders
from pipeline.resources import Files


@dg.asset_check(asset=orders)
def orders_are_sound(files: Files) -> dg.AssetCheckResult:
    """Find no order that has no customer, or costs nothing."""
    tables = str(files.path("orders", "*.parquet"))
    with duckdb.connect() as database:
        database.execute("SELECT count(*) FROM read_parquet(?) WHERE customer IS NULL OR cents <= 0", [tables])
        (unsound,) = database.fetchone() or (0,)
    return dg.AssetCheckResult(passed=unsound == 0, metadata={"unsound": unsound})
