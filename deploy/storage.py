"""Dagster's storage in Postgres, over connections that are kept: Dagster alone makes a new one for every event."""

import os
from typing import Any

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import event, exc
from sqlalchemy.pool import Pool


class PostgresStorage(DagsterPostgresStorage):
    """Keeps one connection for runs, one for events and one for schedules, and makes more when threads need them."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Return Dagster's own storage, told to do as in Dagit, but to let a statement take its time."""
        storage = super().from_config_value(inst_data, config_value)
        # A code server makes a storage for each tick and leaves it, with its connections, to the garbage collector.
        if "DAGSTER_CONTAINER_CONTEXT" not in os.environ:
            for each in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
                each.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=20)
        return storage


@event.listens_for(Pool, "checkout")
def try_out(connection: Any, _record: object, _proxy: object) -> None:
    """See whether a connection still stands before it is used; it does not after a restart of Postgres.

    Raises DisconnectionError: SQLAlchemy makes a new one.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except connection.Error as error:
        raise exc.DisconnectionError from error
