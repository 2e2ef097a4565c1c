"""Dagster's storage in Postgres, over connections that are kept: Dagster alone makes a new one for every event."""

import os
from typing import Any

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL, NullPool
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

__all__ = ["DagsterPostgresStorage"]  # dagster.yaml names it as of this module, so that the plugin is there too


class KeptConnections(CreateEnginePlugin):
    """Makes SQLAlchemy keep a connection, where a URL says `plugin=kept`."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """Have each connection tried out before it is used: it may have broken, as in a restart of Postgres."""
        super().__init__(url, kwargs)
        kwargs["pool_pre_ping"] = True
        # A code server makes a storage for each tick and leaves it, with its connections, to the garbage collector.
        if kwargs.get("poolclass") is NullPool and "DAGSTER_CONTAINER_CONTEXT" not in os.environ:
            del kwargs["poolclass"]
            kwargs |= {"pool_size": 1, "max_overflow": 20, "pool_recycle": 3600}

    def update_url(self, url: URL) -> URL:
        """Return the URL, in which nothing else is for the plugin."""
        return url


plugins.register("kept", __name__, "KeptConnections")
