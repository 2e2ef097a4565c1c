"""Dagster's storage in Postgres, with pooled connections and a retry that never misses a failure."""

import os
import time
import weakref
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import dagster as dg
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from sqlalchemy import URL, NullPool
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin, Engine

RECORDED = 5  # seconds within which Dagster records the end of a run in all three places: more than enough


class EventLogStorage(PostgresEventLogStorage):
    """Hides the end of a run from the daemon's retries until Dagster has finished recording it.

    Dagster records a failure as an event, then as the run's status, then as the decision to retry. The daemon
    (dagster/_daemon/auto_run_reexecution/event_log_consumer.py, 1.13.27) reads each event once; between the first two
    it finds no failed run, and never retries it. dagster-io/dagster#33741 and its fix #33744 are about a sibling of
    this race. This class can go when the consumer waits for the status itself.
    """

    def get_logs_for_all_runs_by_log_id(self, *args: Any, **query: Any) -> Mapping[int, dg.EventLogEntry]:
        """Return the events that are old enough. Nothing but the retries asks for them."""
        before = time.time() - RECORDED
        events = super().get_logs_for_all_runs_by_log_id(*args, **query)
        return dict(takewhile(lambda event: event[1].timestamp < before, events.items()))


class PostgresStorage(DagsterPostgresStorage):
    """What dagster.yaml names as the storage."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "PostgresStorage":
        """Return the storage: Dagster's own method makes a DagsterPostgresStorage, whatever the class."""
        storage = cls(config_value["postgres_url"], inst_data=inst_data)
        # In place, because a second event log would open connections of its own.
        storage.event_log_storage.__class__ = EventLogStorage
        return storage


class PooledConnections(CreateEnginePlugin):
    """Makes SQLAlchemy pool connections to Postgres, where the URL says `plugin=pooled`.

    Dagster opens a connection for every event (`poolclass=NullPool` in dagster_postgres/event_log/event_log.py and its
    siblings, 0.29.27) and has no setting for it. This class can go when it has one.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """Test each connection before use: it may have broken, as when Postgres restarts."""
        super().__init__(url, kwargs)
        kwargs["pool_pre_ping"] = True
        # A code server makes a storage for each tick, and leaves it with its connections to the garbage collector.
        if kwargs.get("poolclass") is NullPool and "CODE_SERVER" not in os.environ:
            del kwargs["poolclass"]
            kwargs |= {"pool_size": 1, "max_overflow": 20, "pool_recycle": 3600}

    def engine_created(self, engine: Engine) -> None:
        """Have a forked process, such as a worker of `multiprocessing`, open connections of its own."""
        reference = weakref.ref(engine)

        def forget() -> None:
            if forked := reference():
                forked.dispose(close=False)  # they are still the parent's

        os.register_at_fork(after_in_child=forget)

    def update_url(self, url: URL) -> URL:
        """Return the URL unchanged: the plugin takes no other parameters."""
        return url


plugins.register("pooled", __name__, "PooledConnections")
